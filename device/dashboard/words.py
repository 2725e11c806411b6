"""What a station's tile says, in words: functions of what was heard and of the time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from device.collector.live import StationNow
from device.report.words import OUTCOME_WORDS, in_percent, name_of, outcome_name, span

Payload = Mapping[str, Any]
_AHEAD = timedelta(seconds=5)
"""A record from further in the future than this has a clock that is wrong."""
_SILENT = {
    "offline": ("OFFLINE", "the station is gone without a word: power, network or broker"),
    "stopped": ("STOPPED", "the station was switched off in order"),
}
_ROLES = {
    "blank": ("non_toxic", "blank control", "meant to be unharmed"),
    "negative": ("non_toxic", "negative control", "meant to be unharmed"),
    "positive": ("toxic", "positive control", "meant to be harmed"),
}
"""Of controls: the outcome that is as it should be, name, and what it is for."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one tile shows: one look, one large word, and lines below it."""

    look: str
    """An outcome, `quiet` where nothing current is to be said, or `waiting`."""
    word: str
    """The large word, such as `TOXIC`."""
    meaning: str
    """What the word means, in a sentence."""
    provisional: bool
    subject: str
    """What the verdict is of: item, dose, well."""
    age: str
    """How old the verdict is; empty without one."""
    doing: str
    """What the station does now; empty where it is gone."""
    alerts: tuple[str, ...]
    simulated: bool
    is_control: bool = False
    """Whether the large word is of a control, which says nothing of the culture under test."""


def age_text(age_s: float) -> str:
    """Return an age as people say it; steps of 10 s, then minutes, hours, days.

    Examples
    --------
    >>> [age_text(s) for s in (-1, 4, 47, 60, 185, 7300, 200000)]
    ['just now', 'just now', '40 s', '1 min', '3 min', '2 h', '2 days']
    """
    if age_s < 10:
        return "just now"
    if age_s < 60:
        return f"{age_s // 10 * 10:.0f} s"
    for size_s, unit in ((60, "min"), (3600, "h"), (86400, "day")):
        n = int(age_s // size_s)
        if n < {"min": 60, "h": 48}.get(unit, n + 1):
            break
    return f"{n} {unit}{'s' if unit == 'day' and n > 1 else ''}"


def ago(age_s: float) -> str:
    """Return an age as a point in the past, such as `3 min ago`."""
    said = age_text(age_s)
    return said if said == "just now" else f"{said} ago"


def age_s(record: Payload, heard_at: datetime | None, now: datetime) -> float:
    """Return how old a record is, s: by its own time, or since it was heard where that lies ahead."""
    ts = datetime.fromisoformat(record["ts"])
    return (now - (ts if ts <= now + _AHEAD else heard_at or now)).total_seconds()


def well_text(verdict: Payload) -> str:
    """Return what a verdict is of; controls say what they are meant to show."""
    role = str(verdict.get("role"))
    said = ", ".join(_ROLES[role][1:]) if role in _ROLES else name_of(verdict)
    if verdict.get("plate") is None:
        return "live view, no plate"
    return f"{said} · well {verdict['well']}"


def shares_text(verdict: Payload) -> str:
    """Return the affected share with its interval, the grade and the fields behind them."""
    planned = f" of {verdict['n_fields_planned']}" if verdict.get("n_fields_planned") is not None else ""
    said = [f"{verdict['n_fields']}{planned} fields, {verdict['n_cells']} cells"]
    if verdict.get("affected_corrected") is not None:
        share = f"{in_percent(verdict['affected_corrected'])} affected"
        said.append(f"{share} (95 % interval {span(verdict['ci95'])})")
    if verdict.get("grade") is not None:
        said.append(f"grade {verdict['grade']}")
    return "; ".join(said)


def doing_text(state: Payload | None) -> str:
    """Return what a station does now."""
    if state is None:
        return "it does not say what it does"
    mode, plate = str(state.get("mode")), state.get("plate")
    said = [{"idle": "idle", "running": "running", "paused": "paused", "fault": "fault"}.get(mode, mode)]
    if plate is not None:
        said.append(f"plate {plate}")
    if state.get("well") is not None:
        said.append(f"well {state['well']}")
    if state.get("field") is not None:
        planned = f" of {state['fields_planned']}" if state.get("fields_planned") is not None else ""
        said.append(f"field {int(state['field']) + 1}{planned}")
    return ", ".join(said)


def sight(said: StationNow, now: datetime) -> Sight:
    """Return what the tile of a station shows.

    A verdict that no longer holds, two periods after it was given, is stale where the station does not idle:
    its word is no longer the large one. What cannot be understood says so and shows no outcome.
    """
    try:
        return _sight(said, now)
    except (AttributeError, KeyError, TypeError, ValueError):
        meaning = "the station says what this version of nanotox does not understand"
        return Sight("quiet", "NOT UNDERSTOOD", meaning, False, "", "", "", (), False)


def _sight(said: StationNow, now: datetime) -> Sight:
    verdict, state = said.verdict, said.state
    old = None if verdict is None else age_s(verdict, said.heard_at, now)
    look, word, meaning = "waiting", "NO VERDICT YET", "nothing was judged here so far"
    is_control = False
    if said.availability != "online":
        look = "quiet"
        word, meaning = _SILENT.get(said.availability or "", _SILENT["offline"])
    elif old is not None and old >= 10 and said.latest is None and (state is None or state["mode"] != "idle"):
        look, word = "quiet", f"NO NEWS FOR {age_text(old)}"
        meaning = "more should have come by now"
    elif verdict is not None:
        look = verdict["outcome"] if verdict["outcome"] in OUTCOME_WORDS else "invalid"
        word, meaning = outcome_name(look).upper(), OUTCOME_WORDS[look]
        role = str(verdict.get("role"))
        is_control = role in _ROLES
        if is_control and look in ("toxic", "non_toxic"):
            should_be, _, meant = _ROLES[role]
            meaning = f"{'as' if look == should_be else 'NOT as'} it should be: this control is {meant}"
    subject = "" if verdict is None else well_text(verdict)
    is_open = verdict is not None and verdict["stage"] == "provisional"
    if verdict is not None and look == "quiet":
        kind = "provisional verdict" if is_open else "verdict"
        subject, is_open = f"last {kind}: {outcome_name(verdict['outcome'])}, {subject}", False
    simulated = any(bool(part and part.get("simulated")) for part in (verdict, said.reading))
    alerts = tuple(str(alert.get("text") or alert["code"]) for alert in said.alerts)
    age = "" if old is None else ago(old)
    doing = doing_text(state) if said.availability == "online" else ""
    return Sight(look, word, meaning, is_open, subject, age, doing, alerts, simulated, is_control)
