"""What stands on the wire: topics, payloads and their schemas, all spelled by the records.

A payload is the record as it is: its field names, enum values, times as RFC 3339 UTC with milliseconds, null
for what is not known, never NaN. A published record carries its identity besides (`Identity`), so that a
consumer can drop duplicates, see gaps and check the hash chain.

A message is at most 16 KiB, because one that the broker refuses blocks all behind it. A record that is larger
leaves out its longest list, whole and never in part, and says so in `left_out`; the journal keeps the
complete record and `full_sha256` ties it to the message.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Literal

import numpy as np

from device.messages.sealing import NO_HASH, canonical, rfc3339, sealed
from device.records import Alert, ClockState, Health, Latest, ModelId, PlateReport, Reading, Verdict

MAX_MESSAGE_BYTES = 16 * 1024
"""Upper limit of one MQTT payload."""

Published = Reading | Verdict | PlateReport | Alert


@dataclass(frozen=True, slots=True)
class Identity:
    """What every published record carries, so that nothing gets lost, doubled or altered unseen."""

    schema: str
    """Form of the payload, such as `reading/1`; a change of form raises the number."""
    site: str
    station: str
    ledger_id: str
    """Identity of the journal; a new journal counts `seq` from 1 again under a new one."""
    seq: int
    """Gapless running number of published records in this journal, from 1."""
    boot_id: str
    """Identity of this run of the station."""
    ts: datetime
    """When it was stored, UTC; order by `seq`, not by this."""
    clock_state: ClockState
    """Whether the clock was set by a time server when `ts` was taken."""
    prev_hash: str
    """`hash` of the record before; 64 zeros for the first."""
    hash: str = ""
    """SHA-256 of this payload's canonical JSON without `hash` itself."""
    research_use_only: bool = True
    """Always true."""
    left_out: tuple[str, ...] = ()
    """Lists left out because the message would pass 16 KiB; they stand empty here and complete in the
    journal."""
    full_sha256: str | None = None
    """SHA-256 of the complete record's canonical JSON as the journal keeps it; null where nothing is left
    out."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration that a station uses."""

    id: str
    kind: str
    """`pixel_size` or `flat_field`."""
    at: str
    """When it was made, RFC 3339."""
    value: float
    """Micrometers a pixel, or flatness of the light."""
    uncertainty: float
    """Standard uncertainty of the value."""


@dataclass(frozen=True, slots=True)
class Info:
    """Birth of a station: what runs here, with what."""

    schema: str
    site: str
    station: str
    boot_id: str
    ledger_id: str
    version: str
    """Version of nanotox."""
    started_at: datetime
    assay: str
    modality: str
    method: str
    cell_model: ModelId | None
    field_model: ModelId | None
    rule: str | None
    camera: str
    """Kind of the camera."""
    um_per_px: float
    um_per_px_source: str
    config_sha256: str
    """SHA-256 of station.toml as read."""
    capabilities: tuple[str, ...]
    """Schemas that this station publishes."""
    calibrations: tuple[Calibrated, ...] = ()
    """Those in use, one of a kind; empty where nobody calibrated."""
    research_use_only: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """What a station does now."""

    schema: str
    boot_id: str
    ts: datetime
    mode: Literal["idle", "running", "paused", "fault"]
    plate: str | None
    well: str | None = None
    field: int | None = None
    """Field within the well, from 0."""
    n_fields: int = 0
    """Readings stored since start."""
    n_dropped: int = 0
    """Frames passed over, as `health` tells them."""
    fault: str | None = None
    """Code of the present fault, the newest of several; null without one."""
    fields_planned: int | None = None
    """Planned number of fields of the well; null where none is planned."""
    research_use_only: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """The newest published record: lets late joiners and gaps be seen."""

    schema: str
    ledger_id: str
    boot_id: str
    seq: int
    hash: str
    n_events: int
    """Internal events of the journal until then, such as starts: a tail of them that was cut off shows."""
    event_hash: str
    """Hash of the newest of them, as the journal keeps it."""
    research_use_only: bool = True


SCHEMAS: dict[str, type[Any]] = {
    "reading/1": Reading,
    "verdict/1": Verdict,
    "plate/1": PlateReport,
    "alert/1": Alert,
    "info/1": Info,
    "state/1": State,
    "health/1": Health,
    "head/1": Head,
    "latest/1": Latest,
}
"""Every form that is published as JSON."""

