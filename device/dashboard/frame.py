"""What all pages share: the lab that they look at, heading, navigation, legend, and words read aloud."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from nicegui import ui

from device.collector import Collector
from device.collector.live import StationNow
from device.dashboard.guard import Operator
from device.messages import OVERLAY
from device.publishers import mqtt
from device.report.figures import mark
from device.report.markup import Html, join, tag
from device.report.words import OUTCOME_WORDS, outcome_name

_OVERLAYS = 200
"""Newest pictures of all stations together, to be reviewed; 100 kB each."""
_LEDGER = re.compile("[0-9A-Za-z-]{1,64}")
"""A ledger that can stand in the address of a picture."""
LOOK_S = 0.2
"""How often a page looks whether something changed, s."""


class Lab:
    """What the pages look at: a collection in the file `path`, and who may send commands."""

    def __init__(self, path: Path, settings: mqtt.Settings, operator: Operator, version: str) -> None:
        self.path, self.operator, self.version = path, operator, version
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], int] = {}
        self._overlays: dict[tuple[str, str, str, int], bytes] = {}
        self.collector = Collector(path, settings, tell=lambda _: None, on_change=self.note)

    def note(self, site: str, station: str, leaf: str) -> None:
        """Note that a station said something; called in the collector's thread."""
        said = self.station(site, station) if leaf == OVERLAY else None
        with self._lock:
            if said is not None and said.overlay is not None and said.overlay.seq is not None:
                key = site, station, said.overlay.ledger_id or "-", said.overlay.seq
                if _LEDGER.fullmatch(key[2]):
                    self._overlays[key] = said.overlay.jpeg
                if len(self._overlays) > _OVERLAYS:
                    del self._overlays[next(iter(self._overlays))]
            self._versions[site, station] = self._versions.get((site, station), 0) + 1

    def overlay(self, site: str, station: str, ledger_id: str, seq: int) -> bytes | None:
        """Return the picture of a field as JPEG; None if it is not among the newest."""
        with self._lock:
            return self._overlays.get((site, station, ledger_id, seq))

    def versions(self) -> dict[tuple[str, str], int]:
        """Return of each station a number that grows with every change."""
        with self._lock:
            return dict(self._versions)

    def station(self, site: str, station: str) -> StationNow | None:
        """Return what a station says now; None if it was never heard."""
        return self.collector.now().get((site, station))


def utc_now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def guarded(make: Callable[[], str | None]) -> Html:
    """Return what `make` gives; a sentence where a message is not as this version of nanotox knows it."""
    try:
        return join(make())
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return tag("p", "A message says something here that this version of nanotox does not understand.")


def overlay_path(site: str, station: str, ledger_id: str, seq: int) -> str:
    """Return the address of a picture."""
    return "/overlay/" + "/".join(quote(str(part), safe="") for part in (site, station, ledger_id, seq))


def shape(outcome: str) -> Html:
    """Return the mark of an outcome as a small picture that is read aloud as nothing."""
    return tag("svg", mark(outcome, 8, 8, 6.5), viewBox="0 0 16 16", aria_hidden="true")


def outcome_tag(outcome: str) -> Html:
    """Return an outcome as shape and word."""
    known = outcome if outcome in OUTCOME_WORDS else "invalid"
    return tag("span", shape(known), outcome_name(outcome), class_=f"outcome {known}")


def station_path(site: str, station: str) -> str:
    """Return the address of a station's page."""
    return f"/station/{quote(site, safe='')}/{quote(station, safe='')}"


@contextlib.contextmanager
def page_frame(title: str, place: str = "") -> Iterator[None]:
    """Lay out a page around what is made in the `with` block; `place` stands beside the title."""
    ui.page_title(f"{title} - nanotox")
    ui.colors(primary="#0b4f8a")
    ui.add_head_html('<link rel="stylesheet" href="/static/page.css">')
    with ui.element("header").classes("bar"):
        with ui.element("a").props('href="#content"').classes("skip"):
            ui.html("Skip to content", tag="span")
        ui.html(join(title, " ", tag("small", place)) if place else join(title), tag="h1")
        links = [("Stations", "/"), ("Plates", "/plates")]
        items = [tag("li", tag("a", name, href=to)) for name, to in links]
        ui.html(tag("ul", *items), tag="nav").props('aria-label="Pages"')
        ui.html("Research use only", tag="p").classes("ruo")
    with ui.element("div").props('id="content" tabindex="-1"'):
        yield


def legend() -> Html:
    """Return what the marks mean."""
    return tag(
        "ul",
        *(
            tag("li", shape(outcome), tag("span", tag("b", outcome_name(outcome).upper()), f": {words}"))
            for outcome, words in OUTCOME_WORDS.items()
        ),
        class_="legend",
    )


class Herald:
    """A region that a screen reader reads aloud when something is put into it."""

    def __init__(self) -> None:
        self._region = ui.html("", tag="div").classes("unseen").props('role="status" aria-live="polite"')

    def say(self, text: str) -> None:
        """Have `text` read aloud after whatever is being read."""
        self._region.set_content(join(text))
