"""The capture loop: from the camera into the frame queue, and back to the camera when it is lost."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device.cameras import Camera, LostFrame
from device.errors import CameraError
from device.records import Frame, Reading, Reason
from device.station.buffer import Buffer

log = logging.getLogger(__name__)

_REOPEN_S = (0.5, 2.5)
"""First and longest wait before a lost camera is opened again: under 5 s with the 2 s of its process."""
_TURN_S = 0.25
"""Longest wait before the loop says that it turns."""
_FROZEN = 5
"""So many identical frames in a row are a driver that repeats its last one."""


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
    """The camera of a `kind` and the loop that reads it.

    `open_camera` opens it; None waits for `show`. A camera that is not `live` is opened here, with what that
    raises, and waits for room in `frames`. A live one is opened by `run`, again and again while it is lost,
    and the newest frame wins. `aim` says what frames are for; `note_fault` hears that a live camera has a
    fault, and that it has it no more; `beat` is called at every turn.
    """

    def __init__(
        self,
        kind: str,
        open_camera: Callable[[], Camera] | None,
        frames: Buffer[Shot],
        note_fault: Callable[[Reason, bool], None],
        aim: Callable[[], Aim],
        *,
        live: bool,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._kind, self._open, self.live = kind, open_camera, live
        self._frames, self._note_fault, self._aim, self._beat = frames, note_fault, aim, beat
        self._camera = None if live or open_camera is None else open_camera()
        self._shown: queue.SimpleQueue[tuple[Camera, int] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self.n_opens = 0
        """How often a live camera was opened."""
        self._fault: Reason | None = None
        self._last: NDArray[np.uint8] | None = None
        self._n_alike = 1

    @property
    def fault(self) -> Reason | None:
        """Why a live camera gives no frames now; None while it does."""
        return self._fault

    def run(self) -> None:
        """Read what is shown until `close`; CameraError only if a camera fails that is not live."""
        if self.live:
            self._watch()
        elif self._camera is not None:
            self._shown.put((self._camera, self._aim().run))
        while not self._closing.is_set():
            self._beat()
            with contextlib.suppress(queue.Empty):
                if (shown := self._shown.get(timeout=_TURN_S)) is not None:
                    self._camera, run = shown
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

    def _watch(self) -> None:
        """Read a live camera, opened anew whenever it fails, until the station ends."""
        wait_s, longest_s = _REOPEN_S
        while self._open is not None and not self._closing.is_set():
            try:
                self._camera = self._open()
                self.n_opens += 1
                if self._closing.is_set():  # `close` may have seen the one before
                    return
                for frame in self._camera.frames():
                    if self._is_frozen(frame):
                        self._lose(Reason.FROZEN_FRAME, f"its last {_FROZEN} frames are identical")
                        break
                    wait_s = _REOPEN_S[0]
                    self._have(None)
                    run, well = self._aim()
                    if not self._frames.put_newest(Shot(run, replace(frame, well=well))):
                        return
                    if self._closing.is_set():
                        return
                else:
                    self._lose(Reason.CAMERA_LOST, "it ended by itself")
            except CameraError as error:
                self._lose(Reason.CAMERA_LOST, str(error))
            finally:
                if self._camera is not None:
                    self._camera.close()
            self._pause(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    def _pause(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0 and not self._closing.wait(min(left_s, _TURN_S)):
            self._beat()

    def _is_frozen(self, frame: Frame | LostFrame) -> bool:
        """Return whether a sensor's frame is the last of so many that are the same to the last bit.

        Noise makes two images of one field differ; a rendered field or one without any light may be the same.
        """
        self._beat()
        if isinstance(frame, LostFrame) or frame.simulated:
            return False
        image, last = frame.image, self._last
        is_alike = last is not None and np.array_equal(image, last) and image.min() < image.max()
        self._n_alike = self._n_alike + 1 if is_alike else 1
        self._last = image
        return self._n_alike >= _FROZEN

    def _lose(self, fault: Reason, detail: str) -> None:
        """Log a fault once and give the one frame that says so, however often opening fails after it."""
        if self._closing.is_set():
            return
        if fault != self._fault:
            log.warning("camera %s: %s, %s; it is opened again until it is back", self._kind, fault, detail)
            lost = LostFrame(fault, detail, datetime.now(UTC), self._kind, -1)
            self._frames.put_newest(Shot(self._aim().run, lost))
        self._have(fault)

    def _have(self, fault: Reason | None) -> None:
        if fault == self._fault:
            return
        before, self._fault = self._fault, fault
        if before is not None:
            self._note_fault(before, False)
        if fault is not None:
            self._note_fault(fault, True)
        else:
            log.info("camera %s is back", self._kind)
