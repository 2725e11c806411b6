"""The outbox: which rows of the journal go to the broker next.

First, after an outage of more than `_BACKLOG` records, its `_NEWEST` and what is stored from then on, so that
the present never waits for the past; then by turns what waits, in its order, and what a `replay` asks for.
"""

import time
from collections.abc import Callable

from device.journal import Journal, Row
from device.messages.replies import Refusal

_BACKLOG, _NEWEST = 1000, 16
_REFUSED_S = 30.0
"""A topic that the broker refuses, such as by its access list, is tried again after this."""
_MARK_S, _MARK_ROWS = 1.0, 50
"""Acknowledged rows are marked in batches; a lost mark only means a duplicate."""
_REPLAY_S = 1.0
"""Least time between two replays."""


class Outbox:
    """The places in a journal up to which its rows are sent. Used by the send loop's thread alone."""

    def __init__(self, journal: Journal, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal, self._clock = journal, clock
        self._backlog = self._cursor = self._newest = 0  # seq: end of the backlog; sent of it; sent beyond it
        self._asked = self._again = range(0)  # of a replay: all of it; what is left
        self._sources = [self._waiting, self._replayed]
        self._replay_at = self._held_until = 0.0
        self._held: set[str] = set()  # leaves that wait because the broker refused them
        self._taken: list[int] = []  # acknowledged, and not marked yet
        self._marked_at = 0.0
        self._refused: set[str] = set()  # leaves of which it has taken no row since it refused one

    def begin(self) -> None:
        """Begin with a new connection: what waits is sent from its start, and so is an unfinished replay."""
        is_long = self._journal.count_unsent() > _BACKLOG
        self._backlog = max(0, self._journal.head.seq - _NEWEST) if is_long else 0
        # A session that the broker remembers brings commands before anybody hears that it is connected.
        self._again = self._asked if self._again else range(0)
        self._held.clear()
        self.start_over()

    def start_over(self) -> None:
        """Take up everything unsent from its beginning."""
        self._cursor, self._newest = 0, self._backlog

    def hold_back(self, seq: int) -> None:
        """Hear that the broker refuses a row: its topic is tried again later, and no other waits for it."""
        if not self._held:
            self._held_until = self._clock() + _REFUSED_S
        leaves = {row.leaf for row in self._journal.rows(seq, seq)}
        self._held |= leaves
        self._refused |= leaves

    def note_taken(self, seq: int) -> bool:
        """Hear that the broker took a row; return whether it still refuses others."""
        self._taken.append(seq)
        if self._refused:
            self._refused -= {row.leaf for row in self._journal.rows(seq, seq)}
        return bool(self._refused)

    @property
    def is_mark_due(self) -> bool:
        """Whether it is time to mark what the broker took."""
        return len(self._taken) >= _MARK_ROWS or self._clock() - self._marked_at >= _MARK_S

    def mark(self) -> None:
        """Mark in the journal what the broker took; StorageFullError if that has to wait for room."""
        self._marked_at = self._clock()
        if self._taken:
            self._journal.mark_sent(self._taken)
            self._taken = []

    def due(self, room: int) -> list[Row]:
        """Return the rows that are sent next, at most `room`."""
        if self._held and self._clock() >= self._held_until:
            self._held.clear()
            self.start_over()
        found: list[Row] = []
        while len(found) < room and (rows := self._next(room - len(found))):
            found += [row for row in rows if row.leaf not in self._held and row.seq not in self._taken]
        return found

    def _next(self, room: int) -> list[Row]:
        rows, last = [], self._journal.head.seq
        if last > self._newest:  # most turns have nothing new, and need not ask the database
            rows = self._journal.unsent(room, after=self._newest, last=last)
            self._newest = rows[-1].seq if rows else last
        for source in self._sources:
            if len(rows) < room:
                rows += source(room - len(rows))
        if self._cursor < self._backlog:
            self._sources.reverse()  # a lost record must not wait for all of a long past
        return rows

    def _waiting(self, room: int) -> list[Row]:
        if self._cursor >= self._backlog:
            return []
        old = self._journal.unsent(room, after=self._cursor, last=self._backlog)
        self._cursor = old[-1].seq if old else self._backlog
        return old

    def _replayed(self, room: int) -> list[Row]:
        if not self._again:
            return []
        again = self._journal.sent(self._again[0], self._again[-1], room)
        self._again = range(again[-1].seq + 1, self._again.stop) if again else range(0)
        return again

    def replay(self, first: int, last: int) -> Refusal | None:
        """Take up acknowledged rows `first` to `last` once more, or return why not."""
        now, seq = self._clock(), self._journal.head.seq
        if self._again or now < self._replay_at:
            found = "another replay is under way, or came a moment ago; expected one at a time"
            return Refusal("BUSY", f"{found}; ask again in {_REPLAY_S:g} s")
        if first > seq:
            found = f"from_seq is {first}; expected at most {seq}, the newest record of this journal"
            return Refusal("NOT_WRITTEN", found, "args.from_seq")
        if not self._journal.rows(first, last, limit=1):
            found = f"the journal keeps none of the records {first} to {last} any more; expected newer ones"
            return Refusal("NOT_KEPT", found, "args.from_seq")
        self._asked = self._again = range(first, last + 1)
        self._replay_at = now + _REPLAY_S
        return None
