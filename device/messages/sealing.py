"""The text of messages: canonical JSON, the hash that each bears, and the one parser of what comes in."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

NO_HASH = "0" * 64
"""The `hash` of a message that is not sealed."""
_HASH_PART = b',"hash":"%s"'
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def rfc3339(time: datetime) -> str:
    """Return `time` as RFC 3339 in UTC with milliseconds; ValueError if it has no zone."""
    if time.tzinfo is None:
        raise ValueError(f"time {time} has no zone; expected an aware datetime")
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def canonical(values: Mapping[str, Any]) -> bytes:
    """Return the one JSON text of `values` that is sent and hashed: sorted keys, no spaces, UTF-8, no NaN."""
    return _encode(values).encode()


def parse(message: bytes) -> dict[str, Any]:
    """Return the object that a message holds.

    Raises
    ------
    ValueError
        For anything else, and for what canonical JSON never says: NaN, a number beyond a float's, a key
        twice, of which readers take one or the other, or what UTF-8 cannot tell.
    RecursionError
        If it lies too deep within itself.
    """
    values: object = _decode(message.decode())
    if not isinstance(values, dict):
        raise ValueError(f"it is a {type(values).__name__}; expected an object")  # noqa: TRY004 - what came is wrong
    if b"\\u" in message:
        canonical(values)  # half of a pair of surrogates can only come as an escape
    return values


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not JSON compliant")
    return value


_decode = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite).decode


def seal(values: Mapping[str, Any]) -> str:
    """Return the `hash` of a payload: SHA-256 over its canonical JSON without `hash` itself."""
    body = {key: value for key, value in values.items() if key != "hash"}
    return hashlib.sha256(canonical(body)).hexdigest()


def sealed(message: bytes) -> tuple[bytes, str]:
    """Return a message with its hash in place of `NO_HASH`, and that hash, which is what `seal` gives."""
    before, after = message.split(_HASH_PART % NO_HASH.encode(), 1)
    sha256 = hashlib.sha256(before + after).hexdigest()
    return before + _HASH_PART % sha256.encode() + after, sha256


def is_sealed(message: bytes, sha256: str) -> bool:
    """Return whether `sha256` is the `hash` that a message holds, and that of its bytes without it.

    These are its canonical JSON; to tell anew what was parsed would take as long as all else.
    """
    part = _HASH_PART % sha256.encode()
    return part in message and hashlib.sha256(message.replace(part, b"", 1)).hexdigest() == sha256
