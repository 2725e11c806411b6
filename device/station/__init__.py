"""The station: capture, analyse, store and send as four loops, joined by bounded queues and the journal.

    camera -> frames -> analyse -> readings -> store -> journal -> send -> broker

A frame becomes a reading, the reading a row of the journal together with the verdict it leads to, and the row
a message. An error in one frame gives an `invalid` reading; an error in a loop ends the station with
everything stored.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from device.analysis import plate_state
from device.analysis.assess import assess, refuse
from device.analysis.plate_state import PlateState
from device.analysis.repeats import refuse_repeat
from device.cameras import LostFrame, open_camera
from device.cameras import Setup as CameraSetup
from device.config import Config
from device.errors import JournalError, StationError
from device.journal import Journal
from device.messages import LEAVES, Info, State, Topics
from device.publishers import open_publisher
from device.records import Frame, Reading, Reason, Scale
from device.service import clock_state, notify_systemd
from device.station.buffer import Buffer
from device.station.capture import Capture
from device.station.instruments import Instruments, load_config, open_instruments
from device.station.sender import Sender
from device.station.store import Records

__all__ = ["Instruments", "Station", "load_config", "open_instruments"]

log = logging.getLogger(__name__)

_FRAMES, _READINGS = 2, 8
"""Sizes of the two queues; a live frame waits for one other at most."""
_STOP_DRAIN_S = 1.0
"""On a signal the broker gets this long for what is on its way; the rest is sent at the next start."""
_JOIN_S = 5.0


class Station:
    """A running station of a configuration and a `version` of nanotox, which its birth message tells.

    Opening it checks everything: models (unless `instruments` come opened), journal, camera, publisher, in
    this order; StationError if any of it cannot be used.
    """

    def __init__(self, config: Config, *, version: str, instruments: Instruments | None = None) -> None:
        self._config = config
        self._tools = tools = instruments or open_instruments(config)
        self._frames: Buffer[Frame | LostFrame] = Buffer(_FRAMES)
        self._readings: Buffer[Reading] = Buffer(_READINGS)
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._mutex = threading.Lock()
        self._failure: Exception | None = None
        self._known_faults: set[str] = set()
        self._before: Reading | None = None
        self._field_model = tools.classify_field.id if tools.classify_field is not None else None
        section, camera = config.station, config.camera
        setup = CameraSetup(
            Scale(config.scale.um_per_px, config.scale.source),
            section.assay,
            section.modality,
            tools.plate.wells if tools.plate else (),
        )
        with ExitStack() as opened:
            self._journal = Journal(
                config.journal.path, site=section.site, station=section.name, clock_state=clock_state
            )
            opened.callback(self._journal.close)
            plate = tools.plate.name if tools.plate else None
            self._state = State("state/1", self._journal.boot_id, datetime.now(UTC), "idle", plate)
            self._capture = Capture(
                camera.kind,
                lambda: open_camera(camera.kind, camera.settings, setup),
                self._frames,
                lambda is_lost: self._say(fault=Reason.CAMERA_LOST.value if is_lost else None),
            )
            opened.callback(self._capture.close)
            self._sender = self._make_sender(version)
            self._records = Records(
                self._journal,
                self._start_plate(),
                note_stored=self._sender.stored,
                note_full=lambda is_full: self._say(fault="STORAGE_FULL" if is_full else None),
                stopping=self._stopping,
            )
            opened.pop_all()

    def run(self, stop: threading.Event) -> None:
        """Run until the camera ends or `stop` is set; return when all is stored and the broker has been left.

        StationError if records are left unsent after the drain, or the reason why the station had to end.
        """
        loops = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
            for name, loop in (
                ("capture", self._capture.run),
                ("analyse", self._analyse),
                ("store", self._store),
            )
        ]
        self._journal.note("start", config_sha256=_sha256(self._config.path))
        self._sender.start()
        self._say(mode="running")
        for loop in loops:
            loop.start()
        notify_systemd("READY=1", "STATUS=running")
        log.info("station %s/%s runs", self._config.station.site, self._config.station.name)
        try:
            while not self._finished.wait(0.05):
                if stop.is_set() or self._failure is not None or self._sender.error is not None:
                    break
        finally:
            notify_systemd("STOPPING=1")
            self._stop(loops)
        n_unsent = self._part(stop)
        if isinstance(self._failure, StationError):
            raise self._failure
        if self._failure is not None:
            raise StationError(
                "the station had to end, see the log; all that it stored is kept"
            ) from self._failure
        if n_unsent and not stop.is_set():
            raise JournalError(
                f"{n_unsent} records unsent, kept in {self._config.journal.path}; "
                "expected a broker, start the station again when it is there"
            )

    def _stop(self, loops: list[threading.Thread]) -> None:
        """End the loops: the frame in work is finished and stored, frames behind it are not begun."""
        self._stopping.set()
        self._capture.close()
        if not self._finished.is_set():
            self._frames.end(discard=True)
        for loop in loops:
            # A camera that hangs keeps its thread; the others end by themselves.
            loop.join(_JOIN_S)

    def _part(self, stop: threading.Event) -> int:
        """Leave the broker; return how many records are unsent."""
        self._say(mode="idle")
        drain_s = self._config.journal.drain_s
        n_unsent = self._sender.end(min(drain_s, _STOP_DRAIN_S) if stop.is_set() else drain_s)
        self._failure = self._failure or self._sender.error
        log.info(
            "station ends: %d fields, %d frames passed over", self._records.n_fields, self._frames.n_dropped
        )
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
        while (frame := self._frames.get()) is not None:
            if not self._readings.put(self._read(frame)):
                return
        self._readings.end()

    def _read(self, frame: Frame | LostFrame) -> Reading:
        """Return the reading of a frame: `invalid` for one that is lost or whose analysis fails."""
        if isinstance(frame, LostFrame):
            if frame.reason is not Reason.CAMERA_LOST:
                log.warning("%s", frame.detail)
            return self._invalid(frame, frame.reason)
        tools = self._tools
        try:
            reading = assess(frame, tools.classify, tools.settings, classify_field=tools.classify_field)
        except Exception as error:  # noqa: BLE001 - one frame must not end the station; the default is invalid
            self._log_once(f"analysis of {frame.source} failed", error)
            return self._invalid(frame, Reason.ANALYSIS_FAILED)
        reading = refuse_repeat(reading, self._before, live=self._capture.live)
        self._before = reading if reading.quality.passed else self._before  # the last accepted field
        return reading

    def _invalid(self, found: Frame | LostFrame | Reading, reason: Reason) -> Reading:
        if not isinstance(found, Frame):
            found = Frame(
                np.zeros((0, 0), np.uint8),
                found.taken_at,
                found.source,
                found.sequence,
                well=found.well,
                field=found.field,
                simulated=found.simulated,
            )
        reading = refuse(found, reason, self._tools.classify, self._tools.settings)
        return replace(reading, field_model=self._field_model)

    def _log_once(self, what: str, error: Exception) -> None:
        key = f"{type(error).__name__}: {error}"
        if key in self._known_faults:
            log.debug("%s again: %s", what, key)
        else:
            self._known_faults.add(key)
            log.error("%s", what, exc_info=error)

    # Store

    def _store(self) -> None:
        while (reading := self._readings.get()) is not None:
            try:
                self._records.take(reading)
            except ValueError as error:
                self._log_once(f"the reading of {reading.source} cannot be told", error)
                self._records.take(self._invalid(reading, Reason.ANALYSIS_FAILED))
            self._say(well=reading.well, field=reading.field)
            notify_systemd(f"STATUS={self._records.n_fields} fields, {self._frames.n_dropped} passed over")
        # A plate that was broken off has no final verdict.
        if not self._stopping.is_set() and self._failure is None:
            self._records.finish()
            self._finished.set()

    def _start_plate(self) -> PlateState | None:
        section, tools = self._config.station, self._tools
        if tools.plate is not None:
            return plate_state.start(
                tools.plate.wells,
                tools.rule,
                plate=tools.plate.name,
                assay=section.assay,
                modality=section.modality,
                method=section.method,
                live=self._capture.live,
            )
        if self._capture.live:
            return plate_state.start_live(
                tools.rule, assay=section.assay, modality=section.modality, method=section.method
            )
        return None

    # Send

    def _make_sender(self, version: str) -> Sender:
        config, tools = self._config, self._tools
        section, publisher = config.station, config.publisher
        info = Info(
            schema="info/1",
            site=section.site,
            station=section.name,
            boot_id=self._journal.boot_id,
            ledger_id=self._journal.ledger_id,
            version=version,
            started_at=datetime.now(UTC),
            assay=section.assay,
            modality=section.modality,
            method=section.method,
            cell_model=tools.classify.id,
            field_model=self._field_model,
            rule=tools.rule.id,
            camera=config.camera.kind,
            um_per_px=config.scale.um_per_px,
            um_per_px_source=config.scale.source,
            config_sha256=_sha256(config.path),
            capabilities=tuple(LEAVES.values()),
        )
        prefix = getattr(publisher.settings, "prefix", "nanotox/v1")
        return Sender(
            self._journal,
            Topics(section.site, section.name, prefix),
            info=info,
            state=self._state,
            make_publisher=lambda setup: open_publisher(publisher.kind, publisher.settings, setup),
            client_id=f"nanotox-{section.name}",
        )

    def _say(self, **changes: object) -> None:
        """Publish a change of the state; the loops call it from their threads."""
        with self._mutex:
            before = self._state
            counts = {"n_fields": self._records.n_fields, "n_dropped": self._frames.n_dropped}
            self._state = replace(before, ts=before.ts, **counts, **changes)  # type: ignore[arg-type]  # named by the callers
            if self._state == before:
                return
            self._state = replace(self._state, ts=datetime.now(UTC))
            self._sender.say(self._state)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
