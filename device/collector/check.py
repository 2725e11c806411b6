"""What of a message is a record, checked before it is kept."""

import re
from dataclasses import dataclass

from device.collector.validate import fault_of
from device.messages.sealing import is_sealed, parse
from device.publishers import Received

EVENTS = ("reading", "verdict", "plate", "alert")
"""Leaves whose records are numbered."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that was checked, as it stands in the file."""

    ledger_id: str
    seq: int
    site: str
    station: str
    schema: str
    ts: str
    hash: str
    message: bytes
    kind: str | None = None
    """`reading`, `verdict`, `plate` or `alert`; None where it is kept for its place in the chain alone."""
    plate: str | None = None
    well: str | None = None
    fault: str | None = None
    """Why it has no kind though it is whole: what it says is not of its form, or this version has none."""


@dataclass(frozen=True, slots=True)
class Aside:
    """A message that does not fit, and why."""

    topic: str
    why: str
    message: bytes


def check(received: Received, prefix: str) -> Kept:
    """Return the record that a message holds, or say in a ValueError why it is none.

    What is whole but not of its form is a record with a `fault`, since without it the chain would have a gap;
    so is a form that this version does not know, since the station may be newer. A stub, which stands for a
    record that the broker never took, cannot be checked against its hash.
    """
    values = parse(received.payload)
    where = received.topic.removeprefix(f"{prefix}/").split("/")
    told = [values.get(name) for name in ("site", "station", "schema", "ledger_id", "hash", "ts")]
    seq = values.get("seq")
    if not all(isinstance(text, str) for text in told) or type(seq) is not int or not 0 < seq < 1 << 62:
        raise ValueError(
            "the message has no identity; expected site, station, schema, ledger_id, seq, hash, ts"
        )
    site, station, schema, ledger_id, sha256, ts = map(str, told)
    if where[:2] != [site, station]:
        raise ValueError(f"it says {site}/{station}; expected the station of its topic")
    kind = where[-1]
    if not re.fullmatch(rf"{kind}/[1-9][0-9]*", schema):
        raise ValueError(f"schema is {schema}; expected {kind}/ and a number")
    is_stub, fault = values.get("left_out") == ["*"], None
    if not is_stub and not is_sealed(received.payload, sha256):
        raise ValueError(f"the hash of record {seq} is wrong; expected that of its bytes")
    try:
        fault = None if is_stub else fault_of(values)
    except KeyError:
        fault = f"the form {schema} is unknown; expected one of this version, take a newer nanotox"
    place = (values.get("plate"), values.get("well")) if fault is None and not is_stub else (None, None)
    identity = (ledger_id, seq, site, station, schema, ts, sha256, received.payload)
    return Kept(*identity, None if is_stub or fault else kind, *place, fault)
