import http.server
import importlib
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.cameras import (
    LostFrame,
    Setup,
    camera_kinds,
    camera_settings,
    folder,
    jetson,
    open_camera,
    stream,
    usb,
)
from device.cameras._process import ProcessCamera
from device.config import read_config
from device.errors import CameraError, ConfigError
from device.messages.schema import field_docs
from device.plates import DatasetInfo, write_dataset_info
from device.publishers import publisher_kinds, publisher_settings
from device.records import Frame, PlateWell, Reason, Scale

SCALE = Scale(0.65, "measured")


def write_images(folder_path, n=3, shape=(12, 16)):
    for i in range(n):
        cv2.imwrite(str(folder_path / f"f{i}.png"), np.full(shape, 50 + i, np.uint8))


# One contract for every kind of camera and publisher.

KINDS = [("cameras", kind) for kind in camera_kinds()] + [("publishers", kind) for kind in publisher_kinds()]


def test_the_kinds_of_this_issue_are_found():
    assert camera_kinds() == ("folder", "jetson", "phantom", "raspberry", "stream", "usb")
    assert {"jsonl", "mqtt"} <= set(publisher_kinds())


@pytest.mark.parametrize(("floor", "kind"), KINDS)
def test_a_kind_declares_documented_options_and_how_it_opens(floor, kind):
    module = importlib.import_module(f"device.{floor}.{kind}")
    settings = module.Settings
    assert is_dataclass(settings)
    assert settings.__dataclass_params__.frozen
    docs = field_docs(settings)
    assert set(docs) == {item.name for item in fields(settings)}, "each option has its line"
    assert "kind" not in docs, "kind is the module's name"
    assert callable(module.open_camera if floor == "cameras" else module.open_publisher)
    assert (camera_settings if floor == "cameras" else publisher_settings)(kind) is settings


@pytest.mark.parametrize(("floor", "kind"), KINDS)
def test_defaults_of_a_kind_obey_its_own_limits(floor, kind):
    settings = importlib.import_module(f"device.{floor}.{kind}").Settings
    for item in fields(settings):
        if "range" in item.metadata and item.default not in (MISSING, None):
            low, high = item.metadata["range"]
            assert low <= item.default <= high, item.name


@pytest.mark.parametrize("kind", camera_kinds())
def test_an_unknown_option_of_any_camera_is_a_fault(tmp_path, kind):
    path = tmp_path / "station.toml"
    path.write_text(f'[camera]\nkind = "{kind}"\nshutter_speed = 1\n')
    with pytest.raises(ConfigError, match=r"camera\.shutter_speed is unknown; expected "):
        read_config(path, camera_settings=camera_settings)


def test_an_unknown_kind_is_answered_with_the_kinds_there_are():
    expected = r"camera\.kind is 'webcam'; expected one of folder, jetson, phantom, raspberry, stream, usb"
    with pytest.raises(ConfigError, match=expected):
        open_camera("webcam", None, Setup(SCALE))


# folder


def test_every_file_gives_one_frame_in_order(tmp_path):
    write_images(tmp_path)
    camera = open_camera("folder", folder.Settings(tmp_path), Setup(SCALE))
    frames = list(camera.frames())
    assert not camera.live
    assert [frame.source for frame in frames] == ["f0.png", "f1.png", "f2.png"]
    assert [frame.sequence for frame in frames] == [0, 1, 2]
    assert [int(frame.image[0, 0]) for frame in frames] == [50, 51, 52]
    assert all(frame.scale == SCALE and frame.taken_at.tzinfo and not frame.simulated for frame in frames)
    assert not frames[0].image.flags.writeable


