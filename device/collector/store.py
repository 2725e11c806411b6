"""What a collector keeps: one SQLite file of records, each once, and of what did not fit."""

import sqlite3
import uuid
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from device.errors import JournalError
from device.journal.file import guarded, lock
from device.messages import rfc3339

_FORM = 1
_ASIDE = 10_000
"""Most messages kept aside, the newest: nobody may fill the disk with them."""
_TABLES = """
CREATE TABLE collector (form INTEGER NOT NULL, client_id TEXT NOT NULL, n_doubled INTEGER NOT NULL);
CREATE TABLE record (ledger_id TEXT NOT NULL, seq INTEGER NOT NULL, site TEXT NOT NULL, station TEXT NOT NULL,
    schema TEXT NOT NULL, ts TEXT NOT NULL, hash TEXT NOT NULL, message BLOB NOT NULL,
    received_at TEXT NOT NULL, PRIMARY KEY (ledger_id, seq));
CREATE TABLE given_up (ledger_id TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    why TEXT NOT NULL, ts TEXT NOT NULL);
CREATE TABLE set_aside (id INTEGER PRIMARY KEY, received_at TEXT NOT NULL, topic TEXT NOT NULL,
    why TEXT NOT NULL, message BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that was checked."""

    ledger_id: str
    seq: int
    site: str
    station: str
    schema: str
    ts: str
    hash: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Aside:
    """A message that does not fit, and why."""

    topic: str
    why: str
    message: bytes


@dataclass(slots=True)
class Gaps:
    """Which of the numbers 1 to `newest` of one ledger are missing, as ranges in their order."""

    newest: int = 0
    missing: list[range] = field(default_factory=list)

    def reach(self, seq: int) -> None:
        """Hear that the ledger goes up to `seq`."""
        if seq > self.newest:
            self.missing.append(range(self.newest + 1, seq + 1))
            self.newest = seq

    def fill(self, first: int, last: int) -> bool:
        """Hear that `first` to `last` are no longer missing; return whether one of them was known to be."""
        self.reach(first - 1)
        is_new, self.newest = last > self.newest, max(last, self.newest)
        at = max(bisect_right(self.missing, first, key=lambda gap: gap.start) - 1, 0)
        end = at
        left: list[range] = []
        while end < len(self.missing) and self.missing[end].start <= last:
            gap = self.missing[end]
            left += [range(gap.start, min(gap.stop, first)), range(max(gap.start, last + 1), gap.stop)]
            end += 1
        before = sum(map(len, self.missing[at:end]))
        self.missing[at:end] = [gap for gap in left if gap]
        return not is_new and sum(map(len, left)) < before

    def next_asked(self, start: int, limit: int) -> range:
        """Return the span to ask for next, from the first missing number at or after `start`, else from 1.

        It has at most `limit` numbers, begins and ends with a missing one, and is empty where none is.
        """
        if not self.missing:
            return range(0)
        gap = next((gap for gap in self.missing if gap.stop > start), self.missing[0])
        first = max(gap.start, start) if gap.stop > start else gap.start
        stop = max(
            min(gap.stop, first + limit)
            for gap in self.missing
            if first < gap.stop and gap.start < first + limit
        )
        return range(first, stop)

    def __len__(self) -> int:
        return sum(map(len, self.missing))


class Store:
    """An open collection, synchronous=FULL: what `keep` returned from survives a power cut.

    The file is made if missing, with its folder. JournalError if another process has it, or it is a file of
    another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_file = lock(path)
        try:
            with guarded(path, "opened"):
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self.client_id, self.n_doubled = self._open()
        except JournalError:
            self.close()
            raise

    def keep(self, records: Iterable[Kept], aside: Sequence[Aside] = ()) -> list[Aside]:
        """Store in one transaction what is new, drop what is there; return what contradicts it, kept aside.

        StorageFullError if the disk is full; nothing is stored then.
        """
        now, n_doubled = rfc3339(datetime.now(UTC)), 0
        found: list[Aside] = []
        with self._transaction():
            for record in records:
                values = (*(getattr(record, name) for name in Kept.__dataclass_fields__), now)
                done = self._db.execute(f"INSERT OR IGNORE INTO record VALUES ({_marks(values)})", values)  # noqa: S608 - marks
                if done.rowcount == 0:
                    n_doubled += 1
                    found += self._contradiction(record)
            for item in (*aside, *found):
                values = (now, item.topic, item.why, item.message)
                self._db.execute("INSERT INTO set_aside VALUES (NULL, ?, ?, ?, ?)", values)
            if aside or found:
                oldest = "SELECT max(id) - ? FROM set_aside"
                self._db.execute(f"DELETE FROM set_aside WHERE id <= ({oldest})", (_ASIDE,))  # noqa: S608 - literal
            if n_doubled:
                self._db.execute("UPDATE collector SET n_doubled = n_doubled + ?", (n_doubled,))
        self.n_doubled += n_doubled
        return found

    def give_up(self, ledger_id: str, numbers: range, why: str) -> None:
        """Note that records are to be had no more."""
        values = (ledger_id, numbers[0], numbers[-1], why, rfc3339(datetime.now(UTC)))
        with self._transaction():
            self._db.execute("INSERT INTO given_up VALUES (?, ?, ?, ?, ?)", values)

    def count(self) -> tuple[int, int]:
        """Return how many records are stored, and how many messages were kept aside."""
        with guarded(self.path, "read"):
            n_records = self._db.execute("SELECT count(*) FROM record").fetchone()[0]
            return int(n_records), int(self._db.execute("SELECT count(*) FROM set_aside").fetchone()[0])

    def gaps(self) -> dict[str, Gaps]:
        """Return what is missing of each ledger below its newest record."""
        runs = """SELECT ledger_id, min(seq), max(seq) FROM
            (SELECT ledger_id, seq, seq - row_number() OVER (PARTITION BY ledger_id ORDER BY seq) AS run
             FROM record)
            GROUP BY ledger_id, run ORDER BY ledger_id, min(seq)"""
        found: dict[str, Gaps] = {}
        with guarded(self.path, "read"):
            for query in (runs, "SELECT ledger_id, first_seq, last_seq FROM given_up"):
                for ledger_id, first, last in self._db.execute(query):
                    found.setdefault(ledger_id, Gaps()).fill(first, last)
        return found

    def close(self) -> None:
        """Let go of the file; may be called more than once."""
        if hasattr(self, "_db"):
            self._db.close()
        self._lock_file.close()

    def _contradiction(self, record: Kept) -> list[Aside]:
        query = "SELECT hash FROM record WHERE ledger_id = ? AND seq = ?"
        if self._db.execute(query, (record.ledger_id, record.seq)).fetchone()[0] == record.hash:
            return []
        why = f"record {record.seq} of this ledger is stored with another hash; expected the same"
        return [Aside(f"{record.site}/{record.station}/{record.schema.split('/')[0]}", why, record.message)]

    def _open(self) -> tuple[str, int]:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            made = f"nanotox-collect-{uuid.uuid4().hex[:12]}"
            with self._transaction():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO collector VALUES (?, ?, 0)", (_FORM, made))
        elif "collector" not in tables:
            raise JournalError(f"{self.path} is a database of something else; name another file with --db")
        form, client_id, n_doubled = self._db.execute("SELECT * FROM collector").fetchone()
        if form != _FORM:
            raise JournalError(f"{self.path} has form {form}; this nanotox writes {_FORM}; name another file")
        return str(client_id), int(n_doubled)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with guarded(self.path, "written"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
