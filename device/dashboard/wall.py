"""The wall: a tile for each station, to be understood by whoever passes."""

from collections import Counter

from nicegui import ui

from device.collector.live import StationNow
from device.dashboard.frame import LOOK_S, Herald, Lab, legend, page_frame, shape, station_path, utc_now
from device.dashboard.words import Sight, sight
from device.report.markup import Html, join, tag

_SUMMARY = {
    "toxic": "toxic",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
    "non_toxic": "non-toxic",
    "control": "at a control",
    "waiting": "without a verdict yet",
    "quiet": "silent or switched off",
}
_AGES_S = 2.0
"""How often ages are brought up to date, s."""


def tile_html(seen: Sight) -> Html:
    """Return what stands below the name in a tile."""
    word = tag("strong", shape(seen.look) if seen.look not in ("quiet", "waiting") else None, seen.word)
    is_final = seen.look not in ("quiet", "waiting") and not seen.provisional
    band = tag(
        "div",
        word,
        tag("p", seen.meaning, class_="meaning"),
        tag("p", "provisional: so far, not final", class_="open") if seen.provisional else None,
        class_="band",
    )
    alerts = [tag("p", tag("b", "Attention: "), text, class_="alerts") for text in seen.alerts[:3]]
    if len(seen.alerts) > 3:
        alerts.append(tag("p", f"and {len(seen.alerts) - 3} more", class_="alerts"))
    age = f"{'Final verdict' if is_final else 'Verdict'}, {seen.age}" if seen.age else None
    lines = tag(
        "div",
        tag("p", seen.subject, class_="subject") if seen.subject else None,
        tag("p", age) if age else None,
        tag("p", "Station: ", seen.doing, class_="note") if seen.doing else None,
        *alerts,
        tag("p", "SIMULATED: no real culture", class_="mark") if seen.simulated else None,
        class_="lines",
    )
    return Html(band + lines)


class _Tile:
    """The tile of one station on one browser's page."""

    def __init__(self, site: str, name: str) -> None:
        self.seen: Sight | None = None
        self._card = ui.element("li").classes("tile")
        with self._card:
            link = tag("a", name, href=station_path(site, name))
            ui.html(join(link, " ", tag("small", site)), tag="h2")
            self._body = ui.html("")

    def show(self, seen: Sight) -> str | None:
        """Show what is seen; return the new word if it is another one than before."""
        before, self.seen = self.seen, seen
        if before == seen:
            return None
        self._body.set_content(tile_html(seen))
        if before is None or before.look != seen.look:
            if before is not None:
                self._card.classes(remove=f"look-{before.look}")
            self._card.classes(add=f"look-{seen.look}")
        is_news = before is not None and before.look != seen.look
        return seen.word if is_news else None


class Wall:
    """The tiles of one browser's page, brought up to date as stations speak."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._tiles = lab, dict[tuple[str, str], _Tile]()
        self._versions: dict[tuple[str, str], int] = {}
        self._herald = Herald()
        self._summary = ui.html("", tag="p")
        self._list = ui.element("ul").classes("tiles").props('aria-label="Stations"')
        self.look(everything=True)

    def look(self, *, everything: bool = False) -> None:
        """Bring the tiles of stations that said something up to date; of all, for their ages."""
        versions = self._lab.versions()
        changed = {key for key, version in versions.items() if self._versions.get(key) != version}
        if not changed and not everything:
            return
        self._versions = versions
        said, now, news = self._lab.collector.now(), utc_now(), list[str]()
        if said.keys() != self._tiles.keys():
            self._lay_out(sorted(said))
        for key, station in said.items():
            if everything or key in changed or self._tiles[key].seen is None:
                word = self._tiles[key].show(sight(station, now))
                news += [f"{key[1]}: {word}"] if word else []
        if news:
            self._herald.say("; ".join(news[:5]))
        self._sum_up(said)

    def _lay_out(self, keys: list[tuple[str, str]]) -> None:
        self._list.clear()
        with self._list:
            self._tiles = {key: _Tile(*key) for key in keys}

    def _sum_up(self, said: dict[tuple[str, str], StationNow]) -> None:
        seen = [tile.seen for tile in self._tiles.values() if tile.seen is not None]
        counts = Counter("control" if one.is_control else one.look for one in seen)
        parts = [f"{counts[look]} {words}" for look, words in _SUMMARY.items() if counts[look]]
        noun = "station" if len(said) == 1 else "stations"
        text = f"{len(said)} {noun}: {', '.join(parts)}." if said else "No station was heard yet."
        self._summary.set_content(tag("b", text))


def wall_page(lab: Lab) -> None:
    """Make the page."""
    with page_frame("Is the culture being poisoned?"):
        wall = Wall(lab)
        ui.html(tag("section", tag("h2", "What the words mean"), legend())).classes("panel")
    ui.timer(LOOK_S, wall.look)
    ui.timer(_AGES_S, lambda: wall.look(everything=True))
