"""The bounded queue that joins two loops."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_TURN_S = 0.25
"""Who waits says so this often."""


class Flow(NamedTuple):
    """What became of the items that came: n_in = n_done + n_dropped + n_waiting, at every moment."""

    n_in: int
    n_done: int
    n_dropped: int
    n_waiting: int
    """In the buffer, or taken out and not yet done with."""


class Buffer(Generic[T]):
    """A queue of at most `size` items that one loop fills and another empties.

    `beat` is called by whoever waits, several times a second, and at each item put or taken; `is_counted`
    says which items the flow is told of.
    """

    def __init__(
        self,
        size: int,
        beat: Callable[[], None] = lambda: None,
        is_counted: Callable[[T], bool] = lambda _: True,
    ) -> None:
        self._size, self._beat, self._is_counted = size, beat, is_counted
        self._items: deque[T] = deque()
        self._change = threading.Condition()
        self._is_ended = False
        self._n_in = self._n_done = self._n_dropped = self._n_held = 0

    def put(self, item: T) -> bool:
        """Add `item` when there is room, so that nothing is passed over; False if the buffer has ended."""
        with self._change:
            self._wait_for(lambda: len(self._items) < self._size or self._is_ended)
            return self._add(item)

    def put_newest(self, item: T) -> bool:
        """Add `item` at once, in place of the oldest if it is full: a late reader sees the present."""
        with self._change:
            if len(self._items) >= self._size and not self._is_ended:
                self._n_dropped += self._is_counted(self._items.popleft())
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
            item = self._items.popleft()
            self._n_held += self._is_counted(item)
            return item

    def done(self, *, dropped: bool = False) -> None:
        """Hear that a counted item which `get` gave is done with, or was passed over."""
        with self._change:
            self._n_held -= 1
            self._n_done += not dropped
            self._n_dropped += dropped

    @property
    def flow(self) -> Flow:
        """What became of the items so far."""
        with self._change:
            n_waiting = sum(map(self._is_counted, self._items)) + self._n_held
            return Flow(self._n_in, self._n_done, self._n_dropped, n_waiting)

    def end(self, *, discard: bool = False) -> None:
        """Take nothing more; what is inside can still be had unless it is discarded."""
        with self._change:
            self._is_ended = True
            if discard:
                self._n_dropped += sum(map(self._is_counted, self._items))
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
        self._n_in += self._is_counted(item)
        self._change.notify_all()
        return True
