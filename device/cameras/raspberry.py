"""Camera kind `raspberry`: a Raspberry Pi camera module through picamera2.

The gray image is the Y plane of the camera's own YUV output: nothing is converted. Exposure, gain and white
balance settle first and then stay locked: a camera that corrects itself hides that a field is dark. picamera2
is imported when the camera is opened, so that a configuration can be checked on any machine. It is never
waited for without a limit: a loose cable makes it hang for ever (picamera2 issue 1264).
"""

import contextlib
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from device.cameras import Setup
from device.errors import CameraError
from device.records import Frame

log = logging.getLogger(__name__)

T = TypeVar("T")
_Picamera2: TypeAlias = Any  # picamera2 ships no types, and is on no machine that checks ours
_Shot: TypeAlias = tuple[NDArray[np.uint8], Mapping[str, Any]]

_OPEN_S = 20.0  # limit for opening and starting it
_CLOSE_S = 5.0  # limit for stopping it; what hangs longer is abandoned
_LOCK_FRAMES = 8  # dropped after locking: three buffers in flight, then the sensor's delay, with reserve
_CHOSEN = ("ExposureTime", "AnalogueGain", "ColourGains")
_STEADY: dict[str, Any] = {"AfMode": 0, "NoiseReductionMode": 0, "Sharpness": 0.0}
"""Manual focus, no noise reduction, no sharpening: pixels are measured, not shown."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `raspberry`."""

    index: int = field(default=0, metadata={"range": (0, 15)})
    """Which camera, as `rpicam-hello --list-cameras` numbers them."""
    width_px: int = field(default=2028, metadata={"range": (64, 5000)})
    """Width of the frame, px, even. The default is the HQ camera's whole sensor, 2x2 binned."""
    height_px: int = field(default=1520, metadata={"range": (64, 5000)})
    """Height of the frame, px, even."""
    format: Literal["YUV420", "NV12"] = "YUV420"
    """Pixel format asked of the camera; the Y plane is the same in both."""
    exposure_us: int | None = field(default=None, metadata={"range": (1, 10_000_000)})
    """Exposure, microseconds; without it the camera's own choice after `settle_s` is locked."""
    gain: float | None = field(default=None, metadata={"range": (1.0, 64.0)})
    """Analog gain; without it the camera's own choice after `settle_s` is locked."""
    settle_s: float = field(default=2.0, metadata={"range": (0.0, 60.0)})
    """Time that automatic exposure and white balance get before they are locked, s."""
    interval_s: float = field(default=1.0, metadata={"range": (0.0, 3600.0)})
    """Time from one frame to the next, s; 0 = as fast as they come."""
    read_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 120.0)})
    """Without a frame for this long the camera counts as lost, s."""

    def __post_init__(self) -> None:
        if self.width_px % 2 or self.height_px % 2:
            raise ValueError(f"size is {self.width_px} x {self.height_px} px; expected even numbers")
        if self.exposure_us is not None and self.read_timeout_s <= 4e-6 * self.exposure_us:
            raise ValueError(f"read_timeout_s is {self.read_timeout_s}; expected over 4 times exposure_us")


