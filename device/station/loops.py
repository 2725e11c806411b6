"""The loops of a station but for its sender's: capture, analyse, store and upkeep, each in a thread."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from device.cameras import LostFrame
from device.config import Config
from device.errors import StationError
from device.journal import Journal
from device.messages import Topics
from device.publishers import Message
from device.records import Frame, Reading, Reason
from device.service import clock_state, notify_systemd
from device.station.analysis import Analysis
from device.station.bench_commands import BenchCommands
from device.station.buffer import Buffer
from device.station.capture import Capture, Shot
from device.station.commands import Desk
from device.station.newest import overlay_message
from device.station.orders import Order
from device.station.safe_mode import HEALTHY_S, Start
from device.station.store import Records
from device.station.telling import Teller
from device.station.upkeep import UPKEEP_S, keep_up

log = logging.getLogger(__name__)

Read: TypeAlias = tuple[Shot, Reading | None]
"""A frame and what it gives; None where the camera has shown all, or the frame came too late."""

_JOIN_S = 5.0


@dataclass(eq=False)
class Loops:
    """The loops, joined by `frames` and `readings`, and the parts of the station that they work with."""

    config: Config
    started: Start | None
    """Tells whether the station runs in safe mode, and hears that it runs well."""
    journal: Journal
    frames: Buffer[Shot]
    readings: Buffer[Read | Order]
    capture: Capture
    analysis: Analysis
    records: Records
    bench: BenchCommands
    desk: Desk
    teller: Teller
    show: Callable[[Message], None]
    """Publishes the overlay of a field."""
    topics: Topics
    stopping: threading.Event
    """Set by `stop`."""
    finished: threading.Event = field(default_factory=threading.Event)
    """Set where the station ends by itself."""
    failure: Exception | None = None
    """What ended a loop before its time, if anything did."""
    starts_anew: bool = False
    """Whether a command wants the station to be opened anew."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        loops = (
            ("capture", self.capture.run),
            ("analyse", self._analyse),
            ("store", self._store),
            ("upkeep", self._keep_up),
        )
        self._threads = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True) for name, loop in loops
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the loops: the frame in work is finished and stored, frames behind it are not begun."""
        self.stopping.set()
        self.capture.close()
        self.frames.end(discard=True)
        for thread in self._threads:
            # One that hangs all the same is left behind; what is stored is stored.
            thread.join(_JOIN_S)

    def start_anew(self) -> None:
        """End, so that the station is opened anew; for the desk."""
        log.info("the station starts anew, as a command wants it")
        self.starts_anew = True
        self.finished.set()

    def finish_plate(self) -> None:
        """Finish the plate, if one runs; without a live camera the station then waits for one, or ends."""
        self.records.finish()
        if not self.capture.live:
            self.capture.show(None, self.records.aim.run)
            if not self.config.plate.wait:
                self.finished.set()
        self.teller.say_plate()

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a loop; the station ends with everything stored if it fails."""
        try:
            loop()
        except Exception as error:
            if not isinstance(error, StationError):
                log.exception("the station must end")
            self.failure = error
            self.frames.end(discard=True)
            self.readings.end(discard=True)

    def _analyse(self) -> None:
        while (shot := self.frames.get()) is not None:
            is_stale = shot.run != self.records.aim.run and not self.capture.live
            reading = None if shot.frame is None or is_stale else self.analysis.read(shot.frame)
            if shot.frame is not None:
                self.frames.done(dropped=is_stale)
            if not self.readings.put((shot, reading)):
                return
        self.readings.end()

    def _store(self) -> None:
        before, sha256 = self.journal.notes("start", limit=1), self.config.sha256
        if before and before[0][1].get("config_sha256") != sha256:
            log.warning("%s is not what it was at the last start", self.config.path)
        self.records.note("start", config_sha256=sha256, safe_mode=self.started and self.started.safe_mode)
        while not self.finished.is_set() and (item := self.readings.get()) is not None:
            if isinstance(item, Order):
                self.desk.carry_out(item)
                continue
            shot, reading = item
            if shot.frame is not None and reading is not None:
                reading = self._keep(shot.run, shot.frame, reading)
            elif shot.run == self.records.aim.run and not self.stopping.is_set():
                self.finish_plate()  # the camera has shown all; a plate that was broken off has no verdict
            else:
                continue
            if (rest := self.bench.see(shot.frame, reading, self.records.seq)) is not None:
                self.desk.carry_out(rest)
        self.desk.leave()

    def _keep(self, run: int, frame: Frame | LostFrame, reading: Reading) -> Reading:
        try:
            stored = self.records.take(run, frame, reading)
        except ValueError as error:
            self.analysis.log_once(f"the reading of {reading.source} cannot be told", error)
            invalid = self.analysis.invalid(reading, Reason.ANALYSIS_FAILED)
            stored = self.records.take(run, frame, invalid)
        if self.config.station.overlay and (jpeg := self.analysis.picture(frame, stored)):
            ledger_id, valid_s = self.journal.ledger_id, 2 * self.config.station.period_s
            self.show(overlay_message(jpeg, self.topics, valid_s, ledger_id=ledger_id, seq=self.records.seq))
        planned = self.records.fields_planned(stored.well)
        self.teller.say(well=stored.well, field=stored.field, fields_planned=planned)
        notify_systemd(f"STATUS={self.records.n_fields} fields, {self.frames.flow.n_dropped} passed over")
        return stored

    def _keep_up(self) -> None:
        while not self.stopping.wait(UPKEEP_S):
            keep_up(self.config, self.journal, clock_state())
            if self.started and time.monotonic() - self._began >= HEALTHY_S and self.started.prove():
                self.teller.note_fault("SAFE_MODE", False)
