"""One station: its picture, counts over time, quality against what is usual, health, outbox, alerts."""

import asyncio
from collections.abc import Sequence
from statistics import median
from typing import Any

from nicegui import ui

from device.collector.history import History
from device.collector.live import StationNow
from device.dashboard.chart import over_time
from device.dashboard.frame import (
    LOOK_S,
    Herald,
    Lab,
    guarded,
    overlay_path,
    page_frame,
    station_path,
    utc_now,
)
from device.dashboard.orders import order_panel
from device.dashboard.wall import tile_html
from device.dashboard.words import ago, shares_text, sight
from device.report.markup import Html, fact_table, section, table, tag
from device.report.method import RANGES
from device.report.words import NOT_KNOWN, Payload, explain, in_percent

_POINTS = 300
_CHART_S = 5.0
"""How often charts are drawn anew while readings come, s."""
_LIVE, _DEAD = "#00694d", "#a33a00"


class StationPage:
    """The parts of one browser's page that change."""

    def __init__(self, lab: Lab, site: str, name: str) -> None:
        self._lab, self._key = lab, (site, name)
        self._version, self._seen_word = -1, ""
        self._herald = Herald()
        with ui.element("div").classes("panels"):
            with ui.element("article").classes("tile"):
                self._verdict = ui.html("")
            self._picture = ui.html("").classes("panel")
            self._health = ui.html("").classes("panel")
            self._charts = ui.html(tag("p", "Reading the history ...")).classes("panel double")
            self._quality = ui.html("").classes("panel")
            order_panel(lab, site, name)
            self._about = ui.html("").classes("panel")
        self.look()

    def look(self, *, everything: bool = False) -> None:
        """Bring the page up to date where the station said something, or for the ages."""
        version = self._lab.versions().get(self._key, 0)
        if version == self._version and not everything:
            return
        self._version = version
        said = self._lab.station(*self._key)
        if said is None:
            self._verdict.set_content(tag("p", "This station was never heard by this dashboard."))
            return
        seen = sight(said, utc_now())
        verdict = said.verdict
        numbers = None if verdict is None else guarded(lambda: shares_text(verdict))
        self._verdict.set_content(
            tag("h2", "Verdict", class_="unseen") + tile_html(seen) + tag("p", numbers, class_="lines")
        )
        self._verdict.classes(replace=f"look-{seen.look}")
        self._picture.set_content(guarded(lambda: self._picture_html(said)))
        self._health.set_content(guarded(lambda: health_html(said)))
        self._about.set_content(guarded(lambda: about_html(said)))
        if self._seen_word not in ("", seen.word):
            self._herald.say(f"{self._key[1]}: {seen.word}")
        self._seen_word = seen.word

    def _picture_html(self, said: StationNow) -> Html:
        if said.reading is None:
            return section("Field", tag("p", "No field was read yet."))
        review = tag("a", "Review this field", href=f"{station_path(*self._key)}/review")
        return Html(picture_html(self._lab, said.reading) + tag("p", review))

    async def draw(self) -> None:
        """Draw charts and quality from the history."""
        readings = await asyncio.to_thread(self._read)
        self._charts.set_content(guarded(lambda: charts_html(readings)))
        self._quality.set_content(guarded(lambda: quality_html(readings)))

    def _read(self) -> list[dict[str, Any]]:
        return History(self._lab.path).series(*self._key, points=_POINTS)


def station_page(lab: Lab, site: str, name: str) -> None:
    """Make the page."""
    with page_frame(f"Station {name}", f"{site}/{name}"):
        page = StationPage(lab, site, name)
    ui.timer(LOOK_S, page.look)
    ui.timer(2.0, lambda: page.look(everything=True))
    ui.timer(_CHART_S, page.draw, immediate=True)


def picture_html(lab: Lab, reading: Payload) -> Html:
    """Return the picture of a field, with what it shows in words."""
    key = reading["site"], reading["station"], reading["ledger_id"], int(reading["seq"])
    caption = f"{field_text(reading)}."
    if lab.overlay(*key) is None:
        why = "No picture of it. A station sends them with overlay = true in station.toml."
        return section("Field", tag("p", caption), tag("p", why, class_="note"))
    picture = tag("figure", tag("img", src=overlay_path(*key), alt=caption), tag("figcaption", caption))
    how = "Circle: live; cross: rounded or dead; square: lysed; outline alone: no cell."
    return section("Field", picture, tag("p", how, class_="note"))


def field_text(reading: Payload) -> str:
    """Return in words what one field gave."""
    place = f"Well {reading['well']}, field {int(reading['field']) + 1}" if reading.get("well") else "Field"
    counts = f"{reading['n_live']} live, {reading['n_dead']} affected, {reading['n_other']} other"
    said = f"{place}: {counts}; {in_percent(reading['affected'])} affected"
    quality = reading["quality"]
    return said if quality["passed"] else f"{said}. Refused: {'; '.join(map(explain, quality['refused_by']))}"


