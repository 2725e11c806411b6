"""How fast a running station is beside its analysis: to a subscriber, on the capture thread, in memory.

Used by tools/bench. The station is `device.station.Station` with all its loops, its journal on the disk, a
Mosquitto on loopback and a subscriber in another process; only its camera is one of drawn frames, so that
the capture thread can be timed between them.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from bench_frames import draw_frame

from device.demo.processes import run_broker, run_station
from device.publishers import Connected, Event, Received, Setup, mqtt, open_publisher
from device.records import Frame, Scale
from device.station import Station, load_config

TOPIC = "nanotox/v1/lab/bench-1"
STATION = """[station]
site = "lab"
name = "bench-1"
assay = "adherent"
modality = "phase"
[scale]
um_per_px = {um_per_px}
[camera]
{camera}
[publisher]
host = "127.0.0.1"
port = {port}
"""


LIVE = 'kind = "phantom"\nlive = true'
FILES = 'kind = "folder"\npath = "images"\nloop = true'


@dataclass(frozen=True, slots=True)
class Wire:
    """What was measured of a running station."""

    ways_ms: list[float]
    """From the journal's commit of a record to `on_message` of a subscriber."""
    outside_ms: list[float]
    """Processor time of the capture thread for a frame, its grab left out."""
    analysis_ms: list[float]
    """Processor time of the analyse thread for a frame: counting and inference."""
    resident_mib: float
    """Memory of `nanotox run` once steady."""

    @property
    def outside_share(self) -> float:
        """Share of the capture thread's work outside grab in counting and inference."""
        return float(np.median(self.outside_ms) / np.median(self.analysis_ms))


class Drawn:
    """A live camera of two drawn frames in turn, `period_s` apart."""

    live = True

    def __init__(self, n_frames: int, period_s: float) -> None:
        frame, other = (draw_frame("1332x990", 200, seed=seed) for seed in (1, 2))
        self.images, self.um_per_px = (frame.image, other.image), frame.um_per_px
        self._n_frames, self._period_s, self._closed = n_frames, period_s, threading.Event()
        self.outside_ms: list[float] = []
        self.shown = threading.Event()

    def frames(self) -> Iterator[Frame]:
        """Yield frames, timing what the capture thread does with each."""
        for number in range(self._n_frames):
            if self._closed.wait(self._period_s):
                return
            image = self.images[number % 2].copy()
            frame = Frame(image, datetime.now(UTC), "drawn", number, Scale(self.um_per_px, "measured"))
            before = time.thread_time()
            yield frame
            self.outside_ms.append(1e3 * (time.thread_time() - before))
        self.shown.set()
        self._closed.wait()

    def close(self) -> None:
        """End."""
        self._closed.set()


class TimedStation(Station):
    """A station that shows drawn frames and notes when a record is committed and what a frame takes."""

    def __init__(self, folder: Path, camera: Drawn) -> None:
        self.camera, self.committed, self.analysis_ms = camera, {}, []
        super().__init__(load_config(folder / "station.toml"), version="bench")
        append, read = self._journal.append, self._analysis.read

        def note(*records: object) -> object:
            sealed = append(*records)
            self.committed |= dict.fromkeys((item.seq for item in sealed), time.monotonic_ns())
            return sealed

        def timed(frame: Frame) -> object:
            before = time.thread_time()
            reading = read(frame)
            self.analysis_ms.append(1e3 * (time.thread_time() - before))
            return reading

        self._journal.append, self._analysis.read = note, timed

    def _open_camera(self, _wells: object) -> Drawn:
        return self.camera


def time_wire(n_frames: int, period_s: float = 0.25) -> Wire:
    """Return what a running station takes, over `n_frames` frames; the first two are not counted."""
    with tempfile.TemporaryDirectory() as name, run_broker(Path(name)) as port:
        folder, camera = Path(name), Drawn(n_frames, period_s)
        write_station(folder, LIVE, camera, port)
        listener = subprocess.Popen(
            [sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        listener.stdout.readline()  # it has subscribed
        stop, station = threading.Event(), TimedStation(folder, camera)
        running = threading.Thread(target=station.run, args=(stop,))
        running.start()
        camera.shown.wait(60 + n_frames)
        time.sleep(1)
        stop.set()
        running.join()
        came = dict(map(int, line.split()) for line in listener.communicate("")[0].splitlines())
        ways = [(at - station.committed[seq]) / 1e6 for seq, at in came.items() if seq > 4]
        write_station(folder, FILES, camera, port)
        resident = resident_mib(folder, port)
        return Wire(ways, camera.outside_ms[2:], station.analysis_ms[2:], resident)


def write_station(folder: Path, camera: str, drawn: Drawn, port: int) -> None:
    """Write station.toml, and the drawn frames as files beside it."""
    text = STATION.format(um_per_px=drawn.um_per_px, port=port, camera=camera)
    (folder / "station.toml").write_text(text)
    (folder / "images").mkdir(exist_ok=True)
    for number, image in enumerate(drawn.images):
        cv2.imwrite(str(folder / f"images/{number}.png"), image)


def resident_mib(folder: Path, port: int) -> float:
    """Return the memory of `nanotox run` after some fields, MiB."""
    with run_station(folder) as station, Listening(port) as heard:
        while len(heard.came) < 60 and station.poll() is None:
            time.sleep(0.1)
        status = Path(f"/proc/{station.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Listening:
    """A subscriber: `came` grows by the number of a record and when it came."""

    def __init__(self, port: int) -> None:
        self.came: list[tuple[int, int]] = []
        self.is_up = threading.Event()
        asked = (f"{TOPIC}/reading", f"{TOPIC}/verdict")
        setup = Setup(f"bench-{os.getpid()}", None, self._take, asked)
        self._client = open_publisher("mqtt", mqtt.Settings("127.0.0.1", port), setup)

    def _take(self, event: Event) -> None:
        now = time.monotonic_ns()  # one clock for all processes of a machine
        if isinstance(event, Connected):
            self.is_up.set()
        elif isinstance(event, Received):
            self.came.append((int(event.payload.partition(b'"seq":')[2].partition(b",")[0]), now))

    def __enter__(self) -> "Listening":
        self._client.start()
        self.is_up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


if __name__ == "__main__":
    with Listening(int(sys.argv[1])) as ear:
        print("listens", flush=True)
        sys.stdin.read()
    print("\n".join(f"{seq} {at}" for seq, at in ear.came))
