"""The tables of a journal: how they are made, whose they are, what a row is, and where they end."""

import json
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

from device.errors import JournalError
from device.journal.verify import FIRST_HASH
from device.messages import seal, stub

_FORM = 1
_TABLES = """
CREATE TABLE ledger (form INTEGER NOT NULL, ledger_id TEXT NOT NULL, site TEXT NOT NULL,
    station TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE record (seq INTEGER PRIMARY KEY, schema TEXT NOT NULL, hash TEXT NOT NULL, message BLOB NOT NULL,
    full BLOB, sent_at TEXT, set_aside_at TEXT);
CREATE INDEX unsent ON record (seq) WHERE sent_at IS NULL;
CREATE TABLE event (id INTEGER PRIMARY KEY, ts TEXT NOT NULL, boot_id TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, hash TEXT);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A published record as the journal keeps it."""

    seq: int
    schema: str
    hash: str
    message: bytes
    is_set_aside: bool = False
    """True where the broker never takes it; a stub is sent instead."""

    @property
    def leaf(self) -> str:
        """Last part of its topic."""
        return self.schema.split("/")[0]


def as_sent(rows: list[Row]) -> list[Row]:
    """Return rows as the broker gets them: a stub for one that is set aside."""
    return [replace(row, message=stub(row.message)) if row.is_set_aside else row for row in rows]


def is_empty(database: sqlite3.Connection) -> bool:
    """Return whether a database has no table yet."""
    return not database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table'").fetchone()


def make_ledger(database: sqlite3.Connection, ledger_id: str, site: str, station: str, now: str) -> None:
    """Make the tables of a new journal of a station, within the caller's transaction; `now` is RFC 3339."""
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    database.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", (_FORM, ledger_id, site, station, now))


def read_ledger(database: sqlite3.Connection, path: Path, site: str, station: str) -> str:
    """Return the `ledger_id` of a journal; JournalError if it is none, or another station's."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone():
        raise JournalError(f"{path} is a database but no journal; name another file in journal.path")
    query = "SELECT form, ledger_id, site, station FROM ledger"
    form, ledger_id, its_site, its_station = database.execute(query).fetchone()
    if form != _FORM:
        raise JournalError(f"{path} has form {form}; this nanotox writes form {_FORM}; name another file")
    if (its_site, its_station) != (site, station):
        raise JournalError(
            f"{path} belongs to {its_site}/{its_station}, this station is {site}/{station}; "
            "one station, one journal"
        )
    if "hash" not in {row[1] for row in database.execute("PRAGMA table_info(event)")}:
        database.execute("ALTER TABLE event ADD COLUMN hash TEXT")  # written before events had a chain
    return str(ledger_id)


def newest_record(database: sqlite3.Connection, path: Path) -> tuple[int, str]:
    """Return `seq` and hash of the newest record; JournalError if it is altered."""
    query = "SELECT seq, hash, message FROM record ORDER BY seq DESC LIMIT 1"
    newest = database.execute(query).fetchone()
    if newest is None:
        return 0, FIRST_HASH
    seq, stored, message = newest
    if seal(json.loads(message)) != stored:
        raise JournalError(f"record {seq}, the newest of {path}, is altered; keep the file as evidence")
    return int(seq), str(stored)


def newest_event(database: sqlite3.Connection) -> tuple[int, str]:
    """Return number and hash of the newest event; 0 where there is none."""
    newest = database.execute("SELECT id, hash FROM event ORDER BY id DESC LIMIT 1").fetchone() or (0, None)
    return int(newest[0]), str(newest[1] or FIRST_HASH)
