"""Camera kind `usb`: a V4L2 device, or the URL of a video stream.

Both time-outs are always set: OpenCV's own let a dead stream hang for half a minute. A V4L2 device has no
read time-out in OpenCV, so reading runs in a thread of its own and the frames are waited for here.
"""

import itertools
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from device.cameras import Setup
from device.errors import CameraError
from device.images import measure_tint
from device.records import Frame

log = logging.getLogger(__name__)


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
    """Return a V4L2 device or stream, opened within its time-out."""
    if "://" in settings.device:
        expected = "a stream that can be reached"
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(settings.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            int(settings.read_timeout_s * 1000),
        ]
        capture = cv2.VideoCapture(settings.device, cv2.CAP_FFMPEG, limits)
    else:
        expected = "a V4L2 camera; see `v4l2-ctl --list-devices`"
        device = int(settings.device) if settings.device.isdecimal() else settings.device
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if settings.width_px is not None and settings.height_px is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width_px)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height_px)
    if not capture.isOpened():
        capture.release()
        raise CameraError(f"camera.device {settings.device!r} cannot be opened; expected {expected}")
    return UsbCamera(capture, settings, setup)


class UsbCamera:
    """An open capture with a thread that keeps its newest frame at hand: an old field is no longer there."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, settings: Settings, setup: Setup) -> None:
        self._capture, self._settings, self._scale = capture, settings, setup.scale
        self._news = threading.Condition()
        self._newest: tuple[NDArray[np.uint8], float | None, datetime] | None = None
        self._is_over = False
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, name="usb-camera", daemon=True)
        self._reader.start()

    def frames(self) -> Iterator[Frame]:
        """Yield the newest frame as often as asked; CameraError when none comes within the limit."""
        device, limit_s = self._settings.device, self._settings.read_timeout_s
        for sequence in itertools.count():
            with self._news:
                # A stream gives up by itself after its limit; this one catches a device that never does.
                self._news.wait_for(lambda: self._newest is not None or self._is_over, limit_s + 1.0)
                found, self._newest = self._newest, None
            if self._closed.is_set():
                return
            if found is None:
                raise CameraError(
                    f"camera {device!r} gave no frame for {limit_s:g} s; check its cable and power"
                )
            image, tint, taken_at = found
            yield Frame(image, taken_at, device, sequence, self._scale, tint=tint)
            self._closed.wait(self._settings.interval_s)

    def close(self) -> None:
        """Stop reading; a read that hangs is abandoned with its thread."""
        self._closed.set()
        self._end()
        self._reader.join(self._settings.read_timeout_s)

    def _read(self) -> None:
        try:
            while not self._closed.is_set():
                is_read, image = self._capture.read()
                if not is_read:
                    break
                gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                gray.flags.writeable = False
                with self._news:
                    self._newest = gray, measure_tint(image), datetime.now(UTC)
                    self._news.notify()
        except cv2.error:
            log.exception("camera %s cannot be read", self._settings.device)
        finally:
            self._end()
            self._capture.release()

    def _end(self) -> None:
        with self._news:
            self._is_over = True
            self._news.notify()