class RaspberryCamera:
    """A started picamera2 camera as a source of frames; `open_camera` makes it."""

    live = True

    def __init__(self, picam2: _Picamera2, settings: Settings, setup: Setup) -> None:
        self._picam2, self._settings, self._scale = picam2, settings, setup.scale
        self._source = f"raspberry:{settings.index}:{picam2.camera_properties.get('Model', 'unknown')}"
        self._closed = threading.Event()
        self._picam2_use = threading.Lock()  # never held while waiting for a frame

    def frames(self) -> Iterator[Frame]:
        """Yield a frame every `interval_s` until `close`.

        CameraError if no readable frame comes within `read_timeout_s`, or one of another shape than
        configured. A single unreadable frame is skipped: the camera has the next one in a moment.
        """
        try:
            self._settle_and_lock()
            sequence, due_s = 0, time.monotonic()
            while not self._closed.wait(max(0.0, due_s - time.monotonic())):
                due_s = max(due_s + self._settings.interval_s, time.monotonic())
                array, metadata = self._shoot()
                yield Frame(
                    self._y_plane(array),
                    _taken_at(metadata),
                    self._source,
                    sequence,
                    self._scale,
                    metadata=_told(metadata),
                )
                sequence += 1
        except CancelledError:
            return  # closed while waiting for a frame

    def close(self) -> None:
        """Stop the camera and let go of it; one that hangs is abandoned after 5 s."""
        if self._closed.is_set():
            return
        self._closed.set()

        def shut_down() -> None:
            with self._picam2_use:
                self._picam2.cancel_all_and_flush()  # wakes whoever waits for a frame
                self._picam2.close()

        try:
            _in_time(_CLOSE_S, shut_down)
        except TimeoutError:
            log.warning("%s did not stop within %g s and was abandoned", self._source, _CLOSE_S)
        except (RuntimeError, OSError) as error:
            log.warning("%s did not stop cleanly: %s", self._source, error)

    def _settle_and_lock(self) -> None:
        settled_s = time.monotonic() + self._settings.settle_s
        _, metadata = self._shoot()
        while time.monotonic() < settled_s:
            _, metadata = self._shoot()
        chosen = {key: metadata[key] for key in _CHOSEN if key in metadata}
        locked = {"AeEnable": False, "AwbEnable": False} | chosen | _fixed_controls(self._settings)
        locked = _known_to(self._picam2, locked)
        log.info("%s locked at %s", self._source, locked)
        if locked:
            self._picam2.set_controls(locked)
            for _ in range(_LOCK_FRAMES):
                self._shoot()

    def _shoot(self) -> _Shot:
        """Return the next readable frame's array and metadata, or raise CameraError."""
        found = f"no frame for {self._settings.read_timeout_s:g} s"
        for _ in range(3):  # a single bad frame is no lost camera
            try:
                return _in_time(self._settings.read_timeout_s, self._wait_for_frame)
            except TimeoutError:
                break
            except (RuntimeError, ValueError, OSError) as error:  # a short buffer, or one not to be mapped
                found = f"frames that cannot be read ({error})"
        if self._closed.is_set():
            raise CancelledError
        raise CameraError(
            f"{self._source} gave {found}; expected images; check the cable and the power supply, try "
            "`rpicam-hello`, or raise camera.read_timeout_s for long exposures"
        )

    def _wait_for_frame(self) -> _Shot:
        with self._open_picam2():
            job = self._picam2.capture_request(wait=False)
        request = self._picam2.wait(job)
        with self._open_picam2():
            try:
                return request.make_array("main"), request.get_metadata()
            finally:
                request.release()

    @contextlib.contextmanager
    def _open_picam2(self) -> Iterator[None]:
        with self._picam2_use:
            if self._closed.is_set():
                raise CancelledError  # the buffers of a closed camera are gone
            yield

    def _y_plane(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = self._settings.height_px, self._settings.width_px
        rows = height * 3 // 2  # the color planes stand below the gray one
        if array.ndim != 2 or array.dtype != np.uint8 or array.shape[0] != rows or array.shape[1] < width:
            raise CameraError(
                f"{self._source} gave {array.dtype} {array.shape}; expected uint8, {rows} rows of at least "
                f"{width} ({width} x {height} {self._settings.format}); change camera.format"
            )
        image = np.ascontiguousarray(array[:height, :width])  # rows are padded to the stride
        image.flags.writeable = False
        return image


def open_camera(settings: Settings, setup: Setup) -> RaspberryCamera:
    """Open, configure and start the camera within 20 s."""
    try:
        library = importlib.import_module("picamera2")
    except (ImportError, ValueError) as error:  # ValueError: its parts were built against another numpy
        raise CameraError(
            f"picamera2 cannot be imported ({error}); expected Raspberry Pi OS's camera library; run "
            "`sudo apt install python3-picamera2` and make the venv with `--system-site-packages`"
        ) from error
    try:
        picam2 = _in_time(_OPEN_S, lambda: _start(library, settings), if_late=lambda late: late.close())
    except TimeoutError as error:
        raise CameraError(
            f"camera {settings.index} did not answer within {_OPEN_S:g} s; expected it to start; check the "
            "cable, try `rpicam-hello`, and restart the computer if that hangs too"
        ) from error
    return RaspberryCamera(picam2, settings, setup)


def _start(library: _Picamera2, settings: Settings) -> _Picamera2:
    name = f"camera {settings.index}"
    try:
        found = [str(camera.get("Model", "unknown")) for camera in library.Picamera2.global_camera_info()]
        if settings.index >= len(found):
            raise CameraError(
                f"found {len(found)} camera(s) ({', '.join(found) or 'none'}); expected one with camera."
                f"index {settings.index}; check the cable and `rpicam-hello --list-cameras`"
            )
        name = f"camera {settings.index} ({found[settings.index]})"
        picam2 = library.Picamera2(settings.index)
        with contextlib.ExitStack() as undo:
            undo.callback(picam2.close)
            _configure(picam2, settings, name)
            picam2.start()
            undo.pop_all()
    except (RuntimeError, OSError) as error:
        raise CameraError(
            f"{name} cannot be started: {_with_causes(error)}; expected it free and able to give "
            f"{settings.width_px} x {settings.height_px} {settings.format}; end other programs that use it, "
            "let this user open /dev/video* and /dev/dma_heap (group video), or change size and format"
        ) from error
    return picam2


def _configure(picam2: _Picamera2, settings: Settings, name: str) -> None:
    asked = (settings.width_px, settings.height_px)
    fixed = _fixed_controls(settings)
    # A still configuration has full-range gray (0 to 255) and leaves the exposure free; a video configuration
    # has neither. Without a queue each request is answered by a frame that ends after it.
    configuration = picam2.create_still_configuration(
        main={"size": asked, "format": settings.format},
        controls=_known_to(picam2, _STEADY | fixed),
        buffer_count=3,
        queue=False,
    )
    picam2.configure(configuration)
    given = picam2.camera_configuration()["main"]
    if tuple(given["size"]) != asked or given["format"] != settings.format:
        found = f"{given['size'][0]} x {given['size'][1]} {given['format']}"
        raise CameraError(
            f"{name} gives {found}; expected {asked[0]} x {asked[1]} {settings.format}; set camera.width_px, "
            "camera.height_px and camera.format to what it gives, and measure um_per_px for that"
        )
    for control, value in fixed.items():
        limits = picam2.camera_controls.get(control)
        if limits is None or not limits[0] <= value <= limits[1]:
            allowed = f"{limits[0]} to {limits[1]}" if limits else "nothing, for there is no such control"
            raise CameraError(f"{name}: {control} is {value}; expected {allowed}; change station.toml")


def _fixed_controls(settings: Settings) -> dict[str, Any]:
    fixed = {"ExposureTime": settings.exposure_us, "AnalogueGain": settings.gain}
    return {control: value for control, value in fixed.items() if value is not None}


def _known_to(picam2: _Picamera2, controls: dict[str, Any]) -> dict[str, Any]:
    return {control: value for control, value in controls.items() if control in picam2.camera_controls}


def _taken_at(metadata: Mapping[str, Any]) -> datetime:
    """Return when the sensor was read, UTC; its time stamp is in nanoseconds of the monotonic clock."""
    now = datetime.now(UTC)
    age_s = (time.monotonic_ns() - metadata.get("SensorTimestamp", time.monotonic_ns())) / 1e9
    return now - timedelta(seconds=age_s) if 0 <= age_s <= 60 else now  # else it is of another clock


def _told(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return what of the metadata of a frame decides how bright it is; what changes by itself is left out."""
    names = {"ExposureTime": "exposure_us", "AnalogueGain": "gain", "DigitalGain": "digital_gain"}
    told = {name: float(metadata[key]) for key, name in names.items() if key in metadata}
    red, blue = metadata.get("ColourGains", (None, None))
    return told if red is None else told | {"red_gain": float(red), "blue_gain": float(blue)}


def _in_time(limit_s: float, call: Callable[[], T], *, if_late: Callable[[T], object] | None = None) -> T:
    """Return what `call` returns, or raise TimeoutError after `limit_s`; a late result goes to `if_late`."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            future.set_exception(error)

    # A thread of its own, daemonic: one that hangs in the driver blocks neither the next call nor the exit.
    threading.Thread(target=work, name="raspberry", daemon=True).start()
    if wait([future], timeout=limit_s).done:
        return future.result()
    if if_late is not None:
        future.add_done_callback(lambda late: None if late.exception() else if_late(late.result()))
    raise TimeoutError


def _with_causes(error: BaseException) -> str:
    """Return its message and those behind it: picamera2 says only at the bottom what went wrong."""
    return str(error) if error.__cause__ is None else f"{error} ({_with_causes(error.__cause__)})"