def charts_html(readings: Sequence[Payload]) -> Html:
    """Return cells and affected share over time."""
    if not readings:
        return section("Cells over time", tag("p", "No field was read yet."))
    cells = over_time(
        readings,
        [("live", _LIVE, None, lambda r: r["n_live"]), ("affected", _DEAD, "6 3", lambda r: r["n_dead"])],
        unit="",
    )
    share = over_time(
        readings,
        [("affected", _DEAD, None, lambda r: None if r["affected"] is None else 100 * r["affected"])],
        unit=" %",
        top=100.0,
    )
    last = tag("p", "Newest: ", field_text(readings[-1]), ".")
    return section(
        "Cells over time", last, tag("h3", "Cells a field"), cells, tag("h3", "Affected share"), share
    )


def quality_html(readings: Sequence[Payload]) -> Html:
    """Return the newest field's quality beside what is usual at this station."""
    if not readings:
        return section("Image quality", tag("p", "No field was read yet."))
    newest = readings[-1]["quality"]
    usual = [reading["quality"] for reading in readings if reading["quality"]["passed"]]
    rows = []
    for name, words in RANGES.items():
        known = sorted(q[name] for q in usual if q.get(name) is not None)
        middle = "-" if not known else f"{median(known):.3g} ({known[0]:.3g} to {known[-1]:.3g})"
        now = newest.get(name)
        rows.append(((words, NOT_KNOWN if now is None else f"{now:.3g}", middle), ""))
    said = tag("p", "The newest field is fit to be judged.", class_="good")
    if not newest["passed"]:
        said = tag(
            "p", "The newest field was refused: ", "; ".join(map(explain, newest["refused_by"])), class_="bad"
        )
    flags = [tag("li", explain(code)) for code in newest["flags"]]
    refused = len(readings) - len(usual)
    note = f"Usual: median, lowest and highest of {len(usual)} accepted fields; {refused} refused."
    titles = ("measure", "newest field", "usual here")
    return section(
        "Image quality",
        said,
        tag("ul", *flags) if flags else None,
        table(titles, rows),
        tag("p", note, class_="note"),
    )


def health_html(said: StationNow) -> Html:
    """Return how the station is, and what waits in its outbox."""
    health = said.health
    frames = "{n_captured} captured, {n_analyzed} analyzed, {n_dropped} dropped"
    alerts = [
        tag("p", tag("b", f"{alert['code']}: "), alert.get("text") or "", class_="alerts")
        for alert in said.alerts
    ] or [tag("p", "No alert is raised.", class_="good")]
    if health is None:
        return section("Health", *alerts, tag("p", "The station tells no health now."))
    waiting = health["n_unsent"]
    oldest = f", the oldest for {health['oldest_unsent_s']:.0f} s" if health.get("oldest_unsent_s") else ""
    free, memory = health.get("disk_free_bytes"), health.get("rss_bytes")
    celsius = health.get("cpu_celsius")
    facts = {
        "outbox": "empty: everything was delivered" if not waiting else f"{waiting} records wait{oldest}",
        "frames": frames.format_map(health),
        "camera reopened": f"{health['n_camera_reopens']} times",
        "broker lost": f"{health['n_reconnects']} times",
        "clock": {"synced": "set by a time server", "unsynced": "NOT set: times may be wrong"}.get(
            health["clock_state"], NOT_KNOWN
        ),
        "disk": NOT_KNOWN if free is None else f"{free / 1e9:.1f} GB free",
        "processor": NOT_KNOWN if celsius is None else f"{celsius:.0f} °C",
        "slowed by": ", ".join(health.get("throttled") or ()) or "nothing known",
        "memory": NOT_KNOWN if memory is None else f"{memory / 1e6:.0f} MB",
    }
    return section("Health", *alerts, fact_table(facts))


def about_html(said: StationNow) -> Html:
    """Return what runs there, with what."""
    info = said.info
    heard = said.heard_at
    last = "not since the dashboard runs" if heard is None else ago((utc_now() - heard).total_seconds())
    if info is None:
        return section("About", tag("p", "Last heard: ", last))
    facts: dict[str, object] = {"availability": said.availability or NOT_KNOWN, "heard": last}
    facts |= {
        "version": info["version"],
        "assay": f"{info['assay']}, {info['modality']}, {info['method']}",
        "camera": info["camera"],
        "scale": f"{info['um_per_px']:g} um a pixel, {info['um_per_px_source']}",
        "rule": info.get("rule") or "none",
    }
    model = info.get("cell_model")
    if model is not None:
        facts["cell model"] = f"{model['name']} ({'trusted' if model['trusted'] else 'NOT trusted'})"
    for made in info.get("calibrations") or ():
        facts[f"calibration, {made['kind']}"] = f"{made['value']:g} ± {made['uncertainty']:g} on {made['at']}"
    return section("About", fact_table(facts))
