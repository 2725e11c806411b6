"""Plates: which there are, and one with its map, dose-response and wells, and the report of it."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from fastapi import Response
from nicegui import ui

from device.collector.history import Finished, History
from device.dashboard.frame import Lab, guarded, outcome_tag, page_frame, station_path
from device.journal.read import PlateRun
from device.messages.sealing import rfc3339
from device.report import render_report, sections
from device.report.markup import Html, join, section, table, tag
from device.report.words import explain_all

_DRAW_S = 3.0
"""How often a plate that runs is drawn anew, s."""
_LIMIT = 2000
"""Most verdicts of a running plate that are looked at: a provisional one follows every field."""


def plate_path(name: str, site: str, station: str) -> str:
    """Return the address of a plate's page."""
    return _address("/plate", name, site, station)


def _address(page: str, name: str, site: str, station: str) -> str:
    return f"{page}?" + urlencode({"name": name, "site": site, "station": station})


async def plates_page(lab: Lab) -> None:
    """Make the list of plates."""
    finished = await asyncio.to_thread(lambda: History(lab.path).plates())
    running = [
        (said.state["plate"], said.site, said.station)
        for said in lab.collector.now().values()
        if said.availability == "online"
        and said.state is not None
        and isinstance(said.state.get("plate"), str)
    ]
    with page_frame("Plates"):
        ui.html(_running_html(running)).classes("panel")
        ui.html(_finished_html(finished)).classes("panel")


def _running_html(running: list[tuple[str, str, str]]) -> Html:
    items = [
        tag("li", tag("a", plate, href=plate_path(plate, site, name)), " at ", _station(site, name))
        for plate, site, name in sorted(running)
    ]
    return section("Running now", tag("ul", *items) if items else tag("p", "No plate runs."))


def _finished_html(finished: list[Finished]) -> Html:
    rows = [
        (
            (
                tag("a", p.plate, href=plate_path(p.plate, p.site, p.station)),
                _station(p.site, p.station),
                f"{datetime.fromisoformat(p.ts):%d %b %Y %H:%M UTC}",
            ),
            "",
        )
        for p in finished
    ]
    if not rows:
        return section("Finished", tag("p", "No plate was finished yet."))
    return section("Finished", tag("div", table(("plate", "station", "finished"), rows), class_="scroll"))


def _station(site: str, name: str) -> Html:
    return tag("a", f"{site}/{name}", href=station_path(site, name))


async def plate_page(lab: Lab, name: str, site: str, station: str) -> None:
    """Make the page of one plate."""
    found = await asyncio.to_thread(lambda: _read(lab, name, site, station))
    with page_frame(f"Plate {name}", f"{site}/{station}"):
        shown = ui.html(_plate_html(found, name, site, station)).classes("report")

    async def draw() -> None:
        run_now = await asyncio.to_thread(lambda: _read(lab, name, site, station))
        shown.set_content(_plate_html(run_now, name, site, station))
        if run_now.plate:
            timer.deactivate()

    timer = ui.timer(_DRAW_S, draw, active=not found.plate)


def _read(lab: Lab, name: str, site: str, station: str) -> PlateRun:
    """Return a plate; one that is not finished has no report, and of each well its newest verdict."""
    history = History(lab.path)
    if (run_found := history.plate(name, site, station)) is not None:
        return run_found
    newest = {v["well"]: v for v in history.select("verdict", site, station, plate=name, limit=_LIMIT)}
    return PlateRun({}, [newest[well] for well in sorted(newest)])


def _plate_html(found: PlateRun, name: str, site: str, station: str) -> Html:
    if not found.verdicts:
        return tag("p", "Nothing is known of this plate.", class_="panel")
    said = [
        guarded(lambda: _heading(found, name, site, station)),
        guarded(lambda: sections.plate_section(found.verdicts)),
    ]
    if found.plate:
        said.append(guarded(lambda: sections.dose_sections(found.plate, found.verdicts)))
        said.append(guarded(lambda: sections.samples_section(found.plate, found.verdicts)))
        said.append(guarded(lambda: sections.controls_section(found.plate, found.verdicts)))
    said.append(guarded(lambda: sections.wells_section(found.verdicts)))
    return join(*(tag("div", part, class_="panel") for part in said))


def _heading(found: PlateRun, name: str, site: str, station: str) -> Html:
    tests = Counter(verdict["outcome"] for verdict in found.verdicts if verdict["role"] == "test")
    counts = [part for outcome, n in tests.items() for part in (outcome_tag(outcome), f": {n}  ")]
    controls = None
    if found.plate:
        controls = tag("p", "Controls are valid.", class_="good")
        if not found.plate["controls_valid"]:
            controls = tag(
                "p", f"Controls are NOT valid: {explain_all(found.plate['reasons'])}.", class_="bad"
            )
    simulated = any(verdict.get("simulated") for verdict in found.verdicts)
    return join(
        tag("h2", "Finished" if found.plate else "Running: provisional, not final"),
        tag("p", "At ", _station(site, station)),
        tag("p", "Test wells: ", *(counts or ("none yet",))),
        controls,
        tag("p", tag("span", "SIMULATED: no real culture", class_="mark")) if simulated else None,
        tag("p", tag("a", "Download the report", href=_address("/report", name, site, station), download=""))
        if found.plate
        else tag("p", "The report is made when the plate is finished.", class_="note"),
    )


def report_response(lab: Lab, name: str, site: str, station: str) -> Response:
    """Return the report of a finished plate, the one that `nanotox report` writes, to be kept."""
    found = History(lab.path).plate(name, site, station)
    if found is None:
        why = f"no plate called {name} is finished at {site}/{station}"
        return Response(why, 404, media_type="text/plain")
    written: dict[str, Any] = {"version": lab.version, "written_at": rfc3339(datetime.now(UTC))}
    text = render_report(found.plate, found.verdicts, found.readings, {}, **written)
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:60]
    headers = {"Content-Disposition": f'attachment; filename="plate-{safe}.html"'}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
