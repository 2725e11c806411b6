"""The station: capture, analyse, store and send as four loops, joined by bounded queues and the journal.

    camera -> frames -> analyse -> readings -> store -> journal -> send -> broker

A frame becomes a reading, the reading a row of the journal together with the verdict it leads to, and the row
a message. An error in one frame gives an `invalid` reading; an error in a loop ends the station with
everything stored.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias

from device.calibration import in_use, outdated, station_scale
from device.cameras import Camera, LostFrame, is_live, open_camera
from device.cameras import Setup as CameraSetup
from device.cameras._process import ProcessCamera
from device.config import Config
from device.errors import JournalError, StationError
from device.journal import Journal, StorageFullError
from device.messages import State, Topics
from device.publishers import Received, open_publisher
from device.records import Frame, PlateWell, Reading, Reason
from device.service import Watchdog, clock_state, notify_systemd
from device.station.analysis import Analysis
from device.station.bench_commands import BenchCommands
from device.station.buffer import Buffer
from device.station.capture import Capture, Shot
from device.station.commands import NOTED, REMEMBERED, Desk
from device.station.health import Watch
from device.station.instruments import (
    Instruments,
    load_config,
    make_info,
    open_instruments,
    open_plate,
)
from device.station.monitor import Monitor
from device.station.newest import overlay_message
from device.station.orders import Order
from device.station.plate_commands import PlateCommands
from device.station.safe_mode import HEALTHY_S, Start, begun
from device.station.sender import Sender
from device.station.store import Records
from device.station.upkeep import UPKEEP_S, keep_up

__all__ = ["Instruments", "Station", "begun", "load_config", "open_instruments"]

log = logging.getLogger(__name__)

Read: TypeAlias = tuple[Shot, Reading | None]
"""A frame and what it gives; None where the camera has shown all, or the frame came too late."""

_FRAMES, _READINGS = 2, 8
"""Sizes of the two queues; a live frame waits for one other at most."""
_STOP_DRAIN_S = 1.0
"""On a signal the broker gets this long for what is on its way; the rest is sent at the next start."""
_JOIN_S = 5.0
SWITCH_S = 0.0005
"""A record that is stored must not wait 5 ms for the interpreter while a frame is analyzed."""
GIVE_WAY_S = 0.001
"""The store loop rests after a commit: what it does next would keep the interpreter from the send loop."""
_LATE_S = 30.0
"""A loop that has not turned for so long is told on `/healthz`; WatchdogSec of the shipped unit."""


class Station:
    """A running station of a configuration and a `version` of nanotox, which its birth message tells.

    Opening it checks everything: models (unless `instruments` come opened), journal, camera, publisher, in
    this order; StationError if any of it cannot be used. A live camera is opened later, as often as it takes.
    `start` tells whether it runs in safe mode, and hears that it runs well.
    """

    def __init__(
        self,
        config: Config,
        *,
        version: str,
        instruments: Instruments | None = None,
        start: Start | None = None,
    ) -> None:
        self._config, self._start, self._began = config, start, time.monotonic()
        tools = instruments or open_instruments(config)
        self._scale = station_scale(config)
        self._analysis = Analysis(tools)
        self._watchdog = Watchdog(("capture", "analyse", "store", "send"))
        beat = self._watchdog.beat
        self._frames: Buffer[Shot] = Buffer(_FRAMES, beat, lambda shot: shot.frame is not None)
        self._readings: Buffer[Read | Order] = Buffer(_READINGS, beat)
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._starts_anew = False
        self._mutex = threading.Lock()
        self._failure: Exception | None = None
        section, publisher = config.station, config.publisher
        self._topics = topics = Topics(
            section.site, section.name, getattr(publisher.settings, "prefix", "nanotox/v1")
        )
        with ExitStack() as opened:
            self._journal = journal = Journal(
                config.journal.path, site=section.site, station=section.name, clock_state=clock_state
            )
            opened.callback(journal.close)
            self._state = State("state/1", journal.boot_id, datetime.now(UTC), "idle", None)
            self._watch = Watch(
                journal,
                flow=lambda: self._frames.flow,
                n_reopens=lambda: max(0, self._capture.n_opens - 1),
                note_stored=lambda: self._sender.stored(),
            )
            wells = tools.plate.wells if tools.plate else ()
            live = is_live(config.camera.settings)
            waits = config.plate.wait and not live
            self._capture = Capture(
                config.camera.kind,
                None if waits else lambda: self._open_camera(wells),
                self._frames,
                self._note_fault,
                lambda: self._records.aim,
                live=live,
                beat=beat,
            )
            opened.callback(self._capture.close)
            self._sender = Sender(
                journal,
                topics,
                info=make_info(config, tools, journal, version),
                state=self._state,
                make_publisher=lambda setup: open_publisher(publisher.kind, publisher.settings, setup),
                client_id=f"nanotox-{section.name}",
                hear=self._hear if config.commands.accept else None,
                health=self._watch.health,
                health_s=section.health_s,
                valid_s=2 * section.period_s,
                note_fault=self._note_fault,
                beat=beat,
            )
            self._records = Records(
                journal,
                lambda plate, operator: open_plate(
                    config, tools.rule, plate, operator, live=self._capture.live
                ),
                frames=config.frames.path if config.frames.keep else None,
                calibrations=tuple(record.id for record in in_use(config)),
                note_stored=self._note_stored,
                note_fault=self._note_fault,
                stopping=self._stopping,
                beat=beat,
            )
            self._bench = BenchCommands(
                config,
                self._records,
                self._capture,
                journal,
                deliver=self._readings.put,
            )
            self._desk = Desk(
                topics,
                known=[body["transaction"] for _, body in journal.notes(*NOTED, limit=REMEMBERED)],
                answer=self._sender.reply,
                records=self._records,
                plates=PlateCommands(
                    self._records,
                    self._capture,
                    open_camera=self._open_camera,
                    note_plate=self._say_plate,
                    finish=self._finish_plate,
                ),
                bench=self._bench,
                restart=self._start_anew,
            )
            self._monitor = Monitor(
                config.http,
                site=section.site,
                station=section.name,
                health=lambda: self._watch.health(self._sender.n_reconnects),
                late=lambda: self._watchdog.late(_LATE_S),
                fault=lambda: self._watch.fault,
            )
            self._records.waits = False
            self._records.resume(tools.plate)
            opened.pop_all()

    def run(self, stop: threading.Event) -> bool:
        """Run until the camera ends or `stop` is set; return when all is stored and the broker has been left.

        Returns True where a command wants the station to be opened anew and run again. StationError if
        records are left unsent after the drain, or the reason why the station had to end.
        """
        loops = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
            for name, loop in (
                ("capture", self._capture.run),
                ("analyse", self._analyse),
                ("store", self._store),
                ("upkeep", self._keep_up),
            )
        ]
        if self._start and self._start.safe_mode:
            self._note_fault("SAFE_MODE", True)
        if old := outdated(self._config, datetime.now(UTC)):
            log.warning("%s; calibrate again", "; ".join(old))
            self._note_fault("CALIBRATION_OLD", True)
        try:
            self._journal.hold_room()
        except StorageFullError:
            self._records.lacks_room = True  # the store loop tells it, and waits
        self._records.waits = True
        self._say_plate()
        sys.setswitchinterval(SWITCH_S)
        self._sender.start()
        self._monitor.start()
        for loop in loops:
            loop.start()
        notify_systemd("READY=1", "STATUS=running")
        log.info("station %s/%s runs", self._config.station.site, self._config.station.name)
        try:
            while not self._finished.wait(0.05):
                self._watchdog.feed()
                if stop.is_set() or self._failure is not None or self._sender.error is not None:
                    break
                self._watch.look()
        finally:
            notify_systemd("RELOADING=1" if self._starts_anew else "STOPPING=1")
            self._stop(loops)
        is_brief = stop.is_set() or self._starts_anew
        n_unsent = self._part(is_brief=is_brief)
        if isinstance(self._failure, StationError):
            raise self._failure
        if self._failure is not None:
            raise StationError(
                "the station had to end, see the log; all that it stored is kept"
            ) from self._failure
        if n_unsent and not is_brief:
            raise JournalError(
                f"{n_unsent} records unsent, kept in {self._config.journal.path}; "
                "expected a broker, start the station again when it is there"
            )
        return self._starts_anew and not stop.is_set()

    def _stop(self, loops: list[threading.Thread]) -> None:
        """End the loops: the frame in work is finished and stored, frames behind it are not begun."""
        self._stopping.set()
        self._capture.close()
        self._frames.end(discard=True)
        for loop in loops:
            # One that hangs all the same is left behind; what is stored is stored.
            loop.join(_JOIN_S)

    def _part(self, *, is_brief: bool) -> int:
        """Leave the broker; return how many records are unsent."""
        self._watch.look(is_last=True)
        self._say(mode="idle")
        drain_s = self._config.journal.drain_s
        n_unsent = self._sender.end(min(drain_s, _STOP_DRAIN_S) if is_brief else drain_s)
        self._failure = self._failure or self._sender.error
        log.info(
            "station ends: %d fields, %d frames passed over",
            self._records.n_fields,
            self._frames.flow.n_dropped,
        )
        self._monitor.close()
        self._journal.close()
        return n_unsent

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a loop; the station ends with everything stored if it fails."""
        try:
            loop()
        except Exception as error:
            if not isinstance(error, StationError):
                log.exception("the station must end")
            self._failure = error
            self._frames.end(discard=True)
            self._readings.end(discard=True)

    # Analyse

    def _analyse(self) -> None:
        while (shot := self._frames.get()) is not None:
            is_stale = shot.run != self._records.aim.run and not self._capture.live
            reading = None if shot.frame is None or is_stale else self._analysis.read(shot.frame)
            if shot.frame is not None:
                self._frames.done(dropped=is_stale)
            if not self._readings.put((shot, reading)):
                return
        self._readings.end()

    # Store

    def _store(self) -> None:
        before, sha256 = self._journal.notes("start", limit=1), self._config.sha256
        if before and before[0][1].get("config_sha256") != sha256:
            log.warning("%s is not what it was at the last start", self._config.path)
        self._records.note("start", config_sha256=sha256, safe_mode=self._start and self._start.safe_mode)
        while not self._finished.is_set() and (item := self._readings.get()) is not None:
            if isinstance(item, Order):
                self._desk.carry_out(item)
                continue
            shot, reading = item
            if shot.frame is not None and reading is not None:
                reading = self._keep(shot.run, shot.frame, reading)
            elif shot.run == self._records.aim.run and not self._stopping.is_set():
                self._finish_plate()  # the camera has shown all; a plate that was broken off has no verdict
            else:
                continue
            if (rest := self._bench.see(shot.frame, reading, self._records.seq)) is not None:
                self._desk.carry_out(rest)
        self._desk.leave()

    def _start_anew(self) -> None:
        log.info("the station starts anew, as a command wants it")
        self._starts_anew = True
        self._finished.set()

    def _keep(self, run: int, frame: Frame | LostFrame, reading: Reading) -> Reading:
        try:
            stored = self._records.take(run, frame, reading)
        except ValueError as error:
            self._analysis.log_once(f"the reading of {reading.source} cannot be told", error)
            invalid = self._analysis.invalid(reading, Reason.ANALYSIS_FAILED)
            stored = self._records.take(run, frame, invalid)
        if self._config.station.overlay and (jpeg := self._analysis.picture(frame, stored)):
            ledger_id, valid_s = self._journal.ledger_id, 2 * self._config.station.period_s
            picture = overlay_message(jpeg, self._topics, valid_s, ledger_id=ledger_id, seq=self._records.seq)
            self._sender.reply(picture)
        planned = self._records.fields_planned(stored.well)
        self._say(well=stored.well, field=stored.field, fields_planned=planned)
        notify_systemd(f"STATUS={self._records.n_fields} fields, {self._frames.flow.n_dropped} passed over")
        return stored

    def _keep_up(self) -> None:
        while not self._stopping.wait(UPKEEP_S):
            keep_up(self._config, self._journal, clock_state())
            if self._start and time.monotonic() - self._began >= HEALTHY_S and self._start.prove():
                self._note_fault("SAFE_MODE", False)

    def _finish_plate(self) -> None:
        """Finish the plate, if one runs; without a live camera the station then waits for one, or ends."""
        self._records.finish()
        if not self._capture.live:
            self._capture.show(None, self._records.aim.run)
            if not self._config.plate.wait:
                self._finished.set()
        self._say_plate()

    def _open_camera(self, wells: tuple[PlateWell, ...]) -> Camera:
        section, camera = self._config.station, self._config.camera
        setup = CameraSetup(self._scale, section.assay, section.modality, wells)
        if is_live(camera.settings):
            return ProcessCamera(camera.kind, camera.settings, setup, beat=self._watchdog.beat)
        return open_camera(camera.kind, camera.settings, setup)

    # Send

    def _note_stored(self) -> None:
        self._sender.stored()
        time.sleep(GIVE_WAY_S)

    def _hear(self, received: Received) -> None:
        """Put what a command orders between two fields; called by the send loop."""
        order = self._desk.hear(received)
        if order is not None and order.name == "replay":
            self._desk.answer(order, self._sender.outbox.replay(order.args.from_seq, order.args.to_seq))
        elif order is not None and not self._readings.offer(order):
            self._desk.refuse_busy(order)

    def _say_plate(self) -> None:
        plate, well = self._records.plate, self._records.aim.well
        is_idle = plate is None and self._config.plate.wait and not self._capture.live
        self._say(
            mode="idle" if is_idle else "running",
            plate=None if plate is None else plate.plate,
            well=well,
            field=None,
            fields_planned=self._records.fields_planned(well),
        )

    def _note_fault(self, code: str, is_there: bool) -> None:
        self._watch.note(code, is_there)
        self._say()

    def _say(self, **changes: object) -> None:
        """Publish a change of the state; the loops call it from their threads."""
        with self._mutex:
            before = self._state
            now = {
                "n_fields": self._records.n_fields,
                "n_dropped": self._frames.flow.n_dropped,
                "fault": self._watch.fault,
            }
            self._state = replace(before, **now, **changes)  # type: ignore[arg-type]  # named by the callers
            if self._state == before:
                return
            self._state = replace(self._state, ts=datetime.now(UTC))
            self._sender.say(self._state)