def test_a_damaged_file_is_a_lost_frame_and_the_next_follows(tmp_path):
    write_images(tmp_path)
    whole = (tmp_path / "f1.png").read_bytes()
    (tmp_path / "f1.png").write_bytes(whole[: len(whole) // 2])
    frames = list(open_camera("folder", folder.Settings(tmp_path), Setup(SCALE)).frames())
    assert [type(frame) for frame in frames] == [Frame, LostFrame, Frame]
    assert (frames[1].reason, frames[1].sequence) == (Reason.UNREADABLE_IMAGE, 1)
    assert "f1.png" in frames[1].detail


def test_a_fine_jpeg_comes_at_a_part_of_its_size_and_says_so(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((300, 402), 90, np.uint8))
    (frame,) = folder.open_camera(folder.Settings(tmp_path), Setup(Scale(0.2, "measured"))).frames()
    assert frame.image.shape == (150, 201)
    assert frame.size == frame.full_size == (300, 402)
    assert frame.shrink == 2


def test_files_of_a_plate_carry_their_well_and_field(tmp_path):
    for well in ("A1", "B1"):
        (tmp_path / well).mkdir()
        write_images(tmp_path / well, n=2)
    wells = (
        PlateWell("B1", "zinc", "test", 10.0, "ug/mL", 1, files=("B1/*.png",)),
        PlateWell("A1", "medium", "negative", None, None, 1, files=("A1/f1.png", "A1/f0.png")),
    )
    frames = list(open_camera("folder", folder.Settings(tmp_path), Setup(SCALE, wells=wells)).frames())
    found = [(frame.well, frame.field, Path(frame.source).name) for frame in frames]
    assert found == [("B1", 0, "f0.png"), ("B1", 1, "f1.png"), ("A1", 0, "f1.png"), ("A1", 1, "f0.png")]


@pytest.mark.parametrize("place", ["beside", "above"])
@pytest.mark.parametrize("simulated", [True, False])
def test_rendered_files_are_marked_as_simulated(tmp_path, place, simulated):
    images = tmp_path / "images"
    images.mkdir()
    write_images(images, n=2)
    (images / "f1.png").write_bytes(b"no image")
    info = DatasetInfo(SCALE, "phase", "rendered", "CC0", simulated=simulated)
    write_dataset_info(images if place == "beside" else tmp_path, info)
    frames = list(open_camera("folder", folder.Settings(images), Setup(SCALE)).frames())
    assert [(type(frame), frame.simulated) for frame in frames] == [
        (Frame, simulated),
        (LostFrame, simulated),
    ]


def test_a_folder_of_wells_is_simulated_where_its_own_dataset_says_so(tmp_path):
    for well in ("A1", "B1"):
        (tmp_path / well).mkdir()
        write_images(tmp_path / well, n=1)
    write_dataset_info(tmp_path / "B1", DatasetInfo(SCALE, "phase", "rendered", "CC0", simulated=True))
    wells = tuple(
        PlateWell(name, name, "test", None, None, 1, files=(f"{name}/*.png",)) for name in ("A1", "B1")
    )
    frames = open_camera("folder", folder.Settings(tmp_path), Setup(SCALE, wells=wells)).frames()
    assert [frame.simulated for frame in frames] == [False, True]


@pytest.mark.parametrize(("make", "expected"), [(False, "does not exist"), (True, "holds no images")])
def test_a_missing_or_empty_folder_is_an_error(tmp_path, make, expected):
    path = tmp_path / "images"
    if make:
        path.mkdir()
    with pytest.raises(CameraError, match=rf"camera\.path.* {expected}"):
        open_camera("folder", folder.Settings(path), Setup(SCALE))


def test_closing_a_looping_folder_ends_it(tmp_path):
    write_images(tmp_path, n=1)
    camera = open_camera("folder", folder.Settings(tmp_path, loop=True), Setup(SCALE))
    sequences = []
    for frame in camera.frames():
        sequences.append(frame.sequence)
        if len(sequences) == 5:
            camera.close()
    assert sequences == [0, 1, 2, 3, 4]


# stream and usb


class _Stream(http.server.BaseHTTPRequestHandler):
    """An MJPEG camera: each frame one gray level brighter; `stall` makes it fall silent."""

    stall = None

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for level in range(10_000):
                jpeg = cv2.imencode(".jpg", np.full((48, 64), 20 + level % 200, np.uint8))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                if level > 20 and self.server.stall.wait(0.01):
                    self.server.over.wait(20)
                    return
        except OSError:
            return

    def log_message(self, *_):
        pass


@contextmanager
def mjpeg_stream():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stream)
    server.daemon_threads = True
    server.stall, server.over = threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/video.mjpg", server
    finally:
        server.stall.set()
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_stream_gives_gray_frames_newest_first():
    with mjpeg_stream() as (url, _):
        camera = open_camera("stream", stream.Settings(url), Setup(SCALE))
        frames = []
        for frame in camera.frames():
            frames.append(frame)
            if len(frames) == 3:
                camera.close()
    assert camera.live
    assert all(frame.image.shape == (48, 64) and frame.image.dtype == np.uint8 for frame in frames)
    assert [frame.sequence for frame in frames] == [0, 1, 2]
    assert frames[0].scale == SCALE


def test_a_stream_that_falls_silent_is_lost_within_its_limit():
    with mjpeg_stream() as (url, server):
        camera = open_camera("stream", stream.Settings(url, read_timeout_s=0.5), Setup(SCALE))
        frames = camera.frames()
        next(frames)
        server.stall.set()
        began = time.monotonic()
        with pytest.raises(CameraError, match=r"gave no frame for 0\.5 s; expected one; check its cable"):
            list(frames)
        assert time.monotonic() - began < 5
        camera.close()


def test_what_does_not_open_is_an_error_without_its_password():
    settings = stream.Settings("http://ada:secret@127.0.0.1:9/x", open_timeout_s=1.0)
    with pytest.raises(
        CameraError, match=r"127\.0\.0\.1:9/x cannot be opened; expected a stream that"
    ) as caught:
        open_camera("stream", settings, Setup(SCALE))
    assert "secret" not in str(caught.value)
    with pytest.raises(CameraError, match=r"'/dev/video99' cannot be opened; expected a V4L2 camera"):
        open_camera("usb", usb.Settings("/dev/video99"), Setup(SCALE))


class FakeCapture:
    """A V4L2 camera whose automatics creep on until they are switched off."""

    refuses = ()

    def __init__(self, *_):
        self.values = {cv2.CAP_PROP_EXPOSURE: 100.0, cv2.CAP_PROP_GAIN: 5.0, cv2.CAP_PROP_AUTO_EXPOSURE: 3.0}
        self.n_read = self.n_released = 0
        FakeCapture.last = self

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return True

    def set(self, control, value):
        if control in self.refuses:
            return False
        self.values[control] = value
        return True

    def get(self, control):
        return self.values.get(control, 0.0)

    def read(self):
        self.n_read += 1
        if self.values[cv2.CAP_PROP_AUTO_EXPOSURE] == 3.0:
            self.values[cv2.CAP_PROP_EXPOSURE] += 1
        return True, np.full((8, 8, 3), self.values[cv2.CAP_PROP_EXPOSURE] % 256, np.uint8)

    def release(self):
        self.n_released += 1


def test_a_usb_camera_holds_what_its_automatics_found(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "refuses", (cv2.CAP_PROP_WB_TEMPERATURE,))
    camera = open_camera("usb", usb.Settings("0", settle_s=0.05), Setup(SCALE))
    taken = [frame for frame, _ in zip(camera.frames(), range(3), strict=False)]
    camera.close()
    exposure = FakeCapture.last.values[cv2.CAP_PROP_EXPOSURE]
    assert exposure > 101, "the automatic had its time"
    assert {int(frame.image[0, 0]) for frame in taken} == {int(exposure % 256)}
    assert [frame.metadata for frame in taken] == [{"exposure_100us": exposure, "gain": 5.0}] * 3
    assert FakeCapture.last.values[cv2.CAP_PROP_AUTO_EXPOSURE] == 1.0
    assert FakeCapture.last.n_released == 1


def test_a_usb_camera_takes_what_is_asked_or_says_so(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    asked = usb.Settings("0", settle_s=0.0, exposure_100us=42, gain=7)
    camera = open_camera("usb", asked, Setup(SCALE))
    frame = next(camera.frames())
    camera.close()
    assert (frame.metadata["exposure_100us"], frame.metadata["gain"]) == (42.0, 7.0)
    monkeypatch.setattr(FakeCapture, "refuses", (cv2.CAP_PROP_GAIN,))
    camera = open_camera("usb", asked, Setup(SCALE))
    with pytest.raises(CameraError, match=r"camera\.gain is 7; expected what 0 takes, see `v4l2-ctl"):
        next(camera.frames())
    camera.close()


def test_a_stream_is_no_usb_device():
    with pytest.raises(ValueError, match=r"expected an index or a device file; a stream has camera\.kind = "):
        usb.Settings("rtsp://camera.lab/1")


def test_a_size_needs_both_sides():
    with pytest.raises(ValueError, match="width_px and height_px go together"):
        usb.Settings(width_px=640)


# jetson, and live cameras in a process of their own


@pytest.fixture
def csi(monkeypatch):
    """Give a function that names what GStreamer does: so many frames, and then a fault."""
    monkeypatch.setenv("PATH", f"{Path(__file__).parent / 'data/gst'}:{os.environ['PATH']}")
    return lambda does: monkeypatch.setenv("FAKE_GST", does)


CSI = jetson.Settings(
    exposure_us=9000, gain=1.5, width_px=96, height_px=64, interval_s=0.0, read_timeout_s=0.4
)


def in_process(settings=CSI, kind="jetson"):
    return ProcessCamera(kind, settings, Setup(SCALE), beat=lambda: None)


def leftovers():
    """What a camera could leave behind: files, threads and children of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), children


def test_the_pipeline_fixes_exposure_and_gain_and_keeps_the_newest_frame(csi, monkeypatch):
    csi("2:exit")
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **how: started.append(command) or popen(command, **how)
    )
    camera = open_camera("jetson", CSI, Setup(SCALE))
    next(camera.frames())
    camera.close()
    words = started[0]
    assert words[:5] == ["gst-launch-1.0", "-q", "nvarguscamerasrc", "sensor-id=0", "aelock=true"]
    assert {"exposuretimerange=9000000 9000000", "gainrange=1.5 1.5", "leaky=downstream"} <= set(words)
    assert "video/x-raw,format=GRAY8,width=96,height=64" in words


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("3:exit", r"ended its pipe \(it said: Error generated\. nvbufsurface: no cameras available\)"),
        ("3:short", "ended its pipe"),
        ("3:hang", r"gave no whole frame for 0\.4 s"),
        ("3:deaf", r"gave no whole frame for 0\.4 s"),
    ],
)
def test_a_csi_camera_that_fails_leaves_nothing_behind(csi, does, expected):
    csi(does)
    before = leftovers()
    taken = []
    with pytest.raises(CameraError, match=expected):
        taken.extend(in_process().frames())  # extend keeps what came before the error
    assert [frame.sequence for frame in taken] == [0, 1, 2]
    row = [(2 + pixel) % 256 for pixel in range(96)]
    assert (taken[2].image == row).all()
    assert not taken[2].image.flags.writeable
    assert (taken[2].source, taken[2].scale) == ("jetson:0", SCALE)
    assert taken[2].metadata == {"exposure_us": 9000.0, "gain": 1.5}
    assert leftovers() == before


def test_rows_that_gstreamer_would_pad_are_refused():
    with pytest.raises(ValueError, match="width_px is 321; expected a multiple of 4"):
        replace(CSI, width_px=321)


def test_without_gstreamer_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CameraError, match=r"gst-launch-1\.0 cannot be started .* apt install gstreamer1\.0"):
        open_camera("jetson", CSI, Setup(SCALE))


def freeze_child():
    """Stop the process of the camera, as one that hangs in its driver is."""
    (child,) = leftovers()[2]
    os.kill(int(child), signal.SIGSTOP)


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (freeze_child, r"camera phantom gave no sign for 1\.5 s and its process was killed"),
        (lambda: os.kill(int(leftovers()[2][0]), signal.SIGSEGV), r"phantom died \(Segmentation fault\)"),
    ],
)
def test_a_driver_that_hangs_or_crashes_is_a_lost_camera(monkeypatch, break_it, expected):
    monkeypatch.setattr("device.cameras._process._SPARE_S", -8.5)
    before = leftovers()
    settings = camera_settings("phantom")(live=True, height_px=64, width_px=64, n_cells=2)
    frames = in_process(settings, "phantom").frames()
    next(frames)
    break_it()
    with pytest.raises(CameraError, match=expected):
        list(frames)
    assert leftovers() == before


def test_a_fault_of_the_configuration_comes_back_from_the_process():
    settings = camera_settings("phantom")(live=True, height_px=16, width_px=16, n_cells=1000)
    with pytest.raises((ConfigError, CameraError), match="camera: "):
        next(in_process(settings, "phantom").frames())


def test_closing_ends_the_process_within_a_moment(csi):
    csi("1000000:deaf")
    before, beats = leftovers(), []
    camera = ProcessCamera("jetson", CSI, Setup(SCALE), beat=lambda: beats.append(1))
    frames = camera.frames()
    next(frames)
    assert beats
    camera.close()
    assert list(frames) == []
    assert leftovers() == before
