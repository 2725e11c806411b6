"""Which records a collector lets go: the oldest of a ledger, never what it still waits for."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from device.collector.gaps import Gaps
from device.journal.checkpoints import used_bytes
from device.messages.sealing import rfc3339

_AT_ONCE = 500
"""Most records let go in one transaction, so that what comes meanwhile does not wait."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long and how much to keep; None sets no limit."""

    days: float | None = None
    """Since a record came."""
    max_bytes: float | None = None
    """Of records in the file; room that they leave is used again, the file does not shrink."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The oldest records of a ledger up to `last_seq`, whose hash the next record names."""

    ledger_id: str
    last_seq: int
    last_hash: str
    n_records: int


def oldest_segment(
    database: sqlite3.Connection, gaps: Mapping[str, Gaps], keep: Keep, now: datetime
) -> Segment | None:
    """Return what to let go next; None where there is nothing.

    It begins with the oldest kept record of the ledger, ends before the first number that is missing, since
    that is asked for and shows where the chain goes on, and never holds the newest record of a ledger.
    """
    before = "" if keep.days is None else rfc3339(now - timedelta(days=keep.days))
    is_full = keep.max_bytes is not None and used_bytes(database) > keep.max_bytes
    if not (before or is_full):
        return None
    first = "SELECT received_at, seq FROM record WHERE ledger_id = ? AND seq < ? ORDER BY seq LIMIT 1"
    ends = {
        ledger_id: min([gap.missing[0].start] if gap.missing else [gap.newest])
        for ledger_id, gap in gaps.items()
    }
    oldest = [
        (*row, ledger_id)
        for ledger_id, end in ends.items()
        if (row := database.execute(first, (ledger_id, end)).fetchone()) is not None
    ]
    if not oldest or not (is_full or min(oldest)[0] < before):
        return None
    _, _, ledger_id = min(oldest)
    query = "SELECT seq, hash, received_at FROM record WHERE ledger_id = ? AND seq < ? ORDER BY seq LIMIT ?"
    found: list[tuple[int, str]] = []
    for seq, sha256, received_at in database.execute(query, (ledger_id, ends[ledger_id], _AT_ONCE)):
        if not (is_full or received_at < before):
            break
        found.append((seq, sha256))
    return Segment(ledger_id, *found[-1], len(found))