LEAVES = {form.split("/")[0]: form for form in SCHEMAS}
"""Last part of the topic and the form of what stands there; besides, `availability` is a plain word and
`image/overlay` a JPEG."""

OVERLAY = "image/overlay"
"""Topic of the picture of the newest field."""

RETAINED = {"availability", "info", "state", "health", "head", "latest", OVERLAY}
"""Topics that keep their last message, those that can go stale for a time; events never do, so that no
verdict outlives its sample."""

_LATEST_BYTES = 160
"""Room that `latest` wants around a verdict."""

_AS_IT_IS = {str, int, bool, type(None)}
_CUTS: dict[str, tuple[str, ...]] = {
    "reading/1": ("cells",),
    "verdict/1": ("reference.fields", "fields"),
    "plate/1": ("reference.fields", "samples"),
}


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one station: `<prefix>/<site>/<station>/<leaf>`."""

    site: str
    station: str
    prefix: str = "nanotox/v1"

    def of(self, leaf: str) -> str:
        """Return the topic of `leaf`, such as `verdict`."""
        return f"{self.prefix}/{self.site}/{self.station}/{leaf}"


def schema_of(record: Published) -> str:
    """Return the name of the form of a record, such as `reading/1`."""
    return next(name for name, kind in SCHEMAS.items() if type(record) is kind)


def payload(record: object) -> dict[str, Any]:
    """Return a record as plain JSON values under its own field names; metadata `payload` False skips a field.

    Raises
    ------
    ValueError
        For NaN or infinite numbers and for times without a zone: the producer is strict.
    TypeError
        For a value that JSON does not know.
    """
    # most values are what JSON knows already: a field has hundreds of cells
    return {
        name: value if type(value := getattr(record, name)) in _AS_IT_IS else _plain(value, name)
        for name in _told(type(record))  # type: ignore[arg-type]  # a type is hashable
    }


@cache
def _told(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of the fields of a record that its payload has."""
    if not is_dataclass(kind):
        raise TypeError(f"a payload is made of a record, not of {kind.__name__}")
    return tuple(item.name for item in fields(kind) if item.metadata.get("payload", True))


def _plain(value: object, name: str) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return _plain(value.item(), name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number or None")
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, tuple | list):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, key) for key, item in value.items()}
    return payload(value)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A published record as bytes."""

    schema: str
    seq: int
    hash: str
    message: bytes
    """What is sent: canonical JSON, at most 16 KiB."""
    full: bytes | None
    """The complete record where the message leaves something out, else None."""


def seal_record(record: Published, identity: Identity) -> Sealed:
    """Return the message of a record with its identity; fills in `hash`, `left_out` and `full_sha256`.

    Raises
    ------
    ValueError
        If the record holds NaN, or is above 16 KiB with every list that may be left out gone.
    """
    body = payload(record)
    values = body | payload(identity) | {"hash": NO_HASH}
    limit = MAX_MESSAGE_BYTES - _LATEST_BYTES * isinstance(record, Verdict)
    full, cuts = None, iter(_CUTS.get(identity.schema, ()))
    while len(message := canonical(values)) > limit:
        if full is None:
            full = canonical(body)
            values["full_sha256"] = hashlib.sha256(full).hexdigest()
        path = next(cuts, None)
        if path is None:
            raise ValueError(f"{identity.schema} takes {len(message)} bytes; expected at most {limit}")
        *parents, last = path.split(".")
        table = values
        for name in parents:
            table = table[name] or {}
        if table.get(last):
            table[last] = []
            values["left_out"].append(path)
    message, sha256 = sealed(message)
    return Sealed(identity.schema, identity.seq, sha256, message, full)


def body_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record itself: a published payload without its identity."""
    return {key: value for key, value in values.items() if key not in Identity.__dataclass_fields__}


def stub(message: bytes) -> bytes:
    """Return the identity of a sealed message alone, with `*` left out: it fills its place in the order."""
    values = {
        key: value for key, value in json.loads(message).items() if key in Identity.__dataclass_fields__
    }
    return canonical(values | {"left_out": ["*"]})
