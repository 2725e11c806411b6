"""Broker, station and subscriber of the demo: each ends with its `with` block, whatever happens."""

import contextlib
import json
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from device.errors import PublishError
from device.messages import Topics
from device.publishers import Connected, Event, Received, Setup, mqtt, open_publisher

Messages: TypeAlias = "queue.Queue[tuple[str, dict[str, Any]]]"
"""Last part of the topic, and what stood there."""

_START_S = 120.0
"""Generous, for a machine that does much else."""
_STOP_S = 10.0


@contextlib.contextmanager
def run_broker(folder: Path) -> Iterator[int]:
    """Run a Mosquitto on a free port of loopback; yield the port."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise PublishError(
            "mosquitto is not on PATH; expected the broker Eclipse Mosquitto 2; start the demo with "
            "tools/demo, which fetches it, or run: apt install mosquitto"
        )
    port = _free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with _run([binary, "-c", str(settings)], folder / "mosquitto.log") as process:
        _wait_for(port, process, "mosquitto")
        yield port


@contextlib.contextmanager
def run_dashboard(folder: Path, broker_port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the dashboard on the broker of this port; yield its address and its process."""
    port = _free_port()
    command = [sys.executable, "-m", "device.cli", "dashboard", "--broker", f"mqtt://127.0.0.1:{broker_port}"]
    command += ["--db", str(folder / "lab.db"), "--port", str(port)]
    with _run(command, folder / "dashboard.log") as process:
        _wait_for(port, process, "dashboard")
        yield f"http://127.0.0.1:{port}/", process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_station(folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Run the station that station.toml of a folder describes, its log beside it."""
    command = [sys.executable, "-m", "device.cli", "run", "--config", str(folder / "station.toml")]
    return _run(command, folder / "station.log")


@contextlib.contextmanager
def _run(command: list[str], log_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def subscribe(port: int, topics: Topics) -> "Iterator[Messages]":
    """Subscribe to all that the station says; yield a queue of topic leaf and message."""
    messages: Messages = queue.Queue()
    subscribed = threading.Event()

    def take(event: Event) -> None:
        if isinstance(event, Connected):
            subscribed.set()
        elif isinstance(event, Received):
            messages.put((event.topic.rsplit("/", 1)[1], json.loads(event.payload)))

    asked = tuple(topics.of(leaf) for leaf in ("reading", "verdict", "plate"))
    settings = mqtt.Settings(host="127.0.0.1", port=port, session_expiry_s=0)
    client = open_publisher("mqtt", settings, Setup("nanotox-demo", None, take, asked))
    client.start()
    try:
        if not subscribed.wait(_START_S):
            raise PublishError(
                "mosquitto did not take the subscription; expected an answer; see mosquitto.log with --keep"
            )
        yield messages
    finally:
        client.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise PublishError(
        f"{name} did not open port {port} within {_START_S:.0f} s; expected it to; see {name}.log with --keep"
    )
