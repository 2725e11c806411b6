"""The station: capture, analyse, store and send as four loops, joined by bounded queues and the journal.

    camera -> frames -> analyse -> readings -> store -> journal -> send -> broker

A frame becomes a reading, the reading a row of the journal together with the verdict it leads to, and the row
a message. An error in one frame gives an `invalid` reading; an error in a loop ends the station with
everything stored.
"""

import logging
import sys
import threading
from contextlib import ExitStack
from datetime import UTC, datetime

from device.calibration import in_use, outdated, station_scale
from device.cameras import Camera, is_live, open_camera
from device.cameras import Setup as CameraSetup
from device.cameras._process import ProcessCamera
from device.config import Config
from device.errors import JournalError, StationError
from device.journal import Journal, StorageFullError
from device.messages import Topics
from device.publishers import Received, open_publisher
from device.records import PlateWell
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
from device.station.loops import Loops, Read
from device.station.monitor import Monitor
from device.station.orders import Order
from device.station.plate_commands import PlateCommands
from device.station.safe_mode import Start, begun
from device.station.sender import Sender
from device.station.store import Records
from device.station.telling import Teller

__all__ = ["Instruments", "Station", "begun", "load_config", "open_instruments"]

log = logging.getLogger(__name__)

_FRAMES, _READINGS = 2, 8
"""Sizes of the two queues; a live frame waits for one other at most."""
_STOP_DRAIN_S = 1.0
"""On a signal the broker gets this long for what is on its way; the rest is sent at the next start."""
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
        self._config, self._start = config, start
        tools = instruments or open_instruments(config)
        self._scale = station_scale(config)
        self._analysis = analysis = Analysis(tools)
        self._watchdog = Watchdog(("capture", "analyse", "store", "send"))
        beat = self._watchdog.beat
        self._frames: Buffer[Shot] = Buffer(_FRAMES, beat, lambda shot: shot.frame is not None)
        self._readings: Buffer[Read | Order] = Buffer(_READINGS, beat)
        self._stopping = threading.Event()
        section, publisher = config.station, config.publisher
        topics = Topics(section.site, section.name, getattr(publisher.settings, "prefix", "nanotox/v1"))
        with ExitStack() as opened:
            self._journal = journal = Journal(
                config.journal.path, site=section.site, station=section.name, clock_state=clock_state
            )
            opened.callback(journal.close)
            self._watch = Watch(
                journal,
                flow=lambda: self._frames.flow,
                n_reopens=lambda: max(0, self._capture.n_opens - 1),
                note_stored=lambda: self._sender.stored(),
            )
            wells = tools.plate.wells if tools.plate else ()
            live = is_live(config.camera.settings)
            waits = config.plate.wait and not live
            self._teller = teller = Teller(
                journal.boot_id,
                self._watch,
                flow=lambda: self._frames.flow,
                records=lambda: self._records,
                waits=waits,
                send=lambda state: self._sender.say(state),
            )
            self._capture = Capture(
                config.camera.kind,
                None if waits else lambda: self._open_camera(wells),
                self._frames,
                teller.note_fault,
                lambda: self._records.aim,
                live=live,
                beat=beat,
            )
            opened.callback(self._capture.close)
            self._sender = Sender(
                journal,
                topics,
                info=make_info(config, tools, journal, version),
                state=teller.state,
                make_publisher=lambda setup: open_publisher(publisher.kind, publisher.settings, setup),
                client_id=f"nanotox-{section.name}",
                hear=self._hear if config.commands.accept else None,
                health=self._watch.health,
                health_s=section.health_s,
                valid_s=2 * section.period_s,
                note_fault=teller.note_fault,
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
                note_fault=teller.note_fault,
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
                    note_plate=teller.say_plate,
                    finish=lambda: self._loops.finish_plate(),
                ),
                bench=self._bench,
                restart=lambda: self._loops.start_anew(),
            )
            self._loops = Loops(
                config=config,
                started=start,
                journal=journal,
                frames=self._frames,
                readings=self._readings,
                capture=self._capture,
                analysis=analysis,
                records=self._records,
                bench=self._bench,
                desk=self._desk,
                teller=teller,
                show=self._sender.reply,
                topics=topics,
                stopping=self._stopping,
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
        loops, teller = self._loops, self._teller
        if self._start and self._start.safe_mode:
            teller.note_fault("SAFE_MODE", True)
        if old := outdated(self._config, datetime.now(UTC)):
            log.warning("%s; calibrate again", "; ".join(old))
            teller.note_fault("CALIBRATION_OLD", True)
        try:
            self._journal.hold_room()
        except StorageFullError:
            self._records.lacks_room = True  # the store loop tells it, and waits
        self._records.waits = True
        teller.say_plate()
        sys.setswitchinterval(SWITCH_S)
        self._sender.start()
        self._monitor.start()
        loops.start()
        notify_systemd("READY=1", "STATUS=running")
        log.info("station %s/%s runs", self._config.station.site, self._config.station.name)
        try:
            while not loops.finished.wait(0.05):
                self._watchdog.feed()
                if stop.is_set() or loops.failure is not None or self._sender.error is not None:
                    break
                self._watch.look()
        finally:
            notify_systemd("RELOADING=1" if loops.starts_anew else "STOPPING=1")
            loops.stop()
        is_brief = stop.is_set() or loops.starts_anew
        n_unsent = self._part(is_brief=is_brief)
        failure = loops.failure or self._sender.error
        if isinstance(failure, StationError):
            raise failure
        if failure is not None:
            raise StationError("the station had to end, see the log; all that it stored is kept") from failure
        if n_unsent and not is_brief:
            raise JournalError(
                f"{n_unsent} records unsent, kept in {self._config.journal.path}; "
                "expected a broker, start the station again when it is there"
            )
        return loops.starts_anew and not stop.is_set()

    def _part(self, *, is_brief: bool) -> int:
        """Leave the broker; return how many records are unsent."""
        self._watch.look(is_last=True)
        self._teller.say(mode="idle")
        drain_s = self._config.journal.drain_s
        n_unsent = self._sender.end(min(drain_s, _STOP_DRAIN_S) if is_brief else drain_s)
        log.info(
            "station ends: %d fields, %d frames passed over",
            self._records.n_fields,
            self._frames.flow.n_dropped,
        )
        self._monitor.close()
        self._journal.close()
        return n_unsent

    def _open_camera(self, wells: tuple[PlateWell, ...]) -> Camera:
        section, camera = self._config.station, self._config.camera
        setup = CameraSetup(self._scale, section.assay, section.modality, wells)
        if is_live(camera.settings):
            return ProcessCamera(camera.kind, camera.settings, setup, beat=self._watchdog.beat)
        return open_camera(camera.kind, camera.settings, setup)

    def _note_stored(self) -> None:
        self._sender.stored()
        self._stopping.wait(GIVE_WAY_S)  # not `time.sleep`, which hangs in tests that make the clock jump

    def _hear(self, received: Received) -> None:
        """Put what a command orders between two fields; called by the send loop."""
        order = self._desk.hear(received)
        if order is not None and order.name == "replay":
            self._desk.answer(order, self._sender.outbox.replay(order.args.from_seq, order.args.to_seq))
        elif order is not None and not self._readings.offer(order):
            self._desk.refuse_busy(order)
