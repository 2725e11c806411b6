import http.server
import importlib
import threading
import time
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.cameras import LostFrame, Setup, camera_kinds, camera_settings, folder, open_camera, usb
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
    assert {"folder", "phantom", "raspberry", "usb"} <= set(camera_kinds())
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
    expected = r"camera\.kind is 'webcam'; expected one of folder, phantom, raspberry, usb"
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


# usb


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
        camera = open_camera("usb", usb.Settings(url), Setup(SCALE))
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
        camera = open_camera("usb", usb.Settings(url, read_timeout_s=0.5), Setup(SCALE))
        frames = camera.frames()
        next(frames)
        server.stall.set()
        began = time.monotonic()
        with pytest.raises(CameraError, match=r"gave no frame for 0\.5 s; check its cable"):
            list(frames)
        assert time.monotonic() - began < 5
        camera.close()


@pytest.mark.parametrize(
    ("device", "expected"),
    [("http://127.0.0.1:9/x", "a stream that can be reached"), ("/dev/video99", "a V4L2 camera")],
)
def test_a_device_that_does_not_open_is_an_error(device, expected):
    with pytest.raises(CameraError, match=f"cannot be opened; expected {expected}"):
        open_camera("usb", usb.Settings(device, open_timeout_s=1.0), Setup(SCALE))


def test_a_size_needs_both_sides():
    with pytest.raises(ValueError, match="width_px and height_px go together"):
        usb.Settings(width_px=640)
