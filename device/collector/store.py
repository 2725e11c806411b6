"""What a collector keeps: one SQLite file of records, each once, and of what did not fit."""

import logging
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from device.collector.check import Aside, Kept
from device.collector.gaps import Gaps
from device.collector.retention import Keep, oldest_segment
from device.errors import JournalError
from device.journal.file import guarded, lock
from device.messages.sealing import rfc3339

log = logging.getLogger(__name__)

FORM = 2
_ASIDE = 10_000
"""Most messages kept aside, the newest: nobody may fill the disk with them."""
_TABLES = """
CREATE TABLE collector (form INTEGER NOT NULL, client_id TEXT NOT NULL, n_doubled INTEGER NOT NULL);
CREATE TABLE record (ledger_id TEXT NOT NULL, seq INTEGER NOT NULL, site TEXT NOT NULL, station TEXT NOT NULL,
    schema TEXT NOT NULL, ts TEXT NOT NULL, hash TEXT NOT NULL, message BLOB NOT NULL,
    received_at TEXT NOT NULL, kind TEXT, plate TEXT, well TEXT, PRIMARY KEY (ledger_id, seq));
CREATE TABLE given_up (ledger_id TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    why TEXT NOT NULL, ts TEXT NOT NULL);
CREATE TABLE set_aside (id INTEGER PRIMARY KEY, received_at TEXT NOT NULL, topic TEXT NOT NULL,
    why TEXT NOT NULL, message BLOB NOT NULL);
"""
_FORM_2 = """
CREATE TABLE let_go (ledger_id TEXT NOT NULL PRIMARY KEY, last_seq INTEGER NOT NULL, last_hash TEXT NOT NULL,
    n_records INTEGER NOT NULL, ts TEXT NOT NULL);
CREATE INDEX record_station ON record (site, station, kind, ts) WHERE kind IS NOT NULL;
CREATE INDEX record_plate ON record (plate, kind, well) WHERE plate IS NOT NULL AND kind IS NOT NULL;
CREATE INDEX record_finished ON record (ts) WHERE kind = 'plate';
"""
"""Of form 2: what retention took, with the hash that the oldest kept record goes on from; and what questions
of the history stand on. Records without a kind are kept for their place in the chain."""
_FROM_1 = """
ALTER TABLE record ADD COLUMN kind TEXT;
ALTER TABLE record ADD COLUMN plate TEXT;
ALTER TABLE record ADD COLUMN well TEXT;
UPDATE record SET kind = substr(schema, 1, instr(schema, '/') - 1),
    plate = json_extract(CAST(message AS TEXT), '$.plate'),
    well = json_extract(CAST(message AS TEXT), '$.well')
    WHERE json_extract(CAST(message AS TEXT), '$.left_out[0]') IS NOT '*';
"""

_COLUMNS = tuple(name for name in Kept.__dataclass_fields__ if name != "fault")
_INSERT = (
    f"INSERT OR IGNORE INTO record ({', '.join(_COLUMNS)}, received_at) "  # noqa: S608 - names
    f"VALUES ({'?, ' * len(_COLUMNS)}?)"
)


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
                self._let_go = dict(self._db.execute("SELECT ledger_id, last_seq FROM let_go"))
        except JournalError:
            self.close()
            raise

    def keep(self, records: Iterable[Kept], aside: Sequence[Aside] = ()) -> list[Aside]:
        """Store in one transaction what is new, drop what is there; return what is wrong with it, kept aside.

        StorageFullError if the disk is full; nothing is stored then.
        """
        now, n_doubled = rfc3339(datetime.now(UTC)), 0
        found: list[Aside] = []
        with self._transaction():
            for record in records:
                if record.seq <= self._let_go.get(record.ledger_id, 0):
                    n_doubled += 1
                    continue
                values = (*(getattr(record, name) for name in _COLUMNS), now)
                if self._db.execute(_INSERT, values).rowcount == 0:
                    n_doubled += 1
                    found += self._contradiction(record)
                elif record.fault is not None:
                    found.append(_aside(record, record.fault))
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

    def let_go(self, gaps: Mapping[str, Gaps], keep: Keep) -> int:
        """Delete some of what need not be kept, and note it; return how many records, 0 for none."""
        now = datetime.now(UTC)
        with self._transaction():
            found = oldest_segment(self._db, gaps, keep, now)
            if found is None:
                return 0
            where = (found.ledger_id, found.last_seq)
            self._db.execute("DELETE FROM record WHERE ledger_id = ? AND seq <= ?", where)
            noted = (*where, found.last_hash, found.n_records, rfc3339(now))
            self._db.execute(
                "INSERT INTO let_go VALUES (?, ?, ?, ?, ?) ON CONFLICT (ledger_id) DO UPDATE SET "
                "last_seq = excluded.last_seq, last_hash = excluded.last_hash, ts = excluded.ts, "
                "n_records = n_records + excluded.n_records",
                noted,
            )
        self._let_go[found.ledger_id] = found.last_seq
        return found.n_records

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
            given_up = "SELECT ledger_id, first_seq, last_seq FROM given_up"
            for query in ("SELECT ledger_id, 1, last_seq FROM let_go", runs, given_up):
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
        return [_aside(record, why)]

    def _open(self) -> tuple[str, int]:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            made = f"nanotox-collect-{uuid.uuid4().hex[:12]}"
            with self._transaction():
                self._script(_TABLES + _FORM_2)
                self._db.execute("INSERT INTO collector VALUES (?, ?, 0)", (FORM, made))
        elif "collector" not in tables:
            raise JournalError(f"{self.path} is a database of something else; name another file with --db")
        form, client_id, n_doubled = self._db.execute("SELECT * FROM collector").fetchone()
        if form == 1:
            log.info("%s gets form %d; a million records take a minute", self.path, FORM)
            with self._transaction():
                self._script(_FROM_1 + _FORM_2)
                self._db.execute("UPDATE collector SET form = ?", (FORM,))
        elif form != FORM:
            raise JournalError(f"{self.path} has form {form}; this nanotox writes {FORM}; name another file")
        return str(client_id), int(n_doubled)

    def _script(self, statements: str) -> None:
        for statement in filter(str.strip, statements.split(";")):
            self._db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with guarded(self.path, "written"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield


def _aside(record: Kept, why: str) -> Aside:
    return Aside(f"{record.site}/{record.station}/{record.schema.split('/')[0]}", why, record.message)
