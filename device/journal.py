"""The journal: one SQLite file that holds every published record before anyone hears of it.

Write-ahead log, synchronous=FULL: a record that `append` returned survives a power cut. Rows that the broker
has not acknowledged are the outbox; acknowledged rows stay for replay. `seq` counts published records without
a gap and each record carries the hash of the one before, so loss, doubling and tampering show.
"""

import errno
import fcntl
import hashlib
import json
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from device.errors import JournalError
from device.messages import (
    ClockState,
    Head,
    Identity,
    Published,
    Sealed,
    canonical,
    rfc3339,
    schema_of,
    seal,
    seal_record,
)

FIRST_HASH = "0" * 64
"""`prev_hash` of the first record."""

_FORM = 1
_TABLES = """
CREATE TABLE ledger (form INTEGER NOT NULL, ledger_id TEXT NOT NULL, site TEXT NOT NULL, station TEXT NOT
NULL,
    created_at TEXT NOT NULL);
CREATE TABLE record (seq INTEGER PRIMARY KEY, schema TEXT NOT NULL, hash TEXT NOT NULL, message BLOB NOT NULL,
    full BLOB, sent_at TEXT);
CREATE INDEX unsent ON record (seq) WHERE sent_at IS NULL;
CREATE TABLE event (id INTEGER PRIMARY KEY, ts TEXT NOT NULL, boot_id TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL);
"""
# A write that fails for want of space is rolled back and may be tried again; after a failed fsync nobody
# knows what the disk holds, so that handle is never used again.
_NO_SPACE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}


class StorageFullError(JournalError):
    """There is no room for the record; nothing was written, and it may be tried again."""


@dataclass(frozen=True, slots=True)
class Row:
    """A published record as the journal keeps it."""

    seq: int
    schema: str
    hash: str
    message: bytes

    @property
    def leaf(self) -> str:
        """Last part of its topic."""
        return self.schema.split("/")[0]


