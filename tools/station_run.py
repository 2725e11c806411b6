"""A station in a process of its own, what it says to a broker, and what is left of it: for check-station."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from device.messages import Topics
from device.publishers import Connected, Event, Received, mqtt, open_publisher
from device.publishers import Setup as PublisherSetup

TOPICS = Topics("lab", "check-1")
LIMIT_S = 60.0
STATION = """[station]
site = "lab"
name = "check-1"
assay = "adherent"
modality = "phase"
[scale]
um_per_px = 0.65
[camera]
{camera}
[publisher]
host = "127.0.0.1"
port = {port}
[journal]
drain_s = 60
"""
LIVE = 'kind = "phantom"\nlive = true\nheight_px = 96\nwidth_px = 128\nn_cells = 4\nperiod_s = 0.02'


class Listener:
    """A consumer that counts what arrives: words of availability, and the `seq` of each record."""

    def __init__(self, port: int) -> None:
        self.words: queue.Queue[str] = queue.Queue()
        self.seqs: set[int] = set()
        subscribed = threading.Event()

        def take(event: Event) -> None:
            if isinstance(event, Connected):
                subscribed.set()
            elif isinstance(event, Received) and event.topic.endswith("/availability"):
                self.words.put(event.payload.decode())
            elif isinstance(event, Received):
                _, _, number = event.payload.partition(b'"seq":')
                self.seqs.add(int(number.partition(b",")[0]))

        asked = tuple(TOPICS.of(leaf) for leaf in ("availability", "reading", "verdict", "plate"))
        settings = mqtt.Settings(host="127.0.0.1", port=port, session_expiry_s=0)
        self._client = open_publisher("mqtt", settings, PublisherSetup("nanotox-check", None, take, asked))
        self._client.start()
        if not subscribed.wait(LIMIT_S):
            raise SystemExit("mosquitto does not take a subscription; expected it to; see its log")
        self.close = self._client.close


@contextlib.contextmanager
def running(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the station of a folder, its log beside it; it is dead afterwards."""
    command = [sys.executable, "-m", "device.cli", "run", "--config", str(folder / "station.toml")]
    with (folder / "station.log").open("ab") as log:
        process = subprocess.Popen(
            command, stderr=log, cwd=folder, env=os.environ | {"PYTHONFAULTHANDLER": "1"}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end(station: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait for the end of a station that was told to; SystemExit with where its threads stand if it hangs."""
    try:
        station.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        station.send_signal(signal.SIGABRT)
        station.wait(LIMIT_S)
        sys.exit((folder / "station.log").read_text()[-6000:] + "\nthe station did not end")


def wait_for(is_met: Callable[[], object], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Return once `is_met()` holds; SystemExit after `limit_s`."""
    until = time.monotonic() + limit_s
    while not is_met():
        if time.monotonic() > until:
            raise SystemExit(f"{what} did not come about within {limit_s:g} s")
        time.sleep(0.02)


def orphans(folder: Path) -> int:
    """Return how many processes still work in `folder`: the station's, its camera's, GStreamer's."""
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            count += entry.name.isdecimal() and (entry / "cwd").readlink() == folder
    return count


def iter_words(listener: Listener, *, ends_with: str | None) -> Iterator[str]:
    """Yield the words of availability that came; wait for the last one where it is known to come."""
    with contextlib.suppress(queue.Empty):
        while True:
            word = listener.words.get(timeout=0.05 if ends_with is None else 2.0)
            yield word
            if word == ends_with:
                return


@contextlib.contextmanager
def broker_again(folder: Path, port: int) -> Iterator[None]:
    """Run Mosquitto once more on the port that it had."""
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n"
    )
    path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    process = subprocess.Popen(["mosquitto", "-c", str(folder / "mosquitto.conf")], env={"PATH": path})
    try:
        yield
    finally:
        process.kill()
        process.wait()


def n_stored(folder: Path) -> int:
    """Return the newest `seq` of the journal, 0 before there is one."""
    import sqlite3

    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)) as db,
    ):
        return int(db.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()[0])
    return 0
