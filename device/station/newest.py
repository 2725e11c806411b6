"""What those who come late find: who the station is, how it is, its newest verdict and field.

They are retained messages. Each is sent anew before it looks stale, or vanishes instead.
"""

import json
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from device.journal import Journal, Row
from device.messages import OVERLAY, RETAINED, Info, State, Topics, payload
from device.messages.sealing import canonical
from device.publishers import Message
from device.records import Health, Latest

_HEAD_S, _STATE_S = 30.0, 100.0
"""Head and state are sent again after this."""
_STATE_EXPIRY_S = 300
_QUIET_S = 1.0
"""Least time between two heads or two states, however fast records come."""


class Newest:
    """The retained messages of a station that wait to be sent. Used by the send loop's thread alone.

    `health` tells how the station is, given how often it reconnected, every `health_s` seconds. A verdict
    holds for `valid_s` s by `clock`.
    """

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        info: Info,
        state: State,
        health: Callable[[int], Health] | None,
        health_s: float,
        *,
        valid_s: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._journal, self._topics = journal, topics
        self._info, self._state = info, state
        self._health, self._health_s = health, health_s
        self._valid_s, self._clock = valid_s, clock
        self._n_greeted = 0
        self._verdict: Row | None = None  # the newest sent, until it is acknowledged
        self._head_at = self._state_at = self._health_at = float("-inf")
        self._is_changed = self._is_said = True
        self.waiting: dict[str, Message] = {}
        """By the last part of the topic, or by all of it, in the order in which they are sent."""

    @property
    def n_reconnects(self) -> int:
        """How often the broker was reached again."""
        return max(0, self._n_greeted - 1)

    def greet(self) -> None:
        """Begin a connection: birth, state, head, and then online."""
        self.waiting, self._n_greeted = {}, self._n_greeted + 1
        self._say("info", canonical(payload(self._info)))
        self._say_all()
        self.waiting["availability"] = self.availability("online")

    def part(self) -> None:
        """Say the last words."""
        self._say_all()
        self.waiting["availability"] = self.availability("stopped")

    def note_stored(self) -> None:
        """Hear that the journal has new rows."""
        self._is_changed = True

    def note_state(self, state: State) -> None:
        """Hear what the station does now."""
        self._state, self._is_said = state, True

    def note_sent(self, row: Row) -> None:
        """Hear that a record is on its way."""
        is_newer = self._verdict is None or row.seq > self._verdict.seq
        if row.leaf == "verdict" and is_newer and not row.is_set_aside:
            self._verdict = row

    def note_taken(self, seq: int) -> None:
        """Hear that the broker took a record: the newest verdict becomes `latest`, unless it comes late."""
        if self._verdict is not None and self._verdict.seq == seq:
            latest = latest_message(self._verdict, self._topics, self._valid_s, self._clock())
            if latest is not None:
                self.waiting["latest"] = latest

    def look(self, now: float, *, is_connected: bool) -> None:
        """Take up what has changed, or is due again."""
        if (self._is_said and now - self._state_at >= _QUIET_S) or now - self._state_at >= _STATE_S:
            self._say_state()
        if (self._is_changed and now - self._head_at >= _QUIET_S) or now - self._head_at >= _HEAD_S:
            self._say_head()
        if is_connected and now - self._health_at >= self._health_s:
            self._say_health()

    def availability(self, word: str) -> Message:
        """Return the message that says whether the station is there."""
        return Message(self._topics.of("availability"), word.encode(), retain=True, content_type="text/plain")

    def _say_all(self) -> None:
        self._say_state()
        self._say_health()
        self._say_head()

    def _say_state(self) -> None:
        self._say("state", canonical(payload(self._state)), _STATE_EXPIRY_S)
        self._state_at, self._is_said = time.monotonic(), False

    def _say_health(self) -> None:
        if self._health is not None:
            self._say(
                "health", canonical(payload(self._health(self.n_reconnects))), math.ceil(3 * self._health_s)
            )
            self._health_at = time.monotonic()

    def _say_head(self) -> None:
        self._say("head", canonical(payload(self._journal.head)))
        self._head_at, self._is_changed = time.monotonic(), False

    def _say(self, leaf: str, body: bytes, expiry_s: int | None = None) -> None:
        self.waiting.pop(leaf, None)
        self.waiting[leaf] = Message(self._topics.of(leaf), body, leaf in RETAINED, expiry_s)


def latest_message(verdict: Row, topics: Topics, valid_s: float, now: datetime) -> Message | None:
    """Return the message on `latest` of a verdict that holds for `valid_s` s; None if it came too late."""
    values = json.loads(verdict.message)
    until = datetime.fromisoformat(values["ts"]) + timedelta(seconds=valid_s)
    # a clock that was set back must not make it last longer
    left_s = min(valid_s, (until - now).total_seconds())
    if left_s < 1:
        return None
    body = canonical(payload(Latest("latest/1", now + timedelta(seconds=left_s), values)))
    return Message(topics.of("latest"), body, retain=True, expiry_s=int(left_s))


def overlay_message(jpeg: bytes, topics: Topics, valid_s: float, *, ledger_id: str, seq: int) -> Message:
    """Return the message that shows the reading `seq` as a picture for `valid_s` s."""
    return Message(
        topics.of(OVERLAY),
        jpeg,
        retain=True,
        expiry_s=math.ceil(valid_s),
        content_type="image/jpeg",
        qos=0,
        user=(("ledger_id", ledger_id), ("seq", str(seq))),
    )
