"""The bounded queue that joins two loops."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_TURN_S = 0.25
"""Who waits says so this often."""


class Buffer(Generic[T]):
    """A queue of at most `size` items that one loop fills and another empties.

    `beat` is called by whoever waits, several times a second, and at each item put or taken.
    """

    def __init__(self, size: int, beat: Callable[[], None] = lambda: None) -> None:
        self._size, self._beat = size, beat
        self._items: deque[T] = deque()
        self._change = threading.Condition()
        self._is_ended = False
        self.n_dropped = 0
        """Items that `put_newest` threw out."""

    def put(self, item: T) -> bool:
        """Add `item` when there is room, so that nothing is passed over; False if the buffer has ended."""
        with self._change:
            self._wait_for(lambda: len(self._items) < self._size or self._is_ended)
            return self._add(item)

    def put_newest(self, item: T) -> bool:
        """Add `item` at once, in place of the oldest if it is full: a late reader sees the present."""
        with self._change:
            if len(self._items) >= self._size and not self._is_ended:
                self._items.popleft()
                self.n_dropped += 1
            return self._add(item)

    def offer(self, item: T) -> bool:
        """Add `item` at once, even beyond `size`; False if it has ended or holds twice its size already."""
        with self._change:
            return len(self._items) < 2 * self._size and self._add(item)

    def get(self) -> T | None:
        """Return the oldest item when there is one, or None when the buffer has ended and is empty."""
        with self._change:
            self._wait_for(lambda: bool(self._items) or self._is_ended)
            if not self._items:
                return None
            self._change.notify_all()
            return self._items.popleft()

    def end(self, *, discard: bool = False) -> None:
        """Take nothing more; what is inside can still be had unless it is discarded."""
        with self._change:
            self._is_ended = True
            if discard:
                self._items.clear()
            self._change.notify_all()

    def _wait_for(self, is_met: Callable[[], bool]) -> None:
        self._beat()
        while not self._change.wait_for(is_met, _TURN_S):
            self._beat()

    def _add(self, item: T) -> bool:
        if self._is_ended:
            return False
        self._items.append(item)
        self._change.notify_all()
        return True
