"""Published records read back: from a journal, which is only read, or from JSON lines."""

import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from device.errors import ConfigError, JournalError
from device.journal.file import guarded
from device.messages import LEAVES

_SQLITE = b"SQLite format 3\0"
_FORMS = tuple(LEAVES[kind] for kind in ("reading", "verdict", "plate"))
_IN_REPORT = re.compile(r'<script type="application/json"[^>]*>(.*?)</script>', re.DOTALL)
"""Where a report of `nanotox report` holds its verdicts and plate as JSON lines."""


@dataclass(slots=True)
class PlateRun:
    """One finished plate as it was published."""

    plate: dict[str, Any]
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    """Final ones, in the order of the plate."""
    readings: list[dict[str, Any]] = field(default_factory=list)
    """Without their lists of cells; empty where the source holds none."""


def read_records(source: Path) -> Iterator[dict[str, Any]]:
    """Yield readings, verdicts and plates as published, in their order, complete as far as `source` has them.

    `source` is a journal, which is opened read-only, beside a running station too; or a file of JSON lines as
    `nanotox grade --json`, `nanotox export` and the publisher `jsonl` write them, or a report of `nanotox
    report`.

    Raises
    ------
    ConfigError
        If the file cannot be read or a line is no record.
    JournalError
        If it is a database but no journal.
    """
    yield from _read_journal(source) if is_journal(source) else _read_lines(source)


def is_journal(source: Path) -> bool:
    """Return whether a file is a database, such as a journal; ConfigError if it cannot be read."""
    try:
        with source.open("rb") as stream:
            return stream.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise ConfigError(
            f"{source} cannot be read ({error.strerror}); expected a journal or JSON lines"
        ) from error


def is_complete(values: dict[str, Any]) -> bool:
    """Return whether a record holds every list that its message leaves out; a journal has them all."""
    for path in values.get("left_out", ()):
        part: Any = values
        for name in path.split("."):
            part = part.get(name) if isinstance(part, dict) else None
        if not part:
            return False
    return True


def plate_runs(records: Iterable[dict[str, Any]]) -> Iterator[PlateRun]:
    """Yield each finished plate among records as soon as its report comes."""
    growing: dict[str, PlateRun] = {}
    for values in records:
        kind, plate = values["schema"].split("/")[0], values.get("plate")
        if plate is None:
            continue
        run = growing.setdefault(plate, PlateRun({}))
        if kind == "reading":
            run.readings.append({key: value for key, value in values.items() if key != "cells"})
        elif kind == "verdict" and values["stage"] == "final":
            run.verdicts.append(values)
        elif kind == "plate":
            run.plate, run.readings = values, _of_this_run(run)
            yield growing.pop(plate)


def find_plate(source: Path, name: str | None) -> PlateRun:
    """Return the newest finished plate called `name` in `source`, the newest of all for None.

    Raises
    ------
    ConfigError
        If there is none; it lists those that there are. Also as `read_records`.
    """
    found, names = None, []
    for run in plate_runs(read_records(source)):
        names.append(run.plate["plate"])
        found = run if name in (None, names[-1]) else found
    if found is None:
        there = f"finished plates are {', '.join(dict.fromkeys(names))}" if names else "no plate is finished"
        expected = "expected a finished plate" if name is None else f"expected one called {name}"
        raise ConfigError(f"{there} in {source}; {expected}")
    return found


def _of_this_run(run: PlateRun) -> list[dict[str, Any]]:
    """Return the readings that the verdicts stand on: a run broken off before may have the same name."""
    kept: list[dict[str, Any]] = []
    left = {v["well"]: v["n_fields"] + v["n_fields_refused"] for v in run.verdicts}
    for reading in reversed(run.readings):
        if left.get(reading["well"], 0) > 0:
            left[reading["well"]] -= 1
            kept.append(reading)
    return kept[::-1]


def _read_journal(path: Path) -> Iterator[dict[str, Any]]:
    with open_read_only(path) as database:
        for message, full in database.execute("SELECT message, full FROM record ORDER BY seq"):
            yield json.loads(message) | (json.loads(zlib.decompress(full)) if full is not None else {})


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal that is only read, beside a running station too; JournalError if that cannot be."""
    # Without the log that an open journal has, `mode=ro` would leave one behind, in the name of the reader.
    log = path.with_name(path.name + "-wal")
    is_alone = not log.exists()
    uri = f"file:{quote(str(path.resolve()))}?" + ("immutable=1" if is_alone else "mode=ro")
    with guarded(path, "read"):
        database = sqlite3.connect(uri, uri=True)
        try:
            yield database
        finally:
            database.close()
    if is_alone and log.exists():
        raise JournalError(f"a station opened {path} while it was read; expected it closed, try again")


def read_heads(path: Path) -> list[dict[str, Any]]:
    """Return the messages of JSON lines that name a record by `ledger_id`, `seq` and `hash`.

    ConfigError if the file cannot be read, or no line names one.
    """
    heads = []
    try:
        for line in path.read_text("utf-8-sig").splitlines():
            values = json.loads(line) if line.strip() else None
            values = values.get("payload", values) if isinstance(values, dict) else None
            if (
                isinstance(values, dict)
                and type(values.get("seq")) is int
                and isinstance(values.get("hash"), str)
            ):
                heads.append(values)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected JSON lines such as a head") from error
    if not all("ledger_id" in head for head in heads) or not heads:
        raise ConfigError(f"{path} names no record; expected ledger_id, seq and hash, such as a head has")
    return heads


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    expected = "expected JSON lines as nanotox grade --json writes them"
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); {expected}") from error
    within = _IN_REPORT.search(text)
    for number, line in enumerate((within[1] if within else text).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values: Any = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"line {number} of {path} is no JSON ({error}); {expected}") from error
        if isinstance(values, dict) and "payload" in values and "topic" in values:
            values = values["payload"]  # as the publisher `jsonl` writes it
        if isinstance(values, str):
            continue  # availability, a plain word
        if not isinstance(values, dict) or not isinstance(values.get("schema"), str):
            raise ConfigError(f"line {number} of {path} is no record with a schema; {expected}")
        kind, form = values["schema"].split("/")[0], values["schema"]
        if kind in {known.split("/")[0] for known in _FORMS} and form not in _FORMS:
            raise ConfigError(
                f"line {number} of {path} has the form {form}; expected {', '.join(_FORMS)}, "
                "as this version of nanotox writes them"
            )
        if form in _FORMS and values.get("left_out") != ["*"]:
            yield values
