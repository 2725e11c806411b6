"""Checkpoints of a journal: where its chain is anchored, and up to where its oldest records may be let go."""

import json
import sqlite3
from datetime import datetime
from typing import NamedTuple

from device.journal.verify import CHECKPOINT
from device.messages.sealing import rfc3339


class Segment(NamedTuple):
    """The oldest records of a journal, up to one that a checkpoint names."""

    first: int
    last: int
    hash: str
    """That of the last: the next record follows from it."""


def newest_checkpoint(database: sqlite3.Connection) -> int:
    """Return the `seq` of the newest checkpoint; without one, that before the oldest record."""
    query = "SELECT body FROM event WHERE kind = ? ORDER BY id DESC LIMIT 1"
    if found := database.execute(query, (CHECKPOINT,)).fetchone():
        return int(json.loads(found[0])["seq"])
    return int(database.execute("SELECT ifnull(min(seq), 1) - 1 FROM record").fetchone()[0])


def segment_to_go(
    database: sqlite3.Connection, *, before: datetime | None, max_bytes: float, keep_from: int
) -> Segment | None:
    """Return the oldest records if they must go: stored `before` a time, or with more than `max_bytes` kept.

    None if nothing must go, or what must is unsent, not yet under a checkpoint, or has a `seq` from
    `keep_from` on.
    """
    first, newest = database.execute("SELECT min(seq), max(seq) FROM record").fetchone()
    query = "SELECT ts, body FROM event WHERE kind = ? ORDER BY id"
    for ts, body in database.execute(query, (CHECKPOINT,)) if first is not None else ():
        checkpoint = json.loads(body)
        last = checkpoint["seq"]
        if last < first:
            continue
        is_old = before is not None and ts < rfc3339(before)
        if not is_old and used_bytes(database) <= max_bytes:
            return None
        unsent = database.execute("SELECT min(seq) FROM record WHERE sent_at IS NULL").fetchone()[0]
        # the newest record stays: the numbering goes on from it
        end = min(newest, keep_from, newest if unsent is None else unsent)
        return Segment(first, last, checkpoint["hash"]) if last < end else None
    return None


def used_bytes(database: sqlite3.Connection) -> int:
    """Return what the file holds, without pages that are free for new records."""
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
