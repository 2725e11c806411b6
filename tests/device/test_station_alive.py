"""A station that cannot hang unseen: its loops are watched, and no fault outside of it stops them."""

import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

import device.station as station_module
import device.station.analysis as analysis_module
from device.analysis.assess import AnalysisSettings, refuse
from device.analysis.grading import default_rule
from device.cameras import folder
from device.errors import CameraError, ConfigError, StationError
from device.journal import Journal, StorageFullError
from device.publishers import jsonl
from device.records import Frame, ModelId, Reason
from device.service import Watchdog
from device.station import Instruments, Station, load_config
from device.station.buffer import Buffer
from device.station.capture import Aim, Capture

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
BENCH = (Path(__file__).parent / "data" / "bench.toml").read_text()
CONFIG = BENCH.replace("[publisher]", "loop = true\n[publisher]")


class Model:
    id = ModelId("toy", "0" * 64, trusted=True)
    classes = ()


def read(frame, classify, settings, **_):
    return refuse(frame, Reason.BLUR, classify, settings)


class Running:
    """A station that runs in a thread of its own, and what systemd hears of it."""

    def __init__(self, folder_path, text):
        (folder_path / "station.toml").write_text(text)
        config = load_config(folder_path / "station.toml")
        tools = Instruments(
            AnalysisSettings("adherent", "phase"), Model(), None, default_rule("adherent"), None
        )
        self.station = Station(config, version="0.1.0", instruments=tools)
        self.stop, self.error = threading.Event(), None
        self.thread = threading.Thread(target=self._run)
        self.folder = folder_path

    def _run(self):
        try:
            self.station.run(self.stop)
        except StationError as error:
            self.error = error

    def sent(self, leaf):
        path = self.folder / "messages.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line["payload"] for line in lines if line["topic"].endswith("/" + leaf)]


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A watchdog that bites after 0.2 s; it gives a function that waits for the next words of a station."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)

        def wait_for(word, n=1):
            while n:
                n -= word in heard.recv(1000).decode().split("\n")

        def left():
            heard.setblocking(False)
            said = []
            try:
                while True:
                    said += heard.recv(1000).decode().split("\n")
            except BlockingIOError:
                return said
            finally:
                heard.settimeout(30)

        wait_for.left = left
        yield wait_for


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Give a function that starts a station over a picture that never ends."""
    monkeypatch.setattr(analysis_module, "assess", read)
    monkeypatch.setattr("device.station._STOP_DRAIN_S", 0.1)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/f.png"), np.full((8, 8), 9, np.uint8))
    started = []

    def run(text=CONFIG):
        started.append(Running(tmp_path, text))
        started[-1].thread.start()
        return started[-1]

    yield run
    for running in started:
        running.stop.set()
        running.thread.join(30)
        assert not running.thread.is_alive()


@pytest.mark.parametrize(
    ("loop", "owner", "name"),
    [
        ("capture", folder.FolderCamera, "_read"),
        ("analyse", analysis_module, "assess"),
        ("store", Journal, "append"),
        ("send", jsonl.JsonlPublisher, "send"),
    ],
)
def test_a_loop_that_hangs_withholds_the_watchdog_within_one_period(
    start, systemd, monkeypatch, loop, owner, name
):
    works, hangs, goes_on = getattr(owner, name), threading.Event(), threading.Event()
    is_frozen, looks = threading.Event(), []

    def may_hang(*arguments, **options):
        if is_frozen.is_set() and threading.current_thread().name == loop:
            hangs.set()
            assert goes_on.wait(60)
        return works(*arguments, **options)

    def feed(watchdog):
        looks.append(feeds(watchdog))
        return looks[-1]

    feeds = Watchdog.feed
    monkeypatch.setattr(Watchdog, "feed", feed)
    monkeypatch.setattr(owner, name, may_hang)
    monkeypatch.setattr(station_module, "_LATE_S", 0.3)
    running = start()
    systemd("READY=1")
    systemd("WATCHDOG=1", n=3)
    is_frozen.set()
    if loop == "send":
        running.station._teller.say(mode="paused")
    wait_until(lambda: systemd.left() is not None and hangs.is_set())  # read, or its queue fills up
    n_before = len(looks) + 1  # the look under way may have been at a loop that still turned
    while len(looks) < n_before + 20:  # 1 s: ten periods
        assert running.thread.is_alive()
        systemd.left()
        goes_on.wait(0.01)
    assert sum(looks[n_before:]) <= 1, "what had turned before may be told once more"
    status, _, told = running.station._monitor.answer("/healthz")
    assert (status, loop in json.loads(told)["loops"]) == (503, True)
    systemd.left()
    goes_on.set()
    systemd("WATCHDOG=1", n=2)
    running.stop.set()
    running.thread.join(30)
    assert running.error is None


def test_no_broker_no_camera_and_no_room_do_not_starve_the_watchdog(start, systemd, monkeypatch):
    class Gone:
        def __init__(self, *_, **__):
            raise CameraError("no camera")

    def refuse_row(*_):
        full.set()
        raise StorageFullError("the disk is full; make room")

    full = threading.Event()
    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", Gone)
    monkeypatch.setattr(Journal, "append", refuse_row)
    monkeypatch.setattr("device.station.store._FULL_S", 0.05)
    running = start(CONFIG.replace('kind = "jsonl"', 'kind = "mqtt"\nhost = "127.0.0.1"\nport = 9'))
    systemd("READY=1")
    assert full.wait(30)
    systemd("WATCHDOG=1", n=10)
    assert running.thread.is_alive()


def test_a_camera_that_is_missing_at_the_start_is_told_and_taken_when_it_comes(start, systemd, monkeypatch):
    plugged = threading.Event()

    class Camera:
        live = True

        def __init__(self, *_, **__):
            if not plugged.is_set():
                raise CameraError("no camera; check its cable")
            self.closed = threading.Event()

        def frames(self):
            for i in range(1_000_000):
                yield Frame(np.full((8, 8), i % 9, np.uint8), NOW, "cam", i)
                if self.closed.wait(0.01):
                    return

        def close(self):
            self.closed.set()

    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", Camera)
    monkeypatch.setattr("device.station.capture._REOPEN_S", (0.01, 0.05))
    monkeypatch.setattr("device.station.sender._QUIET_S", 0.01)
    running = start()
    systemd("READY=1")
    wait_until(lambda: running.sent("reading"))
    assert running.sent("reading")[0]["reasons"] == ["CAMERA_LOST"]
    wait_until(lambda: running.sent("state")[-1]["fault"] == "CAMERA_LOST")
    plugged.set()
    wait_until(lambda: len(running.sent("reading")) > 3)
    wait_until(lambda: running.sent("state")[-1]["fault"] is None)
    assert [reading["reasons"] for reading in running.sent("reading")].count(["CAMERA_LOST"]) == 1


def test_a_camera_that_is_configured_wrongly_ends_the_station(start, systemd, monkeypatch):
    class Wrong:
        def __init__(self, *_, **__):
            raise ConfigError("camera.n_cells is too much")

    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", Wrong)
    running = start()
    running.thread.join(30)
    assert isinstance(running.error, ConfigError)


def wait_until(is_met):
    until = time.monotonic() + 30
    while not is_met():
        assert time.monotonic() < until
        threading.Event().wait(0.01)


# Frozen and unplugged cameras


class Plugged:
    """A live camera that shows some images and ends as it is told."""

    live = True

    def __init__(self, images, error=None, **marks):
        self.images, self.error, self.marks, self.closed = images, error, marks, False

    def frames(self):
        for i, image in enumerate(self.images):
            yield Frame(image, NOW, "cam", i, **self.marks)
        if self.error is not None:
            raise self.error

    def close(self):
        self.closed = True


def watch(cameras, size=1_000_000):
    """Return what a capture loop gives and notes over some cameras, one after the other."""
    frames, faults, cameras = Buffer(size), [], iter(cameras)

    def open_next():
        if (camera := next(cameras, None)) is None:
            capture.close()
            raise CameraError("nothing left")
        return camera

    capture = Capture(
        "cam", open_next, frames, lambda *fault: faults.append(fault), lambda: Aim(0), live=True
    )
    capture.run()
    given = []
    while (shot := frames.get()) is not None:
        given.append(getattr(shot.frame, "reason", None))
    return given, faults


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("device.station.capture._REOPEN_S", (0.0, 0.0))


def noisy(rng, sigma=0.5):
    return np.clip(rng.normal(120, sigma, (48, 64)), 0, 255).astype(np.uint8)


def test_the_fifth_identical_frame_is_frozen_until_another_comes(at_once):
    rng = np.random.default_rng(1)
    stuck, other = noisy(rng), noisy(rng)
    cameras = [Plugged([other, *[stuck.copy() for _ in range(9)]]), Plugged([stuck] * 3), Plugged([other])]
    given, faults = watch(cameras)
    frozen, lost = Reason.FROZEN_FRAME, Reason.CAMERA_LOST
    assert given == [None, None, None, None, None, frozen, None, lost]
    assert faults == [(frozen, True), (frozen, False), (lost, True)]
    assert all(camera.closed for camera in cameras)


def test_noise_is_never_frozen_nor_is_what_may_repeat(at_once):
    rng = np.random.default_rng(2)
    live = Plugged([noisy(rng, sigma) for sigma in (0.2, 0.5, 2.0) for _ in range(300)])
    dark = Plugged([np.zeros((8, 8), np.uint8)] * 20)
    rendered = Plugged([noisy(rng)] * 20, simulated=True)
    given, _ = watch([live, dark, rendered])
    assert Reason.FROZEN_FRAME not in given
    assert given.count(None) == 900 + 20 + 20


@pytest.mark.timeout(3600)
def test_a_million_noisy_frames_are_no_frozen_ones():
    """The least noise that a sensor has: 1 % of the pixels of a small frame are a gray level off."""
    n_frames = 1_000_000 if os.environ.get("NANOTOX_LONG") else 2000
    rng = np.random.default_rng(4)
    pool = np.rint(rng.normal(120, 0.2, 1 << 22)).astype(np.uint8)
    starts = rng.integers(0, pool.size - 768, n_frames)
    assert 0.005 < (pool != 120).mean() < 0.02
    given, faults = watch([Plugged(pool[i : i + 768].reshape(24, 32) for i in starts)], size=9)
    assert given == [None] * 8 + [Reason.CAMERA_LOST]
    assert faults == [(Reason.CAMERA_LOST, True)]


def test_a_camera_that_is_away_for_long_is_tried_often_enough(monkeypatch):
    waits, start_s = [], 2.1  # a camera's process on a busy machine, docs/reliability.md
    monkeypatch.setattr(Capture, "_pause", lambda _, wait_s: waits.append(wait_s))
    watch(Plugged([], CameraError("away")) for _ in range(20))
    assert waits[:2] == [0.5, 1.0]
    assert max(waits) + start_s <= 5.0


def test_a_thousand_unplugs_leave_no_thread_and_no_frame_uncounted(at_once):
    rng = np.random.default_rng(3)
    error = CameraError("unplugged")
    n_threads = threading.active_count()
    given, faults = watch(Plugged([noisy(rng)] * 2, error) for _ in range(1000))
    assert given == [None, None, Reason.CAMERA_LOST] * 1000
    assert len(faults) == 1999, "each loss is told, and each return but the last"
    assert threading.active_count() == n_threads


# Overload, and how frames were taken


def test_a_late_analysis_sees_the_present_and_every_frame_is_accounted_for(start, systemd, monkeypatch):
    n_given, n_frames, ages = [0], 200, []

    def images():
        for i in range(n_frames):
            n_given[0] = i + 1
            yield np.full((8, 8), i % 9, np.uint8)

    def read_late(frame, classify, settings, **_):
        ages.append(n_given[0] - 1 - frame.sequence)
        until = min(n_given[0] + 20, n_frames)
        wait_until(lambda: n_given[0] >= until)  # twenty frames come meanwhile
        return read(frame, classify, settings)

    class Fast(Plugged):
        def __init__(self, *_, **__):
            super().__init__(images())

        def frames(self):
            for frame in super().frames():
                yield frame
                threading.Event().wait(0.002)
            wait_until(lambda: running.stop.is_set())

    monkeypatch.setattr(analysis_module, "assess", read_late)
    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", Fast)
    running = start()
    frames = running.station._frames
    wait_until(lambda: n_given[0] == n_frames and not frames._items)
    wait_until(lambda: len(ages) + frames.flow.n_dropped == n_frames)
    assert frames.flow.n_dropped > n_frames / 2
    assert max(ages) <= 3, "two wait in the queue, one more may come while one is taken"


def test_how_the_camera_takes_its_frames_is_stored_when_it_changes(start, systemd, monkeypatch):
    class Told(Plugged):
        def __init__(self, *_, **__):
            super().__init__([])

        def frames(self):
            for i, exposure in enumerate((9.0, 9.0, 12.0, 12.0)):
                metadata = {"exposure_us": exposure}
                yield Frame(np.full((8, 8), i, np.uint8), NOW, "cam", i, metadata=metadata)
                wait_until(lambda i=i: running.station._records.n_fields > i)
            wait_until(lambda: running.stop.is_set())

    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", Told)
    running = start()
    wait_until(lambda: len(running.sent("reading")) == 4)
    told = running.station._journal.notes("camera", limit=9)
    assert [body["exposure_us"] for _, body in reversed(told)] == [9.0, 12.0]
    assert told[0][1]["source"] == "cam"
