"""Camera kind `jetson`: a CSI camera of an NVIDIA Jetson, through GStreamer in a process of its own.

The OpenCV wheel has no GStreamer. `gst-launch-1.0` writes raw gray frames, whose size is known, into a pipe.
A pipeline cannot lock what its automatics have found, so exposure and gain are stated from the start.
"""

import itertools
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from device.cameras import Setup
from device.cameras._process import read_exactly
from device.errors import CameraError
from device.records import Frame

_STARTS_S = 10.0  # the camera's service takes seconds to give its first frame
_END_S = 1.0  # for GStreamer to let go of the sensor; then it is killed


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `jetson`."""

    exposure_us: int = field(metadata={"range": (1, 1_000_000)})
    """Exposure, microseconds."""
    gain: float = field(metadata={"range": (1.0, 256.0)})
    """Analog gain."""
    sensor: int = field(default=0, metadata={"range": (0, 15)})
    """Which camera, from 0."""
    width_px: int = field(default=1920, metadata={"range": (64, 10_000)})
    """Width of the frame, px, a multiple of 4; with the height a size that the sensor gives."""
    height_px: int = field(default=1080, metadata={"range": (64, 10_000)})
    """Height of the frame, px."""
    interval_s: float = field(default=1.0, metadata={"range": (0.0, 3600.0)})
    """Least time from one frame to the next, s; 0 = as fast as they come."""
    read_timeout_s: float = field(default=5.0, metadata={"range": (0.1, 120.0)})
    """Without a frame for this long the camera counts as lost, s."""

    def __post_init__(self) -> None:
        if self.width_px % 4:  # GStreamer pads rows to four bytes
            raise ValueError(f"width_px is {self.width_px}; expected a multiple of 4")


def open_camera(settings: Settings, setup: Setup) -> "JetsonCamera":
    """Return a camera whose pipeline was started; CameraError without GStreamer's tools."""
    return JetsonCamera(settings, setup, _source(settings))


def _source(settings: Settings) -> str:
    exposure_ns, size = 1000 * settings.exposure_us, f"width={settings.width_px},height={settings.height_px}"
    # Ranges of one value; no noise reduction, no sharpening: pixels are measured, not shown.
    return (
        f"nvarguscamerasrc sensor-id={settings.sensor} aelock=true awblock=true tnr-mode=0 ee-mode=0 "
        f'exposuretimerange="{exposure_ns} {exposure_ns}" gainrange="{settings.gain:g} {settings.gain:g}" '
        f'ispdigitalgainrange="1 1" ! video/x-raw(memory:NVMM),{size},format=NV12 ! nvvidconv'
    )


class JetsonCamera:
    """A GStreamer process as a source of frames."""

    live = True

    def __init__(self, settings: Settings, setup: Setup, source: str) -> None:
        self._settings, self._scale = settings, setup.scale
        self._closed, self._reading = threading.Event(), threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the camera
        # Frames have a pipe of their own: the source prints on stdout. The queue keeps the newest.
        self._pipe, theirs = os.pipe()
        caps = f"video/x-raw,format=GRAY8,width={settings.width_px},height={settings.height_px}"
        pipeline = f"{source} ! {caps} ! queue max-size-buffers=1 leaky=downstream ! fdsink fd={theirs}"
        try:
            self._gst = subprocess.Popen(  # noqa: S603 - no shell; the settings are numbers
                ["gst-launch-1.0", "-q", *shlex.split(pipeline)],  # noqa: S607 - where the system has it
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs,),
            )
        except OSError as error:
            os.close(self._pipe)
            self._said.close()
            raise CameraError(
                f"gst-launch-1.0 cannot be started ({error}); expected GStreamer as JetPack installs it; run "
                "`sudo apt install gstreamer1.0-tools nvidia-l4t-gstreamer`"
            ) from error
        finally:
            os.close(theirs)

    def frames(self) -> Iterator[Frame]:
        """Yield a frame every `interval_s` until `close`; CameraError if none is whole in time."""
        settings, source = self._settings, f"jetson:{self._settings.sensor}"
        told = {"exposure_us": float(settings.exposure_us), "gain": settings.gain}
        limit_s = settings.read_timeout_s + _STARTS_S
        for sequence in itertools.count():
            if sequence and settings.interval_s:
                self._read(limit_s)  # what waited in the pipe is as old as the pause
            if (data := self._read(limit_s)) is None:
                return
            limit_s = settings.read_timeout_s
            image = np.frombuffer(data, np.uint8).reshape(settings.height_px, settings.width_px)
            yield Frame(image, datetime.now(UTC), source, sequence, self._scale, metadata=told)
            self._closed.wait(settings.interval_s)

    def close(self) -> None:
        """End GStreamer, which is killed where it does not end by itself; `frames` ends soon after."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._reading:
            os.close(self._pipe)  # first: it could hang in writing to it
        self._gst.send_signal(signal.SIGINT)
        try:
            self._gst.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._gst.kill()
            self._gst.wait()
        self._said.close()

    def _read(self, limit_s: float) -> bytes | None:
        """Return the bytes of the next frame, None once closed."""
        settings = self._settings
        size, found = settings.height_px * settings.width_px, "ended its pipe"
        with self._reading:
            if self._closed.is_set():
                return None
            try:
                data = read_exactly(
                    self._pipe,
                    size,
                    until=time.monotonic() + limit_s,
                    turn=lambda: not self._closed.is_set(),
                )
            except TimeoutError:
                data, found = None, f"gave no whole frame for {limit_s:g} s"
            if data is not None or self._closed.is_set():
                return None if data is None else bytes(data)
            self._said.seek(0)
            said = self._said.read()[-400:].decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "nothing")
        raise CameraError(
            f"GStreamer of camera.sensor {settings.sensor} {found} (it said: {last}); expected frames of "
            f"{settings.width_px} x {settings.height_px}; check the cable, try `gst-launch-1.0 "
            "nvarguscamerasrc ! fakesink`, restart nvargus-daemon"
        )
