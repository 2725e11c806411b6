"""The capture loop: from the camera into the frame queue, and back to the camera when it is lost."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from device.cameras import Camera, LostFrame
from device.errors import CameraError
from device.records import Frame, Reason
from device.station.buffer import Buffer

log = logging.getLogger(__name__)

_REOPEN_S = (0.5, 5.0)
"""First and longest wait before a lost camera is opened again."""


class Capture:
    """An open camera of a `kind` and the loop that reads it; CameraError if it cannot be opened.

    `open_camera` opens it, at first and again when it was lost. A live camera puts its newest frame into
    `frames`, any other waits for room there. `note_lost` hears True when a live camera is lost and False when
    it gives frames again.
    """

    def __init__(
        self,
        kind: str,
        open_camera: Callable[[], Camera],
        frames: Buffer[Frame | LostFrame],
        note_lost: Callable[[bool], None],
    ) -> None:
        self._kind, self._open = kind, open_camera
        self._frames, self._note_lost = frames, note_lost
        self._camera = open_camera()
        self._closing = threading.Event()
        self._is_lost = False
        self.live = self._camera.live
        """Whether frames come by themselves."""

    def run(self) -> None:
        """Read until the camera ends or `close` is called; CameraError only if one fails that is not live."""
        put = self._frames.put_newest if self.live else self._frames.put
        wait_s, longest_s = _REOPEN_S
        while not self._closing.is_set():
            try:
                for frame in self._camera.frames():
                    wait_s = _REOPEN_S[0]
                    self._note(is_lost=False)
                    if not put(frame):
                        return
                if not self.live or self._closing.is_set():
                    break
                self._lose("it ended by itself")
            except CameraError as error:
                if not self.live:
                    raise
                self._lose(str(error))
            self._camera.close()
            self._reopen(wait_s)
            wait_s = min(2 * wait_s, longest_s)
        self._frames.end()

    def close(self) -> None:
        """Let go of the camera; `run` ends soon after. Any thread may call this."""
        self._closing.set()
        self._camera.close()

    def _reopen(self, wait_s: float) -> None:
        while not self._closing.wait(wait_s):
            try:
                self._camera = self._open()
            except CameraError:
                wait_s = min(2 * wait_s, _REOPEN_S[1])
            else:
                break
        if self._closing.is_set():
            self._camera.close()

    def _lose(self, detail: str) -> None:
        """Log a loss once and give the one frame that says so, however often opening fails after it."""
        if not self._is_lost:
            log.warning("camera %s is lost: %s; it is opened again until it is back", self._kind, detail)
            lost = LostFrame(Reason.CAMERA_LOST, detail, datetime.now(UTC), self._kind, -1)
            self._frames.put_newest(lost)
        self._note(is_lost=True)

    def _note(self, *, is_lost: bool) -> None:
        if is_lost != self._is_lost:
            self._is_lost = is_lost
            self._note_lost(is_lost)
            if not is_lost:
                log.info("camera %s is back", self._kind)
