"""The send loop: from the journal to the broker, and nothing unheard.

One thread owns all of it. The publisher's callbacks, the store loop and the station only put events into its
queue; no lock is held while a message is handed over.
"""

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from device.journal import Journal, Row, StorageFullError
from device.messages import RETAINED, Info, State, Topics, canonical, payload
from device.publishers import Connected, Event, Lost, Message, Publisher, Received, Settled, Setup
from device.records import Health
from device.station.newest import latest_message
from device.station.outbox import Outbox

log = logging.getLogger(__name__)

_HEAD_S, _STATE_S = 30.0, 100.0
"""Retained messages are sent again after this, so that they never look stale."""
_STATE_EXPIRY_S = 300
_QUIET_S = 1.0
"""Least time between two heads or two states, however fast records come."""
_MARK_S, _MARK_ROWS = 1.0, 50
"""Acknowledged rows are marked in batches; a lost mark only means a duplicate."""
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
        self._info, self._state = info, state
        # Besides the publisher's events: a new state, a reply, the end of the drain, None for new rows.
        self._events: queue.SimpleQueue[Event | State | Message | float | None] = queue.SimpleQueue()
        self._hear, self._beat = hear, beat
        self._health, self._health_s, self._valid_s = health, health_s, valid_s
        self._note_code, self._clock = note_fault, clock
        self._codes: set[str] = set()  # of the faults that are there
        will, asked = self._availability("offline"), () if hear is None else (topics.of("cmd/#"),)
        self._publisher = make_publisher(Setup(client_id, will, self._events.put, asked))
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)
        self.error: Exception | None = None
        """What ended the loop before its time, if anything did."""
        self._window = 0
        self.outbox = Outbox(journal)
        """What is sent next; for `hear`, in this loop's thread."""
        self._under_way: dict[object, int | None] = {}
        self._retained: dict[str, Message] = {}
        self._replies: deque[Message] = deque(maxlen=_REPLIES)
        self._acknowledged: list[int] = []
        self._fault: str | None = None
        self._losses: set[str] = set()
        self._n_fruitless = 0
        self._refused_until = self._marked_at = 0.0
        self._head_at = self._state_at = self._health_at = float("-inf")
        self._n_connects = 0
        self._verdict: Row | None = None  # the newest handed over, until it is acknowledged
        self._is_changed = self._is_said = True
        self._drain_until: float | None = None

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
        return max(0, self._n_connects - 1)

    def end(self, drain_s: float) -> int:
        """Drain for at most `drain_s` seconds, part from the broker; return how many rows are unsent."""
        self._events.put(time.monotonic() + drain_s)
        self._thread.join(drain_s + 2 * _FAREWELL_S + 2.0)
        return self._journal.count_unsent()

    def _run(self) -> None:
        try:
            self._publisher.start()
            while not self._is_over():
                self._beat()
                self._take_events(timeout_s=0.2 if self._drain_until is None else 0.02)
                self._pump()
            self._say_farewell()
        except Exception as error:  # noqa: BLE001 - the loop's one net; the station reports it and ends
            self.error = error
        finally:
            self._publisher.close()

    def _take_events(self, *, timeout_s: float) -> None:
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
                self._retained[event.topic] = event
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
                self._state, self._is_said = event, True
            case None:
                self._is_changed = True
            case float():
                self._drain_until = event

    def _greet(self, window: int) -> None:
        """Begin a connection: birth, state, head, then online; whatever was under way is sent anew."""
        self._mark()
        self._tell("TLS_ERROR", is_there=False)
        self._n_connects += 1
        self._fault = None
        self._losses.clear()
        self._window = 1 if self._n_fruitless >= _FRUITLESS else window
        self.outbox.begin()
        self._refused_until = 0.0
        self._under_way.clear()
        self._retained = {}
        self._retain("info", canonical(payload(self._info)))
        self._retain_state()
        self._retain_health()
        self._retain_head()
        self._retained["availability"] = self._availability("online")

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
            self._acknowledged.append(seq)
            self._tell("BROKER_REFUSED", is_there=self.outbox.note_taken(seq))
            if self._verdict is not None and self._verdict.seq == seq:
                latest = latest_message(self._verdict, self._topics, self._valid_s, self._clock())
                if latest is not None:
                    self._retained["latest"] = latest

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
        """Send what is due, as far as the window allows."""
        now = time.monotonic()
        if (
            len(self._acknowledged) >= _MARK_ROWS
            or now - self._marked_at >= _MARK_S
            or self._drain_until is not None
        ):
            self._mark()
        if (self._is_said and now - self._state_at >= _QUIET_S) or now - self._state_at >= _STATE_S:
            self._retain_state()
        if (self._is_changed and now - self._head_at >= _QUIET_S) or now - self._head_at >= _HEAD_S:
            self._retain_head()
        if now - self._health_at >= self._health_s:
            self._retain_health()
        while self._retained and len(self._under_way) < self._window:
            leaf = next(iter(self._retained))
            if not self._hand_over(self._retained.pop(leaf), None):
                return
        while self._replies and self._window and self._publisher.send(self._replies[0]) is not None:
            self._replies.popleft()
        room = self._window - len(self._under_way)
        if room > 0 and now >= self._refused_until:
            skip = {seq for seq in self._under_way.values() if seq is not None} | set(self._acknowledged)
            for row in self.outbox.due(room):
                if row.seq not in skip:
                    message = Message(self._topics.of(row.leaf), row.message)
                    if not self._hand_over(message, row.seq):
                        return
                    newest = self._verdict.seq if self._verdict is not None else 0
                    if row.leaf == "verdict" and row.seq > newest and not row.is_set_aside:
                        self._verdict = row

    def _hand_over(self, message: Message, seq: int | None) -> bool:
        token = self._publisher.send(message)
        if token is None:
            # The connection is gone and its `Lost` is on the way; `Connected` starts over.
            self._window = 0
            return False
        self._under_way[token] = seq
        return True

    def _mark(self) -> None:
        self._marked_at = time.monotonic()
        if not self._acknowledged:
            return
        try:
            self._journal.mark_sent(self._acknowledged)
        except StorageFullError as error:
            self._note_fault(str(error))
            return
        self._acknowledged = []

    def _retain(self, leaf: str, body: bytes, expiry_s: int | None = None) -> None:
        self._retained.pop(leaf, None)
        self._retained[leaf] = Message(self._topics.of(leaf), body, leaf in RETAINED, expiry_s)

    def _retain_state(self) -> None:
        self._retain("state", canonical(payload(self._state)), _STATE_EXPIRY_S)
        self._state_at, self._is_said = time.monotonic(), False

    def _retain_health(self) -> None:
        if self._health is not None and self._window:
            body = canonical(payload(self._health(self.n_reconnects)))
            self._retain("health", body, math.ceil(3 * self._health_s))
            self._health_at = time.monotonic()

    def _retain_head(self) -> None:
        self._retain("head", canonical(payload(self._journal.head)))
        self._head_at, self._is_changed = time.monotonic(), False

    def _availability(self, word: str) -> Message:
        return Message(self._topics.of("availability"), word.encode(), retain=True, content_type="text/plain")

    def _is_over(self) -> bool:
        if self._drain_until is None:
            return False
        is_drained = not self._under_way and not self._acknowledged and self._journal.count_unsent() == 0
        return is_drained or time.monotonic() >= self._drain_until

    def _say_farewell(self) -> None:
        if not self._window:
            return
        self._retain_state()
        self._retain_health()
        self._retain_head()
        self._retained["availability"] = self._availability("stopped")
        self._refused_until = float("inf")
        deadline = time.monotonic() + _FAREWELL_S
        while (self._retained or self._under_way) and self._window and time.monotonic() < deadline:
            self._pump()
            self._take_events(timeout_s=0.02)
        self._mark()
