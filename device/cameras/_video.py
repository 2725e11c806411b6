"""An open OpenCV capture as a camera: what the kinds `usb` and `stream` share.

Neither a V4L2 device nor a stream can be trusted to come back from a read, so reading runs in a thread of its
own and the frames are waited for here.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from device.cameras import Setup
from device.errors import CameraError
from device.images import measure_tint
from device.records import Frame

log = logging.getLogger(__name__)


class VideoCamera:
    """An open capture with a thread that keeps its newest frame at hand: an old field is no longer there.

    `lock` fixes what the camera would correct by itself; it is called in that thread once frames have come
    for `settle_s`, and returns what holds from then on. Frames before it are not given.
    """

    live = True

    def __init__(
        self,
        capture: cv2.VideoCapture,
        setup: Setup,
        *,
        source: str,
        interval_s: float,
        read_timeout_s: float,
        settle_s: float = 0.0,
        lock: Callable[[cv2.VideoCapture], Mapping[str, float]] = lambda _: {},
    ) -> None:
        self._capture, self._source, self._scale = capture, source, setup.scale
        self._interval_s, self._read_timeout_s, self._settle_s = interval_s, read_timeout_s, settle_s
        self._lock = lock
        self._news = threading.Condition()
        self._newest: tuple[NDArray[np.uint8], float | None, datetime] | None = None
        self._metadata: Mapping[str, float] = {}
        self._error: CameraError | None = None
        self._is_over = False
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, name="video", daemon=True)
        self._reader.start()

    def frames(self) -> Iterator[Frame]:
        """Yield the newest frame as often as asked; CameraError when none comes within the limit."""
        wait_s = self._read_timeout_s + self._settle_s + 1.0
        for sequence in itertools.count():
            with self._news:
                # A stream gives up by itself after its limit; this one catches a device that never does.
                self._news.wait_for(lambda: self._newest is not None or self._is_over, wait_s)
                found, self._newest = self._newest, None
            if self._closed.is_set():
                return
            if found is None:
                raise self._error or CameraError(
                    f"camera {self._source!r} gave no frame for {self._read_timeout_s:g} s; expected one; "
                    "check its cable and power"
                )
            image, tint, taken_at = found
            yield Frame(
                image,
                taken_at,
                self._source,
                sequence,
                self._scale,
                tint=tint,
                metadata=self._metadata or None,
            )
            self._closed.wait(self._interval_s)
            wait_s = self._read_timeout_s + 1.0

    def close(self) -> None:
        """Stop reading; a read that hangs is abandoned with its thread."""
        self._closed.set()
        self._end()
        self._reader.join(self._read_timeout_s)

    def _read(self) -> None:
        settled = time.monotonic() + self._settle_s
        is_locked = False
        try:
            while not self._closed.is_set():
                is_read, image = self._capture.read()
                if not is_read:
                    break
                if not is_locked:
                    if time.monotonic() >= settled:
                        self._metadata, is_locked = self._lock(self._capture), True
                    continue
                gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                gray.flags.writeable = False
                with self._news:
                    self._newest = gray, measure_tint(image), datetime.now(UTC)
                    self._news.notify()
        except CameraError as error:
            self._error = error
        except cv2.error:
            log.exception("camera %s cannot be read", self._source)
        finally:
            self._end()
            self._capture.release()

    def _end(self) -> None:
        with self._news:
            self._is_over = True
            self._news.notify()
