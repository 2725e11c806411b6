"""Which numbers of a ledger are missing, and what to ask a station for next, and when."""

import time
from bisect import bisect_right
from dataclasses import dataclass, field

from device.messages import Topics

ASK_S = (1.1, 10.0)
"""First and longest wait between two requests to one station; while nothing comes the wait doubles."""


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

    def has(self, first: int, last: int) -> bool:
        """Return whether none of `first` to `last` is missing."""
        return last <= self.newest and all(g.stop <= first or g.start > last for g in self.missing)

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


@dataclass(slots=True)
class Station:
    """A station as far as it is heard."""

    topics: Topics
    ledger_id: str | None = None
    """The ledger that its `head` tells: another one cannot be asked for."""
    ask_at: float | None = None
    """When to ask for what is missing; None while nothing is."""
    wait_s: float = ASK_S[0]
    asked: range = field(default_factory=lambda: range(0))
    transaction: str = ""

    def hurry(self) -> None:
        """Hear that it answers, or may answer again."""
        self.wait_s = ASK_S[0]
        if self.ask_at is not None:
            self.ask_at = min(self.ask_at, time.monotonic() + self.wait_s)
