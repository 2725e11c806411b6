"""Only picamera2 is a fake here; docs/picamera2.md tells of the real one on a virtual sensor."""

import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from device.cameras import Setup, camera_kinds, camera_settings, open_camera, raspberry
from device.errors import CameraError
from device.records import Scale

SETUP = Setup(Scale(0.65, "measured"))
KNOWN = {
    "AeEnable": (False, True, True),
    "AwbEnable": (False, True, True),
    "ExposureTime": (100, 1_000_000, 20_000),
    "AnalogueGain": (1.0, 16.0, 1.0),
    "ColourGains": (0.0, 32.0, 1.0),
    "Sharpness": (0.0, 16.0, 1.0),
}


class FakeRequest:
    def __init__(self, array, number):
        self.array, self.number, self.n_released = array, number, 0

    def make_array(self, name):
        assert name == "main"
        if isinstance(self.array, Exception):
            raise self.array
        return self.array

    def get_metadata(self):
        return {
            "SensorTimestamp": time.monotonic_ns() - 40_000_000,
            "ExposureTime": 12_000 + self.number,
            "AnalogueGain": 2.0,
            "ColourGains": (1.5, 2.5),
        }

    def release(self):
        self.n_released += 1


class FakePicamera2:
    """What the adapter uses of picamera2.Picamera2: rows padded to a stride of 64, jobs that are futures."""

    models = ("imx477",)

    def __init__(self, index):
        self.index, self.calls, self.jobs, self.requests = index, [], [], []
        self.camera_controls, self.camera_properties = KNOWN, {"Model": self.models[index]}
        self.controls, self.closes = [], 0
        FakePicamera2.last = self

    @classmethod
    def global_camera_info(cls):
        return [{"Model": model, "Num": number} for number, model in enumerate(cls.models)]

    def create_still_configuration(self, **options):
        return options

    def configure(self, configuration):
        self.configuration = configuration

    def camera_configuration(self):
        return self.configuration

    def start(self):
        self.calls.append("start")

    def set_controls(self, controls):
        self.controls.append(controls)

    def array(self, number):
        width, height = self.configuration["main"]["size"]
        stride = -(-width // 64) * 64
        padded = np.full((height * 3 // 2, stride), 255, np.uint8)
        padded[:height, :width] = (np.arange(height * width) + number).reshape(height, width) % 250
        return padded

    def capture_request(self, *, wait):
        assert wait is False
        job = Future()
        self.jobs.append(job)
        self.requests.append(FakeRequest(self.array(len(self.requests)), len(self.requests)))
        job.set_result(self.requests[-1])
        return job

    def wait(self, job):
        return job.result()

    def cancel_all_and_flush(self):
        for job in self.jobs:
            if not job.done():
                job.set_exception(CancelledError())

    def close(self):
        self.closes += 1


@pytest.fixture
def use(monkeypatch):
    """Return a function that makes `camera` the class of the picamera2 module."""

    def install(camera=FakePicamera2):
        monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=camera))

    return install


def options(**changes):
    quick = {"width_px": 100, "height_px": 48, "settle_s": 0.0, "interval_s": 0.0, "read_timeout_s": 2.0}
    return raspberry.Settings(**(quick | changes))


def take(camera, count=1):
    frames = camera.frames()
    taken = list(islice(frames, count))
    frames.close()
    camera.close()
    return taken


def test_kind_is_listed_and_has_settings_without_picamera2():
    assert "raspberry" in camera_kinds()
    assert camera_settings("raspberry") is raspberry.Settings


def test_frames_are_the_gray_plane_without_padding(use):
    use()
    frames = take(open_camera("raspberry", options(), SETUP), 3)
    assert [frame.sequence for frame in frames] == [0, 1, 2]
    for frame in frames:
        assert frame.image.shape == (48, 100)
        assert frame.image.dtype == np.uint8
        assert not frame.image.flags.writeable
        assert frame.image.max() < 250  # the padding and the color planes hold 255
        assert (frame.source, frame.scale, frame.simulated) == ("raspberry:0:imx477", SETUP.scale, False)
    assert all(request.n_released == 1 for request in FakePicamera2.last.requests)


def test_time_of_a_frame_is_when_the_sensor_was_read(use):
    use()
    before = datetime.now(UTC)
    (frame,) = take(open_camera("raspberry", options(), SETUP))
    assert before - timedelta(seconds=1) < frame.taken_at < datetime.now(UTC) - timedelta(milliseconds=40)


@pytest.mark.parametrize("metadata", [{}, {"SensorTimestamp": -(10**18)}, {"SensorTimestamp": 2**62}])
def test_a_time_stamp_of_another_clock_is_not_believed(metadata):
    assert abs(raspberry._taken_at(metadata) - datetime.now(UTC)) < timedelta(seconds=5)


def test_exposure_gain_and_white_balance_are_locked_where_they_settled(use):
    use()
    take(open_camera("raspberry", options(), SETUP))
    picam2 = FakePicamera2.last
    assert picam2.configuration["controls"] == {"Sharpness": 0.0}  # the others are unknown to this camera
    assert picam2.controls == [
        {
            "AeEnable": False,
            "AwbEnable": False,
            "ExposureTime": 12_000,
            "AnalogueGain": 2.0,
            "ColourGains": (1.5, 2.5),
        }
    ]
    assert len(picam2.requests) == 1 + raspberry._LOCK_FRAMES + 1


def test_a_frame_says_how_it_was_taken(use):
    use()
    first, _ = take(open_camera("raspberry", options(), SETUP), 2)
    assert first.metadata == {
        "exposure_us": 12_000.0 + 1 + raspberry._LOCK_FRAMES,  # the fake counts its frames there
        "gain": 2.0,
        "red_gain": 1.5,
        "blue_gain": 2.5,
    }


def test_automatic_exposure_gets_its_time_before_it_is_locked(use):
    use()
    take(open_camera("raspberry", options(settle_s=0.05), SETUP))
    assert FakePicamera2.last.controls[0]["ExposureTime"] > 12_001


def test_given_exposure_and_gain_hold_from_the_start(use):
    use()
    take(open_camera("raspberry", options(exposure_us=5000, gain=1.5), SETUP))
    picam2 = FakePicamera2.last
    assert picam2.configuration["controls"] == {"Sharpness": 0.0, "ExposureTime": 5000, "AnalogueGain": 1.5}
    assert (picam2.controls[0]["ExposureTime"], picam2.controls[0]["AnalogueGain"]) == (5000, 1.5)


def test_a_camera_without_controls_is_left_alone(use):
    class Bare(FakePicamera2):
        def __init__(self, index):
            super().__init__(index)
            self.camera_controls = {}

    use(Bare)
    take(open_camera("raspberry", options(), SETUP))
    assert FakePicamera2.last.controls == []
    with pytest.raises(CameraError, match=r"ExposureTime is 5000; expected nothing, for there is no such"):
        open_camera("raspberry", options(exposure_us=5000), SETUP)


def test_an_exposure_beyond_the_sensor_is_refused(use):
    use()
    with pytest.raises(
        CameraError, match=r"camera 0 \(imx477\): ExposureTime is 2000000; expected 100 to 1000000"
    ):
        open_camera("raspberry", options(exposure_us=2_000_000, read_timeout_s=20.0), SETUP)
    assert FakePicamera2.last.closes == 1


@pytest.mark.parametrize("missing", ["picamera2", "libcamera"])
def test_a_missing_library_is_said_with_its_cure(monkeypatch, missing):
    def refuse(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(raspberry.importlib, "import_module", refuse)
    expected = (
        rf"No module named '{missing}'.*expected .*apt install python3-picamera2.*--system-site-packages"
    )
    with pytest.raises(CameraError, match=expected):
        raspberry.open_camera(options(), SETUP)


def test_a_missing_camera_is_said_with_those_found(use):
    use()
    with pytest.raises(
        CameraError, match=r"found 1 camera\(s\) \(imx477\); expected one with camera.index 2; check"
    ):
        open_camera("raspberry", options(index=2), SETUP)


def test_a_camera_in_use_is_said_with_the_cause_at_the_bottom(use):
    class Busy(FakePicamera2):
        def __init__(self, index):
            cause = RuntimeError("Failed to acquire camera: Device or resource busy")
            raise RuntimeError("Camera __init__ sequence did not complete.") from cause

    use(Busy)
    with pytest.raises(
        CameraError, match=r"camera 0 \(imx477\) cannot be started: .*resource busy.*end other"
    ):
        open_camera("raspberry", options(), SETUP)


def test_a_camera_that_cannot_start_is_closed_again(use):
    class Refusing(FakePicamera2):
        def start(self):
            raise RuntimeError("Failed to start camera")

    use(Refusing)
    with pytest.raises(
        CameraError, match=r"Failed to start camera; expected it free and able to give 100 x 48"
    ):
        open_camera("raspberry", options(), SETUP)
    assert FakePicamera2.last.closes == 1


def test_a_size_that_the_camera_adjusts_is_refused(use):
    class Adjusting(FakePicamera2):
        def camera_configuration(self):
            return {"main": {"size": (96, 48), "format": "YUV420"}}

    use(Adjusting)
    with pytest.raises(CameraError, match=r"gives 96 x 48 YUV420; expected 100 x 48 YUV420; .*um_per_px"):
        open_camera("raspberry", options(), SETUP)
    assert FakePicamera2.last.closes == 1


@pytest.mark.parametrize("shape", [(48, 128), (72, 99), (72, 128, 3)])
def test_an_array_of_another_shape_is_refused(use, shape):
    class Odd(FakePicamera2):
        def array(self, number):
            return np.zeros(shape, np.uint8)

    use(Odd)
    with pytest.raises(
        CameraError, match=r"gave uint8 \(.*\); expected uint8, 72 rows of at least 100 \(100 x 48"
    ):
        take(open_camera("raspberry", options(), SETUP))


def test_an_array_of_another_type_is_refused(use):
    class Deep(FakePicamera2):
        def array(self, number):
            return super().array(number).astype(np.uint16)

    use(Deep)
    with pytest.raises(CameraError, match="gave uint16"):
        take(open_camera("raspberry", options(), SETUP))


class HangingPicamera2(FakePicamera2):
    """Gives `n_good` frames and then none, as after a loose cable."""

    n_good = 0

    def capture_request(self, *, wait):
        job = super().capture_request(wait=wait)
        if len(self.requests) > self.n_good:
            job = Future()
            self.jobs[-1] = job
        return job


def test_a_camera_that_hangs_is_lost_after_its_limit(use):
    use(HangingPicamera2)
    camera = open_camera("raspberry", options(read_timeout_s=0.1), SETUP)
    with pytest.raises(
        CameraError, match=r"raspberry:0:imx477 gave no frame for 0.1 s; expected .*check the cable"
    ):
        next(camera.frames())
    camera.close()
    assert FakePicamera2.last.closes == 1
    assert isinstance(FakePicamera2.last.jobs[-1].exception(timeout=5), CancelledError)


def test_close_ends_a_wait_at_once_and_without_an_error(use):
    waits = threading.Event()

    class Waiting(HangingPicamera2):
        n_good = 1 + raspberry._LOCK_FRAMES + 1

        def wait(self, job):
            if not job.done():
                waits.set()
            return super().wait(job)

    use(Waiting)
    camera = open_camera("raspberry", options(read_timeout_s=60.0), SETUP)
    frames = camera.frames()
    next(frames)
    closer = threading.Thread(target=lambda: (waits.wait(10), camera.close()))
    closer.start()
    began_s = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - began_s < 10
    closer.join()


def test_close_ends_the_pause_between_frames(use):
    use()
    camera = open_camera("raspberry", options(interval_s=3600.0), SETUP)
    frames = camera.frames()
    next(frames)
    camera.close()
    camera.close()
    assert list(frames) == []
    assert FakePicamera2.last.closes == 1


def test_one_unreadable_frame_is_skipped_and_three_are_a_lost_camera(use):
    class Torn(FakePicamera2):
        bad = range(12, 13)

        def array(self, number):
            if number in self.bad:
                return ValueError("cannot reshape array of size 9")
            return super().array(number)

    use(Torn)
    frames = take(open_camera("raspberry", options(), SETUP), 5)
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3, 4]
    assert all(request.n_released == 1 for request in FakePicamera2.last.requests)

    Torn.bad = range(12, 99)
    with pytest.raises(
        CameraError, match=r"gave frames that cannot be read \(cannot reshape array of size 9\)"
    ):
        take(open_camera("raspberry", options(), SETUP), 5)


def test_a_camera_that_hangs_at_opening_is_given_up_and_closed_when_it_wakes(use, monkeypatch):
    wake, closed = threading.Event(), threading.Event()

    class Sleepy(FakePicamera2):
        def start(self):
            wake.wait(10)

        def close(self):
            closed.set()

    use(Sleepy)
    monkeypatch.setattr(raspberry, "_OPEN_S", 0.1)
    with pytest.raises(
        CameraError, match=r"camera 0 did not answer within 0.1 s; expected it to start; check"
    ):
        open_camera("raspberry", options(), SETUP)
    wake.set()
    assert closed.wait(10)


def test_a_camera_that_hangs_at_closing_is_abandoned(use, monkeypatch, caplog):
    wake = threading.Event()

    class Stuck(FakePicamera2):
        def close(self):
            wake.wait(10)

    use(Stuck)
    monkeypatch.setattr(raspberry, "_CLOSE_S", 0.1)
    open_camera("raspberry", options(), SETUP).close()
    assert "raspberry:0:imx477 did not stop within 0.1 s and was abandoned" in caplog.text
    wake.set()


def test_a_camera_that_fails_at_closing_is_only_logged(use, caplog):
    class Failing(FakePicamera2):
        def close(self):
            raise RuntimeError("Unable to stop preview.")

    use(Failing)
    open_camera("raspberry", options(), SETUP).close()
    assert "did not stop cleanly: Unable to stop preview." in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width_px": 101}, r"size is 101 x 48 px; expected even numbers"),
        ({"exposure_us": 500_000}, r"read_timeout_s is 2.0; expected over 4 times exposure_us"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)
