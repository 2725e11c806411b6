"""Review of a field by a person: looked at, accepted or corrected with a reason, kept by the station."""

import asyncio
from collections.abc import Sequence

from nicegui import ui

from device.collector.history import History
from device.dashboard.frame import Lab, guarded, page_frame, station_path
from device.dashboard.orders import Orders, add_orders
from device.dashboard.station import field_text, picture_html
from device.report.markup import Html, section, table, tag
from device.report.words import OUTCOME_NAMES, Payload

_FIELDS = 50
"""So many of the newest fields can be chosen."""
_STANDS = "stands"


async def review_page(lab: Lab, site: str, station: str, seq: int) -> None:
    """Make the page that reviews the field `seq`, the newest with a picture for 0."""
    readings = await asyncio.to_thread(
        lambda: History(lab.path).select("reading", site, station, limit=_FIELDS)
    )
    shown = [r for r in readings if lab.overlay(site, station, r["ledger_id"], r["seq"]) is not None]
    newest = (shown or readings)[-1] if readings else None
    chosen = next((r for r in readings if r["seq"] == seq), newest)
    with page_frame(f"Review of {station}", f"{site}/{station}"):
        if chosen is None:
            ui.html(tag("p", "No field was read yet.")).classes("panel")
            return
        with ui.element("div").classes("panels"):
            ui.html(guarded(lambda: picture_html(lab, chosen))).classes("panel")
            with ui.element("section").classes("panel"):
                ui.html(f"Your review of record {int(chosen['seq'])}", tag="h2")
                _form(lab, site, station, chosen)
            ui.html(guarded(lambda: _choices(lab, site, station, readings))).classes("panel wide")


def _form(lab: Lab, site: str, station: str, chosen: Payload) -> None:
    ui.html(
        tag(
            "p", "The record itself never changes: a review is kept beside it, with your name.", class_="note"
        )
    )
    orders = add_orders(lab, site, station)
    if orders is None:
        return
    outcome = ui.select(
        {_STANDS: "leave it as it is"} | OUTCOME_NAMES, value=_STANDS, label="Should have stated"
    )
    outcome.props("outlined dense")
    reason = ui.textarea("Reason (a correction needs one)").props("outlined dense autogrow maxlength=256")

    async def accept() -> None:
        await _annotate(orders, chosen, "accept", None, reason.value or "")

    async def correct() -> None:
        if outcome.value == _STANDS or not (reason.value or "").strip():
            orders.say("Not sent: choose what it should have stated, and say why under Reason.", "bad")
            return
        await _annotate(orders, chosen, "correct", str(outcome.value), reason.value)

    with ui.element("div").classes("buttons"):
        ui.button("Accept", on_click=accept)
        ui.button("Correct", on_click=correct).props("outline")
    orders.add_answer()


async def _annotate(orders: Orders, chosen: Payload, decision: str, outcome: str | None, reason: str) -> None:
    args = {
        "seq": chosen["seq"],
        "hash": chosen["hash"],
        "decision": decision,
        "reason": " ".join(reason.split()),
    }
    await orders.give("annotate", args | ({} if outcome is None else {"outcome": outcome}))


def _choices(lab: Lab, site: str, station: str, readings: Sequence[Payload]) -> Html:
    rows = []
    for reading in reversed(readings):
        seq = int(reading["seq"])
        has_picture = lab.overlay(site, station, reading["ledger_id"], seq) is not None
        link = tag("a", f"record {seq}", href=f"{station_path(site, station)}/review?seq={seq}")
        rows.append(((link, field_text(reading), "yes" if has_picture else "no"), ""))
    listed = tag("div", table(("field", "what was read", "picture"), rows), class_="scroll")
    return section("Newest fields", listed)
