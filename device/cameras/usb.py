"""Camera kind `usb`: a V4L2 device, or the URL of a video stream.

Both time-outs are always set: OpenCV's own let a dead stream hang for half a minute. A V4L2 device has no
read time-out in OpenCV, so reading runs in a thread of its own and the frames are waited for here.
"""

import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from device.cameras import LostFrame, Setup
from device.errors import CameraError
from device.records import Frame

log = logging.getLogger(__name__)

_SETTLE_FRAMES = 1
"""Frames that the reader may be ahead: the newest wins, an old field is no longer under the lens."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `usb`."""

    device: str = "0"
    """Index (`0`), device file (`/dev/video0`) or URL (`http://...`, `rtsp://...`) of the camera."""
    width_px: int | None = field(default=None, metadata={"range": (16, 10_000)})
    """Width asked of a V4L2 device, px; its own if left out."""
    height_px: int | None = field(default=None, metadata={"range": (16, 10_000)})
    """Height asked of a V4L2 device, px; its own if left out."""
    interval_s: float = field(default=0.0, metadata={"range": (0.0, 3600.0)})
    """Least time between two frames that are analysed, s; frames between are passed over."""
    open_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 60.0)})
    """Limit for opening a stream, s."""
    read_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 60.0)})
    """Limit for one frame, s; then the camera counts as lost."""

    def __post_init__(self) -> None:
        if not self.device:
            raise ValueError("device is empty; expected an index, a device file or a URL")
        if (self.width_px is None) != (self.height_px is None):
            raise ValueError("width_px and height_px go together; expected both or none")


def open_camera(settings: Settings, setup: Setup) -> "UsbCamera":
    """Return an open V4L2 device or stream.

    Raises
    ------
    CameraError
        If it does not open within its time-out.
    """
    is_stream = "://" in settings.device
    capture = _open_stream(settings) if is_stream else _open_device(settings)
    if not capture.isOpened():
        capture.release()
        what = "a stream that can be reached" if is_stream else "a V4L2 camera; see `v4l2-ctl --list-devices`"
        raise CameraError(f"camera.device {settings.device!r} cannot be opened; expected {what}")
    return UsbCamera(capture, settings, setup)


def _open_stream(settings: Settings) -> cv2.VideoCapture:
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        int(settings.open_timeout_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        int(settings.read_timeout_s * 1000),
    ]
    return cv2.VideoCapture(settings.device, cv2.CAP_FFMPEG, limits)


def _open_device(settings: Settings) -> cv2.VideoCapture:
    device = int(settings.device) if settings.device.isdecimal() else settings.device
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if settings.width_px is not None and settings.height_px is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width_px)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height_px)
    return capture


class UsbCamera:
    """An open capture with a thread that keeps its newest frame at hand."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, settings: Settings, setup: Setup) -> None:
        self._capture, self._settings, self._scale = capture, settings, setup.scale
        self._newest: queue.Queue[tuple[NDArray[np.uint8], datetime] | None] = queue.Queue(_SETTLE_FRAMES)
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, name="usb-camera", daemon=True)
        self._reader.start()

    def frames(self) -> Iterator[Frame | LostFrame]:
        """Yield the newest frame as often as asked; CameraError when none comes within the limit."""
        sequence = 0
        while not self._closed.is_set():
            try:
                # A stream gives up by itself after read_timeout_s; this limit catches a device that never
                # does.
                found = self._newest.get(timeout=self._settings.read_timeout_s + 1.0)
            except queue.Empty:
                found = None
            if self._closed.is_set():
                return
            if found is None:
                limit = f"{self._settings.read_timeout_s:g} s"
                raise CameraError(
                    f"camera {self._settings.device!r} gave no frame for {limit}; check its cable and power"
                )
            image, taken_at = found
            yield Frame(image, taken_at, self._settings.device, sequence, self._scale)
            sequence += 1
            self._closed.wait(self._settings.interval_s)

    def close(self) -> None:
        """Stop reading; a read that hangs is abandoned with its thread."""
        self._closed.set()
        self._offer(None)
        self._reader.join(self._settings.read_timeout_s)

    def _read(self) -> None:
        try:
            while not self._closed.is_set():
                is_read, image = self._capture.read()
                if not is_read:
                    break
                self._offer((_to_gray(image), datetime.now(UTC)))
        except cv2.error:
            log.exception("camera %s cannot be read", self._settings.device)
        finally:
            self._offer(None)
            self._capture.release()

    def _offer(self, item: tuple[NDArray[np.uint8], datetime] | None) -> None:
        """Put the newest frame, in place of one that nobody took."""
        while True:
            try:
                self._newest.put_nowait(item)
            except queue.Full:
                try:
                    self._newest.get_nowait()
                except queue.Empty:
                    continue
            else:
                return


def _to_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray: NDArray[np.uint8] = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    gray.flags.writeable = False
    return gray
