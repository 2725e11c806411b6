"""The demo's live table: what came back through the broker, well by well, beside the truth."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from device.analysis.grading import EXTRACT
from device.records import Outcome, PlateWell

_HEADER = "well  sample            dose       fields  true    found   corrected  grade  verdict"


@dataclass
class Row:
    """What is known of one well, as it came back through the broker."""

    plan: PlateWell
    n_readings: int = 0
    verdict: dict[str, Any] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """What the truth of the well asks for, spelled as in a payload."""
        return "toxic" if (self.plan.dead_fraction or 0) > EXTRACT.limit else "non_toxic"

    @property
    def fault(self) -> str | None:
        """Why this well did not come out right; None where it did."""
        if self.verdict.get("stage") != "final":
            return f"{self.plan.well}: no final verdict came back through the broker"
        if self.verdict["outcome"] != self.expected:
            why = ", ".join(self.verdict["reasons"])
            return f"{self.plan.well}: {self.verdict['outcome']} ({why}); expected {self.expected}"
        if self.n_readings != self.plan.fields:
            return f"{self.plan.well}: {self.n_readings} readings came back; expected {self.plan.fields}"
        return None


class Table:
    """A table redrawn on a terminal; elsewhere a line when a well has all its fields and when it is final."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._is_live = sys.stdout.isatty()
        self._up = ""
        if not self._is_live:
            print(_HEADER)

    def show(self, changed: Row) -> None:
        """Show that a verdict of this well came."""
        if self._is_live:
            self._draw()
        elif changed.verdict["stage"] == "final" or changed.n_readings == changed.plan.fields:
            print(_line(changed), flush=True)

    def end(self) -> None:
        """Show the last state."""
        if self._is_live:
            self._draw()

    def _draw(self) -> None:
        lines = [_HEADER, *map(_line, self._rows)]
        print(self._up + "\n".join(f"\x1b[2K{line}" for line in lines), flush=True)
        self._up = f"\x1b[{len(lines)}A"


def _line(row: Row) -> str:
    plan, verdict = row.plan, row.verdict
    dose = "" if plan.dose is None else f"{plan.dose:g} {plan.dose_unit}"
    bounds = verdict.get("bounds")
    found = "-" if verdict.get("affected") is None else f"{100 * verdict['affected']:.0f} %"
    span = "-" if bounds is None else f"{100 * bounds['low']:.0f}-{100 * bounds['high']:.0f} %"
    grade = "-" if verdict.get("grade") is None else str(verdict["grade"])
    true = f"{100 * (plan.dead_fraction or 0):>3.0f} %"
    numbers = f"{row.n_readings:>2}/{plan.fields:<5}{true}   {found:<8}{span:<11}{grade:<7}"
    outcome = f"{verdict.get('stage', 'waiting')}: {verdict.get('outcome', '-')}"
    return f"{plan.well:<6}{plan.sample:<18}{dose:<11}{numbers}{outcome}{_mark(row)}"


def _mark(row: Row) -> str:
    if row.verdict.get("stage") != "final":
        return ""
    if row.fault is None:
        return " (as true)"
    return " (undecided)" if row.verdict.get("outcome") == Outcome.INCONCLUSIVE else " (WRONG)"
