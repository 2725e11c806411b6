"""Whether a journal is as it was written: its two chains of hashes, its checkpoints, and heads seen outside.

A chain finds what was changed within it. Whoever cuts its tail off or writes all of it anew leaves a chain
that holds; that shows against a hash that lies elsewhere: a checkpoint among the events, or a head that the
broker or a subscriber has kept.
"""

import hashlib
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from device.errors import JournalError
from device.messages.sealing import is_sealed

FIRST_HASH = "0" * 64
"""`prev_hash` of the first record, and of the first event."""
CHECKPOINT = "checkpoint"
"""Kind of an event whose body holds `seq` and `hash` of a record."""
CHECKPOINT_ROWS = 1000
"""The record that is so many behind the last checkpoint has one, in its own transaction."""
_EVIDENCE = "keep the file as evidence"


class Anchor(NamedTuple):
    """A hash of a record that was seen elsewhere."""

    seq: int
    hash: str
    where: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What of a journal was checked and holds."""

    ledger_id: str
    first: int
    """Oldest record that is kept; 1 where nothing was let go."""
    last: int
    """Newest record; 0 where there is none."""
    last_hash: str
    n_events: int
    n_anchors: int
    """Checkpoints and heads that were compared."""

    @property
    def n_records(self) -> int:
        """How many records hold."""
        return self.last - self.first + 1


def event_hash(prev_hash: str, *row: str) -> str:
    """Return the hash of an event: of the one before and of its `ts`, `boot_id`, `kind` and `body`."""
    return hashlib.sha256("\n".join((prev_hash, *row)).encode()).hexdigest()


def verify_journal(
    database: sqlite3.Connection, path: Path, heads: Iterable[Mapping[str, Any]] = ()
) -> Verified:
    """Return what holds of the journal in an open `database`.

    `heads` are messages of this or other ledgers that somebody kept, each with `ledger_id`, `seq`, `hash`; a
    head also with `n_events` and `event_hash`.

    Raises
    ------
    JournalError
        Naming the first record or event that is missing or altered.
    """
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone():
        raise JournalError(f"{path} is a database but no journal; expected that of a station")
    (ledger_id,) = database.execute("SELECT ledger_id FROM ledger").fetchone() or (None,)
    named = database.execute("SELECT message FROM record ORDER BY seq LIMIT 1").fetchone()
    if not isinstance(ledger_id, str) or (named and b'"ledger_id":"%s"' % ledger_id.encode() not in named[0]):
        raise JournalError(f"the ledger id of {path} is missing or altered; {_EVIDENCE}")
    mine = [head for head in heads if head["ledger_id"] == ledger_id]
    n_events, checkpoints = _verify_events(database, path, mine)
    outside = [Anchor(head["seq"], head["hash"], "a head from outside") for head in mine]
    anchors = sorted({anchor for anchor in (*checkpoints, *outside) if anchor.seq > 0})
    oldest = database.execute("SELECT min(seq) FROM record").fetchone()[0]
    first, prev_hash = _start_of_chain(oldest, checkpoints)
    last = first - 1
    waiting = iter([anchor for anchor in anchors if anchor.seq >= first])
    anchor = next(waiting, None)
    for seq, last_hash in _verify_records(database, path, first, prev_hash):
        while anchor is not None and anchor.seq == seq:
            if anchor.hash != last_hash:
                raise JournalError(
                    f"record {seq} of {path} is not the one that {anchor.where} names: the chain was "
                    f"written anew up to it; {_EVIDENCE}"
                )
            anchor = next(waiting, None)
        last, prev_hash = seq, last_hash
    if anchor is not None:
        raise JournalError(
            f"record {last + 1} of {path} is missing: {anchor.where} names record {anchor.seq}; {_EVIDENCE}"
        )
    if last - max((at.seq for at in checkpoints), default=first - 1) >= CHECKPOINT_ROWS:
        raise JournalError(
            f"event {n_events + 1} of {path} is missing: there is no checkpoint of the last "
            f"{CHECKPOINT_ROWS} records; {_EVIDENCE}"
        )
    return Verified(ledger_id, first, last, prev_hash, n_events, len(anchors))


def _start_of_chain(oldest: int | None, checkpoints: Iterable[Anchor]) -> tuple[int, str]:
    """Return the seq that the chain begins with and the hash before it: old records may have been let go.

    They go up to a checkpoint; a journal that begins elsewhere lacks its first record.
    """
    known = {anchor.seq + 1: anchor.hash for anchor in checkpoints}
    if oldest is None:
        return max(known.items(), default=(1, FIRST_HASH))
    return (oldest, known[oldest]) if oldest in known else (1, FIRST_HASH)


def _verify_events(
    database: sqlite3.Connection, path: Path, heads: Iterable[Mapping[str, Any]]
) -> tuple[int, list[Anchor]]:
    """Return how many events hold, and the checkpoints among them; those of before the chain have no hash."""
    prev_hash, checkpoints, number = FIRST_HASH, [], 0
    named: dict[int, set[str]] = defaultdict(set)
    for head in heads:
        named[head.get("n_events", 0)].add(head.get("event_hash", FIRST_HASH))
    query = "SELECT id, ts, boot_id, kind, body, hash FROM event ORDER BY id"
    for number, (row_id, ts, boot_id, kind, body, found) in enumerate(database.execute(query), start=1):
        is_older = found is None and prev_hash == FIRST_HASH
        expected = FIRST_HASH if is_older else event_hash(prev_hash, *map(str, (ts, boot_id, kind, body)))
        if row_id != number or (found or FIRST_HASH) != expected:
            raise JournalError(f"event {number} of {path} is missing or altered; {_EVIDENCE}")
        prev_hash = expected
        if named.get(number, {prev_hash}) != {prev_hash}:
            raise JournalError(f"event {number} of {path} is not the one that a head names; {_EVIDENCE}")
        if kind == CHECKPOINT:
            values = json.loads(body)
            checkpoints.append(Anchor(values["seq"], values["hash"], f"checkpoint {number}"))
    if max(named, default=0) > number:
        raise JournalError(
            f"event {number + 1} of {path} is missing: a head names event {max(named)}; {_EVIDENCE}"
        )
    return number, checkpoints


def _verify_records(
    database: sqlite3.Connection, path: Path, first: int, prev_hash: str
) -> Iterator[tuple[int, str]]:
    """Yield seq and hash of each record from `first` on, as long as they follow from one another."""
    query = "SELECT seq, schema, hash, message, full FROM record ORDER BY seq"
    for number, (seq, schema, found, message, full) in enumerate(database.execute(query), start=first):
        is_whole = seq == number and is_record(message, seq, schema, found)
        if not is_whole or b'"prev_hash":"%s"' % prev_hash.encode() not in message:
            # A record that is sealed and follows from another one: the one before was sealed anew.
            bad = number - 1 if is_whole and number > first else number
            raise JournalError(f"record {bad} of {path} is missing or altered; {_EVIDENCE}")
        if full is not None or b'"full_sha256":null' not in message:
            _verify_lists(message, full, number, path)
        yield seq, found
        prev_hash = found


def is_record(message: object, seq: int, schema: object, found: object) -> bool:
    """Return whether a message is the canonical JSON that was sealed as record `seq`, after any other."""
    if not (isinstance(message, bytes) and isinstance(schema, str) and isinstance(found, str)):
        return False
    if b'"seq":%d,' % seq not in message or b'"schema":"%s"' % schema.encode() not in message:
        return False
    return is_sealed(message, found)


def _verify_lists(message: bytes, full: bytes | None, number: int, path: Path) -> None:
    try:
        complete = zlib.decompress(full or b"")
    except (zlib.error, TypeError):
        complete = b""
    if json.loads(message)["full_sha256"] != hashlib.sha256(complete).hexdigest():
        raise JournalError(f"the lists of record {number} of {path} are altered; {_EVIDENCE}")
