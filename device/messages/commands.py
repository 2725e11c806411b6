"""What a person asks of a station on `cmd/<name>`, and what it answers on `reply/<transaction>`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from device.records import Interval, Role

MAX_AGE_S = 30
"""A command that was issued longer ago is refused: it must not start a plate an hour later."""
REPLY_EXPIRY_S = 60
REPLAY_ROWS = 1000
"""Most records of one replay."""
TRANSACTION = "[A-Za-z0-9_-]{1,64}"
_NAME = (
    r"(?=.*\S)[^\x00-\x1f\x7f]{1,64}"  # at most 64 characters, none of them invisible, one at least visible
)


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
    reason: str | None = field(default=None, metadata={"pattern": r"[^\x00-\x1f\x7f]{0,256}"})
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


COMMANDS: dict[str, type[Any]] = {
    "ping": Ping,
    "plate_start": PlateStart,
    "plate_well": PlateWellShown,
    "plate_status": PlateStatusAsk,
    "plate_finish": PlateFinish,
    "replay": Replay,
}
"""Every command and its arguments."""


@dataclass(frozen=True, slots=True)
class WellStatus:
    """How far a well is, under the field names of its verdict."""

    well: str
    sample: str
    role: Role
    dose: float | None
    dose_unit: str | None
    n_fields_planned: int | None
    n_fields: int = 0
    """Accepted fields."""
    affected_corrected: float | None = None
    ci95: Interval | None = None
    outcome: str | None = None
    """Null before its first field."""
    fields_more: int | None = None


@dataclass(frozen=True, slots=True)
class PlateStatus:
    """The plate that runs on a station."""

    plate: str | None
    """Null where none runs."""
    operator: str | None = None
    well: str | None = None
    """Which well a live camera shows; null for none."""
    wells: tuple[WellStatus, ...] = ()
    """Answer to `plate_status`, else empty."""
    n_left_out: int = 0
    """Wells that are not in `wells`, because the answer would pass 16 KiB."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command was not carried out."""

    code: str
    message: str
    """What was found, what was expected, what to do."""
    field: str | None = None
    """Key that is at fault; null where none is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command."""

    ok: bool
    """Whether it was carried out."""
    transaction: str | None
    """That of the command; null where it could not be read."""
    error: Refusal | None = None
    result: PlateStatus | None = None
    research_use_only: bool = True
