"""What a person asks of a station on `cmd/<name>`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from device.records import CellClass, Outcome

MAX_AGE_S = 30
"""A command that was issued longer ago is refused: it must not start a plate an hour later."""
REPLAY_ROWS = 1000
"""Most records of one replay."""
REVIEW_CELLS = 300
"""Most cells that one review names; what more are wrong, a second review of the same record names."""
TRANSACTION = "[A-Za-z0-9_-]{1,64}"
_NAME = (
    r"(?=.*\S)[^\x00-\x1f\x7f]{1,64}"  # at most 64 characters, none of them invisible, one at least visible
)
_REASON = r"[^\x00-\x1f\x7f]{0,256}"


@dataclass(frozen=True, slots=True)
class Command:
    """What a person asks of a station; at most 16 KiB, never retained, no other keys."""

    transaction: str = field(metadata={"pattern": TRANSACTION})
    """Name of this one request; a second one of that name is refused."""
    issued_at: datetime
    """When it was asked for, at most 30 s ago."""
    operator: str = field(metadata={"pattern": _NAME})
    """Who asks."""
    args: dict[str, Any] = field(default_factory=dict)
    """What this command wants to know besides."""
    reason: str | None = field(default=None, metadata={"pattern": _REASON})
    """Why, in words, for the journal."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask whether the station hears commands."""


@dataclass(frozen=True, slots=True)
class PlateStart:
    """Start a plate. A camera that is not live then shows its wells, and finishes it by itself."""

    plate: str = field(metadata={"pattern": _NAME})
    """Name of the plate."""
    csv: str
    """Text of plate.csv."""


@dataclass(frozen=True, slots=True)
class PlateWellShown:
    """Say which well is under the objective of a live camera from now on."""

    well: str | None
    """Its name on the plate; null for none, such as while the stage moves."""


@dataclass(frozen=True, slots=True)
class PlateStatusAsk:
    """Ask how far each well is."""


@dataclass(frozen=True, slots=True)
class PlateFinish:
    """Finish the plate: final verdicts and its report."""

    force: bool = False
    """Finish though fields are missing."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Send acknowledged records once more, behind all others; those not yet acknowledged come by themselves.

    One request a second, one at a time. It changes nothing, so that its age does not matter: a consumer may
    close its gaps though the station's clock is wrong.
    """

    from_seq: int = field(metadata={"range": (1, 1 << 62)})
    """First of them."""
    to_seq: int
    """Last of them, at most 1000 with the first."""

    def __post_init__(self) -> None:
        if not 0 <= self.to_seq - self.from_seq < REPLAY_ROWS:
            found = f"to_seq is {self.to_seq} and from_seq {self.from_seq}"
            raise ValueError(f"{found}; expected from_seq to from_seq + {REPLAY_ROWS - 1}")


@dataclass(frozen=True, slots=True)
class Capture:
    """Read the next frames now, of the plate that runs or of none; the answer comes when they are stored."""

    n: int = field(default=1, metadata={"range": (1, 20)})
    """How many."""


@dataclass(frozen=True, slots=True)
class QcRun:
    """Make a control run on the next frames of a healthy control well; refused while a plate runs."""

    fields: int = field(default=10, metadata={"range": (1, 100)})
    """How many fields are compared with the baseline, or learned from."""


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Measure something of the microscope on the next frames and keep it; refused while a plate runs."""

    kind: Literal["pixel_size", "flat_field"]
    """Pixel size from a ruling, or evenness of the light from empty fields."""
    period_um: float | None = field(default=None, metadata={"range": (0.1, 10_000.0)})
    """Distance of the ruling's lines, um; `pixel_size` needs it, `flat_field` has none."""
    pattern: Literal["lines", "grid"] = "lines"
    """Of the ruling."""
    frames: int = field(default=1, metadata={"range": (1, 20)})
    """How many are measured."""

    def __post_init__(self) -> None:
        if (self.kind == "pixel_size") != (self.period_um is not None):
            found = "missing" if self.period_um is None else f"{self.period_um:g}"
            raise ValueError(f"period_um is {found}; expected it with pixel_size, and with that only")


@dataclass(frozen=True, slots=True)
class LabeledCell:
    """A cell as a person sees it."""

    row: float = field(metadata={"range": (0.0, 65_535.0)})
    """Row of its center, px of the reading."""
    col: float = field(metadata={"range": (0.0, 65_535.0)})
    label: CellClass
    """What it is; `other` is no cell."""


@dataclass(frozen=True, slots=True)
class Annotate:
    """Review a published record: kept beside it under its `ledger_id`, `seq` and `hash`, which never change.

    Training takes the cells that a review names as a person's labels, and no others.
    """

    seq: int = field(metadata={"range": (1, 1 << 62)})
    """Of the reading, verdict or plate."""
    decision: Literal["accept", "correct"]
    outcome: Outcome | None = None
    """What it should have stated, of a reading or verdict; null where that stands."""
    cells: tuple[LabeledCell, ...] = ()
    """Cells of a reading that it has missed or given a wrong class, at most 300; all others stand."""
    reason: str = field(default="", metadata={"pattern": _REASON})
    """Why, in words; a correction needs it."""
    hash: str | None = field(default=None, metadata={"pattern": "[0-9a-f]{64}"})
    """That of the record which was looked at; if given, the journal's must be the same."""

    def __post_init__(self) -> None:
        has_correction = self.outcome is not None or bool(self.cells)
        if has_correction != (self.decision == "correct"):
            found = "something else" if has_correction else "no outcome and no cells"
            raise ValueError(f"{self.decision} comes with {found}; expected both with correct, or neither")
        if self.decision == "correct" and not self.reason.strip():
            raise ValueError("reason is empty; expected why the record is wrong")
        if len(self.cells) > REVIEW_CELLS:
            raise ValueError(f"cells are {len(self.cells)}; expected at most {REVIEW_CELLS}")


@dataclass(frozen=True, slots=True)
class ConfigGet:
    """Ask for the configuration in effect, every default filled in; a password is never part of it."""


@dataclass(frozen=True, slots=True)
class ModelActivate:
    """Try a bundle that is on the station's disk and put it into use; refused while a plate runs."""

    name: str = field(metadata={"pattern": "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"})
    """Of a shipped model, or of a folder beside station.toml."""


@dataclass(frozen=True, slots=True)
class ModelRollback:
    """Put the model of before the last `model_activate` into use; refused while a plate runs."""


@dataclass(frozen=True, slots=True)
class Identify:
    """Make the station findable: the light of a Raspberry Pi blinks, and the log says so."""


COMMANDS: dict[str, type[Any]] = {
    "ping": Ping,
    "plate_start": PlateStart,
    "plate_well": PlateWellShown,
    "plate_status": PlateStatusAsk,
    "plate_finish": PlateFinish,
    "replay": Replay,
    "capture": Capture,
    "qc_run": QcRun,
    "calibrate": Calibrate,
    "annotate": Annotate,
    "config_get": ConfigGet,
    "model_activate": ModelActivate,
    "model_rollback": ModelRollback,
    "identify": Identify,
}
"""Every command and its arguments."""
