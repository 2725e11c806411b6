"""What a station answers to a command, on the response topic or on `reply/<transaction>`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from device.records import Interval, ModelId, Role

REPLY_EXPIRY_S = 60


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
class Captured:
    """The readings that `capture` gave; `reading` has each in full."""

    ledger_id: str
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What a control run found."""

    at: str
    """RFC 3339, UTC."""
    n_fields: int
    n_refused: int
    state: Literal["learning", "learned", "in_control", "out_of_control", "no_field"]
    """`learning` until enough accepted fields are there; `no_field` where every field was refused."""
    out: tuple[str, ...]
    """Quantities that are out of their limits."""
    reasons: tuple[str, ...]
    """Codes, such as DRIFT."""
    n_pending: int
    """Accepted fields that a baseline will be learned from."""
    restarts: bool
    """Whether the station starts anew now, because its gate uses what it has just learned."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A calibration that was made; the station starts anew now and uses it."""

    id: str
    kind: Literal["pixel_size", "flat_field"]
    value: float
    """Micrometers a pixel, or flatness of the light."""
    uncertainty: float
    """Standard uncertainty of the value."""
    method: str
    restarts: bool = True


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The record that a review is linked to."""

    ledger_id: str
    seq: int
    hash: str
    reviewed: str
    """Form of the record, such as `reading/1`."""


@dataclass(frozen=True, slots=True)
class ConfigText:
    """The configuration in effect."""

    toml: str
    """With every default, without secrets."""
    config_sha256: str
    """SHA-256 of station.toml as read at the start, as in `info`."""


@dataclass(frozen=True, slots=True)
class ActiveModels:
    """The models that are used after the command; the station starts anew now to use them."""

    cell_model: ModelId
    field_model: ModelId | None
    restarts: bool = True


@dataclass(frozen=True, slots=True)
class Identified:
    """Where a station is to be found."""

    host: str
    """Name of the machine."""
    led: str | None
    """Light that blinks for half a minute; null where none could be made to."""
    text: str
    """What was done, or why no light blinks."""


Result: TypeAlias = (
    PlateStatus | Captured | ControlResult | Measured | Reviewed | ConfigText | ActiveModels | Identified
)


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
    result: Result | None = None
    research_use_only: bool = True
