"""The journal: one SQLite file that holds every published record before anyone hears of it.

Write-ahead log, synchronous=FULL: a record that `append` returned survives a power cut. Rows that the broker
has not acknowledged are the outbox; acknowledged rows stay for replay. `seq` counts published records without
a gap and each record carries the hash of the one before, so loss, doubling and tampering show.
"""

import json
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device.errors import JournalError
from device.journal.checkpoints import newest_checkpoint, segment_to_go
from device.journal.file import StorageFullError, ballast, guarded, lock
from device.journal.ledger import (
    Row,
    as_sent,
    is_empty,
    make_ledger,
    newest_event,
    newest_record,
    read_ledger,
)
from device.journal.verify import CHECKPOINT, CHECKPOINT_ROWS, FIRST_HASH, event_hash, verify_journal
from device.messages import Head, Identity, Published, Sealed, schema_of, seal_record
from device.messages.sealing import canonical, rfc3339
from device.records import ClockState

__all__ = ["FIRST_HASH", "Journal", "Row", "StorageFullError"]

_LAST = 1 << 62
_CHECKPOINT_S = 3600.0
"""After so long the next record gets a checkpoint, however few there were."""


class Journal:
    """An open journal. Every method may be called from any thread.

    The file is made if missing, with its folder. `clock` gives the time, UTC, and `clock_state` whether it
    can be trusted.

    Raises
    ------
    StorageFullError
        If the disk is full and its ballast, which is given up for this, is not room enough.
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
        self._lock_file = lock(path)
        try:
            try:
                self._open()
            except StorageFullError:
                self.give_room()
                self._open()
        except JournalError:
            self.close()
            raise

    def _open(self) -> None:
        with guarded(self.path, "opened"):
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self.ledger_id = self._open_ledger()
            self._seq, self._hash = newest_record(self._db, self.path)
            self._event = newest_event(self._db)  # its number and hash
            self._anchored, self._anchored_at = newest_checkpoint(self._db), time.monotonic()

    @property
    def head(self) -> Head:
        """The newest published record; `seq` 0 where there is none."""
        with self._mutex:
            return Head("head/1", self.ledger_id, self.boot_id, self._seq, self._hash, *self._event)

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
            sealed: list[Sealed] = []
            for record in records:
                identity = Identity(
                    schema_of(record),
                    self._site,
                    self._station,
                    self.ledger_id,
                    self._seq + len(sealed) + 1,
                    self.boot_id,
                    self._clock(),
                    self._clock_state(),
                    prev_hash=sealed[-1].hash if sealed else self._hash,
                )
                sealed.append(seal_record(record, identity))
            rows = [
                (item.seq, item.schema, item.hash, item.message, item.full and zlib.compress(item.full))
                for item in sealed
            ]
            told = self._event
            with self._transaction():
                self._db.executemany(
                    "INSERT INTO record (seq, schema, hash, message, full) VALUES (?, ?, ?, ?, ?)", rows
                )
                if is_due := bool(sealed) and self._is_checkpoint_due(sealed[-1].seq):
                    newest, count = sealed[-1], sealed[-1].seq - self._anchored
                    body = {"seq": newest.seq, "hash": newest.hash, "count": count}
                    told = self._insert_event(CHECKPOINT, body)
            if sealed:
                self._seq, self._hash, self._event = sealed[-1].seq, sealed[-1].hash, told
            if is_due:
                self._anchored, self._anchored_at = self._seq, time.monotonic()
        return tuple(sealed)

    def note(self, kind: str, **body: object) -> None:
        """Store an internal event, such as a start: not published, without a `seq`, in a chain of its own."""
        with self._mutex:
            with self._transaction():
                told = self._insert_event(kind, body)
            self._event = told

    def notes(self, *kinds: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
        """Return the newest events of some kinds, each with its body, the newest first, at most `limit`."""
        marks = ", ".join("?" * len(kinds))
        query = f"SELECT kind, body FROM event WHERE kind IN ({marks}) ORDER BY id DESC LIMIT ?"  # noqa: S608 - marks
        with self._mutex, guarded(self.path, "read"):
            return [(kind, json.loads(body)) for kind, body in self._db.execute(query, (*kinds, limit))]

    def unsent(self, limit: int, *, after: int = 0, last: int | None = None) -> list[Row]:
        """Return the oldest unacknowledged rows beyond seq `after`, up to `last`, at most `limit`."""
        where = "WHERE sent_at IS NULL AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return as_sent(self._rows(where, (after, last or _LAST, limit)))

    def sent(self, first: int, last: int, limit: int) -> list[Row]:
        """Return acknowledged rows from seq `first` to `last` as they are sent again, at most `limit`."""
        where = "WHERE sent_at IS NOT NULL AND seq >= ? AND seq <= ? ORDER BY seq LIMIT ?"
        return as_sent(self._rows(where, (first, last, limit)))

    def rows(self, first: int = 1, last: int | None = None, *, limit: int = -1) -> list[Row]:
        """Return the rows from seq `first` to `last`, both included, as stored; at most `limit` if not -1."""
        return self._rows("WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?", (first, last or _LAST, limit))

    def full(self, seq: int) -> dict[str, Any]:
        """Return the complete record `seq`, with what its message leaves out; KeyError if there is none."""
        with self._mutex, guarded(self.path, "read"):
            found = self._db.execute("SELECT message, full FROM record WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            raise KeyError(seq)
        message: dict[str, Any] = json.loads(found[0])
        return message | (json.loads(zlib.decompress(found[1])) if found[1] is not None else {})

    def set_aside(self, seq: int) -> None:
        """Send a stub in place of a record that the broker never takes, so that it blocks none behind it."""
        with self._mutex, self._transaction():
            self._db.execute(
                "UPDATE record SET set_aside_at = ? WHERE seq = ?", (rfc3339(self._clock()), seq)
            )

    def count_unsent(self) -> int:
        """Return how many rows the broker has not acknowledged."""
        with self._mutex, guarded(self.path, "read"):
            return int(self._db.execute("SELECT count(*) FROM record WHERE sent_at IS NULL").fetchone()[0])

    def mark_sent(self, seqs: Iterable[int]) -> None:
        """Note that the broker acknowledged rows; they stay for replay."""
        now = rfc3339(self._clock())
        with self._mutex, self._transaction():
            self._db.executemany("UPDATE record SET sent_at = ? WHERE seq = ?", [(now, seq) for seq in seqs])

    def verify(self) -> int:
        """Return how many records the chain holds; JournalError names the first missing or altered."""
        with self._mutex, guarded(self.path, "read"):
            return verify_journal(self._db, self.path).n_records

    def let_go(self, *, before: datetime | None, max_bytes: float, keep_from: int | None = None) -> int:
        """Delete the oldest records up to a checkpoint if they must go; return how many, 0 if none went.

        They go if they were stored `before` a time, or if the journal holds more than `max_bytes`; never
        unsent ones, nor those from seq `keep_from` on. The checkpoint and an event that tells it stay.
        """
        with self._mutex:
            with guarded(self.path, "read"):
                limit = _LAST if keep_from is None else keep_from
                going = segment_to_go(self._db, before=before, max_bytes=max_bytes, keep_from=limit)
            if going is None:
                return 0
            with self._transaction():
                self._db.execute("DELETE FROM record WHERE seq <= ?", (going.last,))
                told = self._insert_event("records_let_go", going._asdict())
            self._event = told
        return going.last - going.first + 1

    def frames_of(self, first: int) -> set[str]:
        """Return the SHA-256 of the frames kept for readings from seq `first` on."""
        query = (
            "SELECT json_extract(CAST(message AS TEXT), '$.frame_sha256') FROM record "
            "WHERE seq >= ? AND schema LIKE 'reading/%'"
        )
        with self._mutex, guarded(self.path, "read"):
            return {sha256 for (sha256,) in self._db.execute(query, (first,)) if sha256 is not None}

    def hold_room(self) -> None:
        """Keep a file of ballast beside the journal; StorageFullError if it finds no room."""
        ballast(self.path, held=True)

    def give_room(self) -> None:
        """Give the room of the ballast up, so that a full disk can still be told."""
        ballast(self.path, held=False)

    def close(self) -> None:
        """Let go of the file and of its lock; may be called more than once."""
        with self._mutex:
            if hasattr(self, "_db"):
                self._db.close()
            self._lock_file.close()

    def _rows(self, where: str, values: tuple[int, ...]) -> list[Row]:
        with self._mutex, guarded(self.path, "read"):
            query = f"SELECT seq, schema, hash, message, set_aside_at IS NOT NULL FROM record {where}"  # noqa: S608 - `where` is a literal above
            return [Row(*row) for row in self._db.execute(query, values)]

    def _is_checkpoint_due(self, seq: int) -> bool:
        hour_is_over = time.monotonic() - self._anchored_at >= _CHECKPOINT_S
        return hour_is_over or seq - self._anchored >= CHECKPOINT_ROWS

    def _insert_event(self, kind: str, body: Mapping[str, object]) -> tuple[int, str]:
        """Insert an event; return its number and hash: the newest once the transaction is committed."""
        row = (rfc3339(self._clock()), self.boot_id, kind, canonical(body).decode())
        number, before = self._event
        sealed = event_hash(before, *row)
        self._db.execute(
            "INSERT INTO event (ts, boot_id, kind, body, hash) VALUES (?, ?, ?, ?, ?)", (*row, sealed)
        )
        return number + 1, sealed

    def _open_ledger(self) -> str:
        if is_empty(self._db):
            with self._transaction():
                make_ledger(self._db, uuid.uuid4().hex, self._site, self._station, rfc3339(self._clock()))
        return read_ledger(self._db, self.path, self._site, self._station)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit all or nothing."""
        with guarded(self.path, "written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back where the disk is full; a second ROLLBACK would be an error.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
