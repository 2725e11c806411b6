"""What a message on `cmd/<name>` orders, read from bytes of whoever may write there."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from device.messages.commands import COMMANDS, MAX_AGE_S, Command
from device.messages.replies import Refusal, Result
from device.messages.sealing import parse, rfc3339
from device.publishers import Received
from device.tables import TableReader, shorten

LARGEST_BYTES = 4 * 1024
"""Largest command; those of `LARGE` carry a plate.csv or many cells and may be as large as any message."""
LARGE = ("plate_start", "annotate")
_DEEPEST = 8
"""Most lists and objects within one another; commands need three."""
_TOLD = 3000
"""Most characters of an error, so that its reply stays below 16 KiB."""


class RefusedError(Exception):
    """A command that is not carried out, and why."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, message if len(message) <= _TOLD else f"{message[:_TOLD]}...", field)


@dataclass(frozen=True, slots=True)
class Order:
    """A command that was understood."""

    name: str
    command: Command
    args: Any
    """Record of `COMMANDS[name]`."""
    received: Received
    then: Callable[[], Result] | None = None
    """What is left to be done, for one that was begun before; it raises as beginning does."""


def read_order(received: Received, values: dict[str, Any], name: str, now: datetime) -> Order:
    """Return the order that the JSON object `values` gives on `cmd/<name>`; RefusedError where it is none."""
    if name not in COMMANDS:
        found = f"command {shorten(name)} is unknown"
        raise RefusedError("UNKNOWN_COMMAND", f"{found}; expected one of {', '.join(COMMANDS)}")
    reader = TableReader()
    command = reader.record(values, Command, "")
    args = reader.record(command.args, COMMANDS[name], "args") if isinstance(command, Command) else None
    if not isinstance(command, Command) or args is None:
        raise RefusedError("MALFORMED", "; ".join(reader.faults), re.split("[: ]", reader.faults[0])[0][:100])
    age_s = (now - command.issued_at).total_seconds()
    if abs(age_s) > MAX_AGE_S and name != "replay":
        found = f"issued_at is {rfc3339(command.issued_at)}, this station's clock says {rfc3339(now)}"
        expected = f"expected at most {MAX_AGE_S} s between them; check both clocks and send it anew"
        raise RefusedError("EXPIRED", f"{found}; {expected}", "issued_at")
    return Order(name, command, args, received)


def read_json(text: bytes, largest_bytes: int = LARGEST_BYTES) -> dict[str, Any]:
    """Return a JSON object; RefusedError for anything else.

    That is what is too large or too deep, NaN, a key twice, or what UTF-8 cannot tell.
    """
    if len(text) > largest_bytes:
        found = f"the command has {len(text)} bytes; expected at most {largest_bytes}"
        raise RefusedError("TOO_LARGE", f"{found}: name files by patterns such as B03/*.png in plate.csv")
    try:
        values = parse(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError("MALFORMED", f"the command is no JSON object: {error}") from error
    if _is_deeper(values, _DEEPEST):
        raise RefusedError(
            "MALFORMED", f"the command is nested more than {_DEEPEST} deep; expected at most that"
        )
    return values


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether lists and objects lie within one another more than `levels` deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (levels == 0 or any(_is_deeper(item, levels - 1) for item in inner))
