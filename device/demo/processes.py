"""Broker, station and subscriber of the demo: each ends with its `with` block, whatever happens."""

import contextlib
import json
import queue
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from device.errors import PublishError
from device.messages import Topics

Messages: TypeAlias = "queue.Queue[tuple[str, dict[str, Any]]]"
"""Last part of the topic, and what stood there."""

_START_S = 20.0
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
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
    )
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)  # noqa: S603
        try:
            _wait_for(port, process)
            yield port
        finally:
            _stop(process)


@contextlib.contextmanager
def run_station(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the station that station.toml of a folder describes, its log beside it."""
    command = [sys.executable, "-m", "device.cli", "run", "--config", str(folder / "station.toml")]
    with (folder / "station.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
        try:
            yield process
        finally:
            _stop(process)


@contextlib.contextmanager
def subscribe(port: int, topics: Topics) -> "Iterator[Messages]":
    """Subscribe to all that the station says; yield a queue of topic leaf and message."""
    messages: Messages = queue.Queue()
    is_subscribed: queue.Queue[bool] = queue.Queue()

    def take(_client: Client, _data: object, message: MQTTMessage) -> None:
        messages.put((message.topic.rsplit("/", 1)[1], json.loads(message.payload)))

    client = Client(
        CallbackAPIVersion.VERSION2, client_id="nanotox-demo", protocol=MQTTProtocolVersion.MQTTv5
    )
    client.on_message = take
    client.on_subscribe = lambda *_: is_subscribed.put(True)
    client.connect("127.0.0.1", port)
    client.subscribe([(topics.of(leaf), 1) for leaf in ("reading", "verdict", "plate")])
    client.loop_start()
    try:
        try:
            is_subscribed.get(timeout=_START_S)
        except queue.Empty:
            raise PublishError(
                "mosquitto did not take the subscription; expected an answer; see mosquitto.log with --keep"
            ) from None
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise PublishError(
        f"mosquitto did not open port {port} within {_START_S:.0f} s; expected it to; see its log with --keep"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
