"""What a station says of itself: how it is, and each condition when it begins and when it is over."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from device.journal import Journal, StorageFullError
from device.records import Alert, ClockState, Health
from device.service import Machine, clock_state, read_machine
from device.station.buffer import Flow

log = logging.getLogger(__name__)

CONDITIONS = {
    "CAMERA_LOST": "no frames come; the camera is opened again until it is back; check its cable",
    "FROZEN_FRAME": "the camera gives the same frame again and again; check it, or start the station anew",
    "STORAGE_FULL": "no room for records, and no verdict until there is; make room on the journal's disk",
    "FRAMES_NOT_KEPT": "frames cannot be kept; make room in frames.path, or let it be written",
    "BROKER_REFUSED": "the broker refuses this station or its records; check password and access list",
    "TLS_ERROR": "TLS to the broker fails, all is kept; see certificates, names and dates by nanotox doctor",
    "CLOCK_UNSYNCED": "no time server has set the clock; times may be wrong, order by seq",
    "CALIBRATION_OLD": "the scale or the flat field was measured long ago; run nanotox calibrate",
    "SAFE_MODE": "it crashed again and again and runs with what last ran well; see nanotox doctor",
    "UNDER_VOLTAGE": "the processor gets too little voltage; use a stronger supply",
    "THROTTLED": "the processor is slowed down, it is too warm or gets too little voltage; cool it",
}
"""Every condition that is told, with what to do."""
_OTHER = "see the log of the station"
_OF_MACHINE = {"CLOCK_UNSYNCED", "UNDER_VOLTAGE", "THROTTLED"}
"""Conditions under which a station still does all that it should; they are no fault of its state."""

_LOOK_S = 5.0
"""Time between two looks at the machine."""
_SETTLED_S = 60.0
"""A condition is over when it was not met for this long; longer than the wait after a broker's refusal, so
that one which comes and goes is told once."""
_CLOCK_S = 120.0
"""A Pi without a clock of its own may take this long after a start to ask a time server."""


@dataclass(slots=True)
class _Condition:
    since: datetime
    gone_at: float | None = None
    """When it was last seen to be over, on the monotonic clock; None while it is there."""


class Watch:
    """Conditions and health of a station. Every method may be called from any thread.

    `flow` tells what became of the frames, `n_reopens` how often the camera was opened again; `note_stored`
    hears that the journal has a new row. The other arguments stand in for the machine in tests.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        flow: Callable[[], Flow],
        n_reopens: Callable[[], int],
        note_stored: Callable[[], None],
        machine: Callable[[], Machine] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_state: Callable[[], ClockState] = clock_state,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._flow, self._n_reopens = journal, flow, n_reopens
        self._note_stored = note_stored
        self._machine = machine or (lambda: read_machine(journal.path.parent))
        self._clock, self._clock_state, self._monotonic = clock, clock_state, monotonic
        self._mutex = threading.Lock()
        self._conditions: dict[str, _Condition] = {}
        self._untold: deque[Alert] = deque()
        self._began = monotonic()
        self._look_at = self._began

    @property
    def fault(self) -> str | None:
        """Code of the newest condition that keeps the station from its work; None without one."""
        # No lock: it is held while an alert is stored, and a probe must not wait for a disk that hangs.
        there = [code for code, found in self._conditions.copy().items() if found.gone_at is None]
        return next((code for code in reversed(there) if code not in _OF_MACHINE), None)

    def note(self, code: str, is_there: bool) -> None:
        """Hear whether a condition is there; JournalError if the journal cannot be trusted any more."""
        with self._mutex:
            found = self._conditions.get(code)
            if is_there and found is None:
                self._conditions[code] = found = _Condition(self._clock())
                if code in _OF_MACHINE:
                    log.warning("%s: %s", code, CONDITIONS[code])
                self._untold.append(Alert(code, True, CONDITIONS.get(code, _OTHER), found.since))
            elif found is not None and is_there:
                found.gone_at = None
            elif found is not None and found.gone_at is None:
                found.gone_at = self._monotonic()
            self._tell()

    def look(self, *, is_last: bool = False) -> None:
        """Look at the machine if it is time, and tell what is over; the `last` look waits for nothing."""
        now = self._monotonic()
        if now < self._look_at and not is_last:
            return
        self._look_at = now + _LOOK_S
        throttled = self._machine().throttled or ()
        for code in ("UNDER_VOLTAGE", "THROTTLED"):
            self.note(code, code in throttled)
        self.note("CLOCK_UNSYNCED", self._clock_state() == "unsynced" and now - self._began >= _CLOCK_S)
        with self._mutex:
            for code, found in list(self._conditions.items()):
                if found.gone_at is not None and (is_last or now - found.gone_at >= _SETTLED_S):
                    del self._conditions[code]
                    self._untold.append(Alert(code, False, CONDITIONS.get(code, _OTHER), found.since))
            self._tell()

    def health(self, n_reconnects: int) -> Health:
        """Return how the station is now."""
        machine, flow, now = self._machine(), self._flow(), self._clock()
        oldest = self._journal.unsent(1)
        stored_at = datetime.fromisoformat(json.loads(oldest[0].message)["ts"]) if oldest else None
        with self._mutex:
            alerts = tuple(self._conditions)
        return Health(
            schema="health/1",
            boot_id=self._journal.boot_id,
            ts=now,
            clock_state=self._clock_state(),
            alerts=alerts,
            n_unsent=self._journal.count_unsent(),
            # a clock that was set back must not make an age negative
            oldest_unsent_s=None if stored_at is None else max(0.0, (now - stored_at).total_seconds()),
            n_captured=flow.n_in,
            n_analyzed=flow.n_done,
            n_dropped=flow.n_dropped,
            n_waiting=flow.n_waiting,
            n_camera_reopens=self._n_reopens(),
            n_reconnects=n_reconnects,
            **machine._asdict(),
        )

    def _tell(self) -> None:
        """Store what is not told yet; what finds no room waits for the next call."""
        while self._untold:
            try:
                self._journal.append(self._untold[0])
            except StorageFullError:
                return
            self._untold.popleft()
            self._note_stored()
