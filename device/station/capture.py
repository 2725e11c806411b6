"""The capture loop: from the camera into the frame queue, and back to the camera when it is lost."""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from device.cameras import Camera, LostFrame
from device.errors import CameraError
from device.records import Frame, Reading, Reason
from device.station.buffer import Buffer

log = logging.getLogger(__name__)

_REOPEN_S = (0.5, 5.0)
"""First and longest wait before a lost camera is opened again."""


class Aim(NamedTuple):
    """What frames are for from now on."""

    run: int
    """Running number of plates and of the times between them."""
    well: str | None = None
    """Well that a live camera shows; a camera that ends says it by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """What goes from loop to loop: a frame, and later its reading."""

    run: int
    """The `Aim.run` that it was taken for."""
    frame: Frame | LostFrame | None
    """None: the camera has shown all."""
    reading: Reading | None = None


class Capture:
    """The camera of a `kind` and the loop that reads it; CameraError if it cannot be opened.

    `open_camera` opens it, at first and again when it was lost; None waits for `show`. A live camera puts its
    newest frame into `frames`, any other waits for room there. `aim` says what frames are for. `note_lost`
    hears True when a live camera is lost and False when it gives frames again.
    """

    def __init__(
        self,
        kind: str,
        open_camera: Callable[[], Camera] | None,
        frames: Buffer[Shot],
        note_lost: Callable[[bool], None],
        aim: Callable[[], Aim],
    ) -> None:
        self._kind, self._open = kind, open_camera
        self._frames, self._note_lost, self._aim = frames, note_lost, aim
        self._camera = None if open_camera is None else open_camera()
        self._shown: queue.SimpleQueue[tuple[Camera, int] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._is_lost = False
        self.live = self._camera is not None and self._camera.live
        """Whether frames come by themselves."""
        self.n_reopens = 0
        """How often a lost camera was opened again."""

    def run(self) -> None:
        """Read what is shown until `close`; CameraError only if a camera fails that is not live."""
        if self._camera is not None:
            self._shown.put((self._camera, self._aim().run))
        while (shown := self._shown.get()) is not None:
            self._camera, run = shown
            if self.live:
                self._watch(self._camera)
            else:
                self._read_all(self._camera, run)
        self._frames.end()

    def show(self, camera: Camera | None, run: int) -> None:
        """Leave the camera that is read and read another from now on, or none; for cameras that end."""
        if self._camera is not None:
            self._camera.close()
        if camera is not None:
            self._shown.put((camera, run))

    def close(self) -> None:
        """Let go of the camera; `run` ends soon after. Any thread may call this."""
        self._closing.set()
        self._shown.put(None)
        if self._camera is not None:
            self._camera.close()

    def _read_all(self, camera: Camera, run: int) -> None:
        for frame in camera.frames():
            if self._aim().run != run or not self._frames.put(Shot(run, frame)):
                return
        if not self._closing.is_set():
            self._frames.put(Shot(run, None))

    def _watch(self, camera: Camera) -> None:
        wait_s, longest_s = _REOPEN_S
        while not self._closing.is_set():
            try:
                for frame in camera.frames():
                    wait_s = _REOPEN_S[0]
                    self._note(is_lost=False)
                    run, well = self._aim()
                    if not self._frames.put_newest(Shot(run, replace(frame, well=well))):
                        return
                if self._closing.is_set():
                    return
                self._lose("it ended by itself")
            except CameraError as error:
                self._lose(str(error))
            camera.close()
            camera = self._reopen(camera, wait_s)
            wait_s = min(2 * wait_s, longest_s)

    def _reopen(self, camera: Camera, wait_s: float) -> Camera:
        """Return the camera opened again, or as it was if the station ends meanwhile."""
        while self._open is not None and not self._closing.wait(wait_s):
            try:
                self._camera = camera = self._open()
                self.n_reopens += 1
            except CameraError:
                wait_s = min(2 * wait_s, _REOPEN_S[1])
            else:
                break
        if self._closing.is_set():
            camera.close()
        return camera

    def _lose(self, detail: str) -> None:
        """Log a loss once and give the one frame that says so, however often opening fails after it."""
        if not self._is_lost:
            log.warning("camera %s is lost: %s; it is opened again until it is back", self._kind, detail)
            lost = LostFrame(Reason.CAMERA_LOST, detail, datetime.now(UTC), self._kind, -1)
            self._frames.put_newest(Shot(self._aim().run, lost))
        self._note(is_lost=True)

    def _note(self, *, is_lost: bool) -> None:
        if is_lost != self._is_lost:
            self._is_lost = is_lost
            self._note_lost(is_lost)
            if not is_lost:
                log.info("camera %s is back", self._kind)