class Journal:
    """An open journal. Every method may be called from any thread.

    Parameters
    ----------
    path : Path
        The file; made if missing, with its folder.
    site, station : str
        Who speaks; an existing journal must belong to the same station.
    clock : callable, optional
        Gives the time, UTC.
    clock_state : callable, optional
        Tells whether that time can be trusted.

    Raises
    ------
    JournalError
        If another station uses it, it belongs to another one, or it is no journal.
    """

    def __init__(
        self,
        path: Path,
        *,
        site: str,
        station: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_state: Callable[[], ClockState] = lambda: "unknown",
    ) -> None:
        self.path = path
        self.boot_id = uuid.uuid4().hex
        self._site, self._station = site, station
        self._clock, self._clock_state = clock, clock_state
        self._mutex = threading.Lock()
        self._lock_file = _lock(path)
        try:
            self._db = _connect(path)
            with self._guard("opened"):
                self.ledger_id = self._open_ledger()
                self._seq, self._hash = self._newest()
        except JournalError:
            self.close()
            raise

    @property
    def head(self) -> Head:
        """The newest published record; `seq` 0 where there is none."""
        with self._mutex:
            return Head("head/1", self.ledger_id, self.boot_id, self._seq, self._hash)

    def append(self, *records: Published) -> tuple[Sealed, ...]:
        """Store records in one transaction, and return them as they will be sent.

        Raises
        ------
        ValueError
            If a record cannot be told as JSON (NaN); nothing is stored.
        StorageFullError
            If the disk is full; nothing is stored, trying again later is safe.
        JournalError
            If the journal cannot be trusted any more; the station must end.
        """
        with self._mutex:
            sealed = []
            seq, last = self._seq, self._hash
            for record in records:
                seq += 1
                sealed.append(seal_record(record, self._identity(record, seq, last)))
                last = sealed[-1].hash
            with self._transaction():
                self._db.executemany(
                    "INSERT INTO record (seq, schema, hash, message, full) VALUES (?, ?, ?, ?, ?)",
                    [
                        (
                            item.seq,
                            item.schema,
                            item.hash,
                            item.message,
                            item.full and zlib.compress(item.full),
                        )
                        for item in sealed
                    ],
                )
            self._seq, self._hash = seq, last
        return tuple(sealed)

    def note(self, kind: str, **body: object) -> None:
        """Store an internal event, such as a start; it is not published and has no `seq`."""
        with self._mutex, self._transaction():
            self._db.execute(
                "INSERT INTO event (ts, boot_id, kind, body) VALUES (?, ?, ?, ?)",
                (rfc3339(self._clock()), self.boot_id, kind, canonical(body).decode()),
            )

    def unsent(self, limit: int, *, after: int = 0) -> list[Row]:
        """Return the oldest rows beyond seq `after` that nobody acknowledged, at most `limit`."""
        return self._rows("WHERE sent_at IS NULL AND seq > ? ORDER BY seq LIMIT ?", (after, limit))

    def rows(self, first: int = 1, last: int | None = None) -> list[Row]:
        """Return the rows from seq `first` to `last`, both included, for replay."""
        return self._rows("WHERE seq >= ? AND seq <= ? ORDER BY seq", (first, last or (1 << 62)))

    def full(self, seq: int) -> dict[str, Any]:
        """Return the complete record `seq`, with the lists that its message leaves out.

        Raises
        ------
        KeyError
            If there is no such record.
        """
        with self._mutex, self._guard("read"):
            found = self._db.execute("SELECT message, full FROM record WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            raise KeyError(seq)
        message: dict[str, Any] = json.loads(found[0])
        return message | (json.loads(zlib.decompress(found[1])) if found[1] is not None else {})

    def count_unsent(self) -> int:
        """Return how many rows the broker has not acknowledged."""
        with self._mutex, self._guard("read"):
            return int(self._db.execute("SELECT count(*) FROM record WHERE sent_at IS NULL").fetchone()[0])

    def mark_sent(self, seqs: Iterable[int]) -> None:
        """Note that the broker acknowledged rows; they stay for replay."""
        now = rfc3339(self._clock())
        with self._mutex, self._transaction():
            self._db.executemany("UPDATE record SET sent_at = ? WHERE seq = ?", [(now, seq) for seq in seqs])

    def verify(self) -> int:
        """Return how many records the chain holds, after checking each of them.

        Raises
        ------
        JournalError
            Naming the first record that is missing or altered.
        """
        expected_hash = FIRST_HASH
        for number, row in enumerate(self.rows(), start=1):
            values = json.loads(row.message)
            linked = row.seq == number == values["seq"] and values["prev_hash"] == expected_hash
            if not linked or not seal(values) == values["hash"] == row.hash:
                raise JournalError(
                    f"record {number} of {self.path} is missing or altered; keep the file as evidence"
                )
            if values["full_sha256"] is not None:
                body = {key: value for key, value in self.full(number).items() if key not in _IDENTITY}
                if hashlib.sha256(canonical(body)).hexdigest() != values["full_sha256"]:
                    raise JournalError(f"the lists of record {number} of {self.path} are altered")
            expected_hash = row.hash
        return self.head.seq

    def close(self) -> None:
        """Let go of the file and of its lock; may be called more than once."""
        with self._mutex:
            if hasattr(self, "_db"):
                self._db.close()
            self._lock_file.close()

    def _rows(self, where: str, values: tuple[int, ...]) -> list[Row]:
        with self._mutex, self._guard("read"):
            found = self._db.execute(f"SELECT seq, schema, hash, message FROM record {where}", values)  # noqa: S608 - `where` is a literal above
            return [Row(*row) for row in found]

    def _identity(self, record: Published, seq: int, prev_hash: str) -> Identity:
        return Identity(
            schema=schema_of(record),
            site=self._site,
            station=self._station,
            ledger_id=self.ledger_id,
            seq=seq,
            boot_id=self.boot_id,
            ts=self._clock(),
            clock_state=self._clock_state(),
            prev_hash=prev_hash,
            hash="",
            research_use_only=True,
            left_out=(),
            full_sha256=None,
        )

    def _open_ledger(self) -> str:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            created = uuid.uuid4().hex
            with self._transaction():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                values = (_FORM, created, self._site, self._station, rfc3339(self._clock()))
                self._db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", values)
            return created
        if "ledger" not in tables:
            raise JournalError(f"{self.path} is a database but no journal; name another file in journal.path")
        form, ledger_id, site, station = self._db.execute(
            "SELECT form, ledger_id, site, station FROM ledger"
        ).fetchone()
        if form != _FORM:
            raise JournalError(
                f"{self.path} has form {form}; this nanotox writes form {_FORM}; name another file"
            )
        if (site, station) != (self._site, self._station):
            raise JournalError(
                f"{self.path} belongs to {site}/{station}, this station is {self._site}/{self._station}; "
                "one station, one journal"
            )
        return str(ledger_id)

    def _newest(self) -> tuple[int, str]:
        newest = self._db.execute(
            "SELECT seq, hash, message FROM record ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        if newest is None:
            return 0, FIRST_HASH
        seq, stored, message = newest
        if seal(json.loads(message)) != stored:
            raise JournalError(
                f"record {seq}, the newest of {self.path}, is altered; keep the file as evidence"
            )
        return int(seq), str(stored)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guard("written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back where the disk is full; a second ROLLBACK would be an error.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _guard(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _as_journal_error(error, self.path, done) from error


_IDENTITY = set(Identity.__dataclass_fields__)


def _as_journal_error(error: sqlite3.Error, path: Path, done: str) -> JournalError:
    if getattr(error, "sqlite_errorcode", None) in _NO_SPACE:
        return StorageFullError(f"{path} cannot be {done}: the disk is full ({error}); make room")
    return JournalError(f"{path} cannot be {done} ({error}); expected a journal on a writable disk")


def _lock(path: Path) -> IO[str]:
    """Return the held lock file of a journal: a second station on it would break the numbering."""
    file = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = file.open("a", encoding="utf-8")
    except OSError as error:
        raise JournalError(
            f"{path} cannot be opened ({error}); expected a folder that can be written"
        ) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise JournalError(
                f"{file} cannot be locked ({error}); keep the journal on a local disk"
            ) from error
        raise JournalError(
            f"{path} is in use by another station; stop it or name another journal.path"
        ) from error
    return held


def _connect(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    except sqlite3.Error as error:
        raise _as_journal_error(error, path, "opened") from error
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error as error:
        db.close()
        raise _as_journal_error(error, path, "opened") from error
    return db
