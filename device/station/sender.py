"""The send loop: from the journal to the broker, and nothing unheard.

One thread owns all of it. The publisher's callbacks, the store loop and the station only put events into its
queue; no lock is held while a message is handed over.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from device.journal import Journal, StorageFullError
from device.messages import Info, State, Topics
from device.publishers import Connected, Event, Lost, Message, Publisher, Received, Settled, Setup
from device.records import Health
from device.station.newest import Newest
from device.station.outbox import Outbox

log = logging.getLogger(__name__)

_FRUITLESS, _POISON = 3, 5
"""Connections that broke without one record taken: after so many records go one by one, and after so many
more the one at the head is set aside, because it may be what the broker breaks at."""
_REPLIES = 64
"""Most replies that wait for a broker; the oldest are forgotten."""
_FAREWELL_S = 2.0
"""Limit for the last words."""


class Sender:
    """The send loop: unsent rows of the journal are the outbox; `info` and `state` are said at birth.

    `make_publisher` opens the publisher with the set-up it gets; `client_id` is the identity towards the
    broker. `hear` takes commands in; it is called in this loop's thread and must not wait. Without it none
    are asked for. Every `health_s` seconds `health` tells how the station is, given the number of reconnects.
    A verdict holds for `valid_s` seconds. `note_fault` hears a code, and whether that fault is there.
    `beat` is called at every turn.
    """

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        *,
        info: Info,
        state: State,
        make_publisher: Callable[[Setup], Publisher],
        client_id: str,
        hear: Callable[[Received], None] | None = None,
        health: Callable[[int], Health] | None = None,
        health_s: float = 30.0,
        valid_s: float = 120.0,
        note_fault: Callable[[str, bool], None] = lambda *_: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal, self._topics = journal, topics
        # Besides the publisher's events: a new state, a reply, the end of the drain, None for new rows.
        self._events: queue.SimpleQueue[Event | State | Message | float | None] = queue.SimpleQueue()
        self._hear, self._beat = hear, beat
        self._note_code = note_fault
        self._codes: set[str] = set()  # of the faults that are there
        self._newest = Newest(journal, topics, info, state, health, health_s, valid_s=valid_s, clock=clock)
        will, asked = self._newest.availability("offline"), () if hear is None else (topics.of("cmd/#"),)
        self._publisher = make_publisher(Setup(client_id, will, self._events.put, asked))
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)
        self.error: Exception | None = None
        """What ended the loop before its time, if anything did."""
        self._window = 0
        self.outbox = Outbox(journal)
        """What is sent next; for `hear`, in this loop's thread."""
        self._under_way: dict[object, int | None] = {}
        self._replies: deque[Message] = deque(maxlen=_REPLIES)
        self._fault: str | None = None
        self._losses: set[str] = set()
        self._n_fruitless = 0
        self._refused_until = 0.0
        self._drain_until: float | None = None
        self._parted_at: float | None = None  # end of the last words, from when they are said

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stored(self) -> None:
        """Hear that the journal has new rows."""
        self._events.put(None)

    def say(self, state: State) -> None:
        """Publish what the station does now."""
        self._events.put(state)

    def reply(self, message: Message) -> None:
        """Publish the answer to a command, once, if there is a broker; of retained pictures the newest."""
        self._events.put(message)

    @property
    def n_reconnects(self) -> int:
        """How often the broker was reached again."""
        return self._newest.n_reconnects

    def part(self, drain_s: float) -> None:
        """Part from the broker when all is sent, after `drain_s` seconds at the latest."""
        self._events.put(time.monotonic() + drain_s)

    def end(self, drain_s: float) -> int:
        """Part, and wait for it; return how many rows are unsent."""
        self.part(drain_s)
        self._thread.join(drain_s + 2 * _FAREWELL_S + 2.0)
        return self._journal.count_unsent()

    def step(self, timeout_s: float) -> bool:
        """Send what is due once something happens or `timeout_s` is over; return False when it has parted.

        The thread does nothing else; who has many senders calls it instead of `start`.
        """
        can_send = bool(self._newest.waiting) and len(self._under_way) < self._window
        self._take_events(0.0 if can_send else timeout_s)
        self._pump()
        if self._parted_at is None and self._is_drained():
            self._say_farewell()
            self._pump()
        if self._parted_at is None or (
            self._window and (self._newest.waiting or self._under_way) and time.monotonic() < self._parted_at
        ):
            return True
        self._mark()
        return False

    def _run(self) -> None:
        try:
            self._publisher.start()
            while self.step(0.2 if self._drain_until is None else 0.02):
                self._beat()
        except Exception as error:  # noqa: BLE001 - the loop's one net; the station reports it and ends
            self.error = error
        finally:
            self._publisher.close()

    def _take_events(self, timeout_s: float) -> None:
        try:
            self._take(self._events.get(timeout=timeout_s))
            while True:
                self._take(self._events.get_nowait())
        except queue.Empty:
            pass

    def _take(self, event: Event | State | Message | float | None) -> None:
        match event:
            case Connected():
                log.info("broker connected, %d records to send", self._journal.count_unsent())
                self._greet(event.window)
                if event.refused is not None:
                    log.warning("no commands: the broker refuses to hand them over (%s)", event.refused)
            case Received():
                if self._hear is not None:
                    self._mark()  # a replay gives what is acknowledged
                    self._hear(event)
            case Message(retain=True):
                self._newest.waiting[event.topic] = event
            case Message():
                self._replies.append(event)
            case Lost():
                self._window = 0
                if event.fault is not None:
                    self._tell(event.fault, is_there=True)
                self._look_for_poison()
                self._note_loss(event.detail)
            case Settled():
                self._settle(event)
            case State():
                self._newest.note_state(event)
            case None:
                self._newest.note_stored()
            case float():
                self._drain_until = event

    def _greet(self, window: int) -> None:
        """Begin a connection: birth, state, head, then online; whatever was under way is sent anew."""
        self._mark()
        self._tell("TLS_ERROR", is_there=False)
        self._fault = None
        self._losses.clear()
        self._window = 1 if self._n_fruitless >= _FRUITLESS else window
        self.outbox.begin()
        self._refused_until = 0.0
        self._under_way.clear()
        self._newest.greet()

    def _settle(self, event: Settled) -> None:
        is_reply = event.token not in self._under_way
        seq = self._under_way.pop(event.token, None)
        if event.failure is not None and is_reply:
            log.warning("the broker refuses a reply: %s; check its access list for reply/#", event.failure)
        elif event.failure is not None:
            self._note_fault(
                f"the broker refuses a message: {event.failure}; check its access list for this station"
            )
            self._tell("BROKER_REFUSED", is_there=True)
            if seq is not None:
                self.outbox.hold_back(seq)
        elif seq is not None:
            self._n_fruitless = 0
            self._tell("BROKER_REFUSED", is_there=self.outbox.note_taken(seq))
            self._newest.note_taken(seq)

    def _tell(self, code: str, *, is_there: bool) -> None:
        if is_there != (code in self._codes):
            self._codes ^= {code}
            self._note_code(code, is_there)

    def _look_for_poison(self) -> None:
        """Count connections that broke over a record, and in the end set that record aside."""
        under_way = [seq for seq in self._under_way.values() if seq is not None]
        self._under_way.clear()
        if not under_way:
            return
        self._n_fruitless += 1
        if self._n_fruitless >= _FRUITLESS + _POISON:
            try:
                self._journal.set_aside(under_way[0])
            except StorageFullError as error:
                self._note_fault(str(error))
                return
            self._n_fruitless = 0
            log.error("record %d breaks every connection; a stub is sent, the journal keeps it", under_way[0])

    def _note_loss(self, detail: str) -> None:
        """Log an outage once; whatever else is wrong while it lasts is one line each."""
        if detail not in self._losses:
            more = "broker still away: %s"
            first = "no broker: %s; records are kept and sent when it is back"
            log.warning(more if self._losses else first, detail)
            self._losses.add(detail)

    def _note_fault(self, fault: str) -> None:
        """Log a fault once, not each time it is met again."""
        if fault != self._fault:
            log.warning("%s", fault)
        self._fault = fault

    def _pump(self) -> None:
        """Send what is due, as far as the window allows; records wait for nothing that can wait."""
        now, retained = time.monotonic(), self._newest.waiting
        while retained and len(self._under_way) < self._window:
            if not self._hand_over(retained.pop(next(iter(retained))), None):
                return
        while self._replies and self._window and self._publisher.send(self._replies[0]) is not None:
            self._replies.popleft()
        if now >= self._refused_until and not self._send_records(self._window - len(self._under_way)):
            return
        # What follows can be a sync of the disk, or goes before records at the next turn.
        if self.outbox.is_mark_due or self._drain_until is not None:
            self._mark()
        self._newest.look(now, is_connected=self._window > 0)

    def _send_records(self, room: int) -> bool:
        """Send at most `room` records; return False if the connection is gone."""
        under_way = set(self._under_way.values())
        for row in self.outbox.due(room):
            if row.seq not in under_way:
                if not self._hand_over(Message(self._topics.of(row.leaf), row.message), row.seq):
                    return False
                self._newest.note_sent(row)
        return True

    def _hand_over(self, message: Message, seq: int | None) -> bool:
        token = self._publisher.send(message)
        if token is None:
            # The connection is gone and its `Lost` is on the way; `Connected` starts over.
            self._window = 0
            return False
        self._under_way[token] = seq
        return True

    def _mark(self) -> None:
        try:
            self.outbox.mark()
        except StorageFullError as error:
            self._note_fault(str(error))

    def _is_drained(self) -> bool:
        if self._drain_until is None:
            return False
        is_all_sent = not self._under_way and self._journal.count_unsent() == 0
        return is_all_sent or time.monotonic() >= self._drain_until

    def _say_farewell(self) -> None:
        self._parted_at = time.monotonic() + _FAREWELL_S
        self._newest.part()
        self._refused_until = float("inf")
