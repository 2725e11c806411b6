"""Camera kind `stream`: a network camera by its URL (RTSP, HTTP), read through OpenCV's FFmpeg.

Both time-outs are always set: OpenCV's own let a dead stream hang for half a minute.
"""

from dataclasses import dataclass, field

import cv2

from device.cameras import Setup
from device.cameras._video import VideoCamera
from device.errors import CameraError


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `stream`."""

    url: str = field(metadata={"pattern": r"[a-z]+://\S+"})
    """Address, such as `rtsp://camera.lab/1`, `http://...` or `https://...`."""
    interval_s: float = field(default=0.0, metadata={"range": (0.0, 3600.0)})
    """Least time between two frames that are analyzed, s; frames between are passed over."""
    open_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 60.0)})
    """Limit for opening the stream, s."""
    read_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 60.0)})
    """Limit for one frame, s; then the camera counts as lost."""


def open_camera(settings: Settings, setup: Setup) -> VideoCamera:
    """Return a stream, opened within its time-out; CameraError if nobody streams there."""
    limits = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(settings.open_timeout_s * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(settings.read_timeout_s * 1000)),
    ]
    capture = cv2.VideoCapture(settings.url, cv2.CAP_FFMPEG, limits)
    # A password in the URL is for the camera alone.
    source = settings.url.partition("://")[2].rpartition("@")[2]
    if not capture.isOpened():
        capture.release()
        raise CameraError(
            f"camera.url ...{source} cannot be opened; expected a stream that can be reached; check the "
            "address, the camera and the network"
        )
    return VideoCamera(
        capture,
        setup,
        source=source,
        interval_s=settings.interval_s,
        read_timeout_s=settings.read_timeout_s,
    )
