"""Camera kind `usb`: a V4L2 device, whose exposure, gain and white balance settle first and are then locked.

A camera that corrects itself hides that a field is dark. Streams have a kind of their own, `stream`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2

from device.cameras import Setup
from device.cameras._video import VideoCamera
from device.errors import CameraError

_MANUAL, _OFF = 1.0, 0.0  # V4L2_EXPOSURE_MANUAL; a switch that is off
_LOCKED = {
    "exposure_100us": (cv2.CAP_PROP_EXPOSURE, cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL),
    "gain": (cv2.CAP_PROP_GAIN, None, _OFF),
    "white_balance_k": (cv2.CAP_PROP_WB_TEMPERATURE, cv2.CAP_PROP_AUTO_WB, _OFF),
}
"""What is locked: its property, the property of its automatic, and what switches that off."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `usb`."""

    device: str = "0"
    """Index (`0`) or device file (`/dev/video0`) of the camera."""
    width_px: int | None = field(default=None, metadata={"range": (16, 10_000)})
    """Width asked of the camera, px; its own if left out."""
    height_px: int | None = field(default=None, metadata={"range": (16, 10_000)})
    """Height asked of the camera, px; its own if left out."""
    exposure_100us: int | None = field(default=None, metadata={"range": (1, 100_000)})
    """Exposure, 100 microseconds; without it the camera's own choice after `settle_s` is locked."""
    gain: int | None = field(default=None, metadata={"range": (0, 10_000)})
    """Gain, the camera's own unit; without it the camera's own choice after `settle_s` is locked."""
    settle_s: float = field(default=2.0, metadata={"range": (0.0, 60.0)})
    """Time that the automatics get before they are locked, s."""
    interval_s: float = field(default=0.0, metadata={"range": (0.0, 3600.0)})
    """Least time between two frames that are analyzed, s; frames between are passed over."""
    read_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 60.0)})
    """Limit for one frame, s; then the camera counts as lost."""

    def __post_init__(self) -> None:
        if not self.device or "://" in self.device:
            expected = 'an index or a device file; a stream has camera.kind = "stream" and camera.url'
            raise ValueError(f"device is {self.device!r}; expected {expected}")
        if (self.width_px is None) != (self.height_px is None):
            raise ValueError("width_px and height_px go together; expected both or none")


def open_camera(settings: Settings, setup: Setup) -> VideoCamera:
    """Return an open V4L2 device; CameraError if it is not there."""
    device = int(settings.device) if settings.device.isdecimal() else settings.device
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise CameraError(
            f"camera.device {settings.device!r} cannot be opened; expected a V4L2 camera; see "
            "`v4l2-ctl --list-devices`, and end other programs that use it"
        )
    if settings.width_px is not None and settings.height_px is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width_px)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height_px)
    return VideoCamera(
        capture,
        setup,
        source=settings.device,
        interval_s=settings.interval_s,
        read_timeout_s=settings.read_timeout_s,
        settle_s=settings.settle_s,
        lock=lambda opened: _lock(opened, settings),
    )


def _lock(capture: cv2.VideoCapture, settings: Settings) -> Mapping[str, float]:
    """Return what the camera holds from now on; it has no control that is not in there.

    CameraError if it does not take a value that the settings name.
    """
    capture.set(cv2.CAP_PROP_AUTOFOCUS, _OFF)
    locked: dict[str, float] = {}
    for name, (control, automatic, off) in _LOCKED.items():
        asked = getattr(settings, name, None)
        value = capture.get(control) if asked is None else float(asked)
        if automatic is not None:
            capture.set(automatic, off)
        if capture.set(control, value):
            locked[name] = capture.get(control)
        elif asked is not None:
            raise CameraError(
                f"camera.{name} is {asked}; expected what {settings.device} takes, see `v4l2-ctl "
                f"--list-ctrls`; change or leave out camera.{name}"
            )
    return locked
