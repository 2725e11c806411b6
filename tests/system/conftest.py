import json
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A real Mosquitto on loopback that can be killed and started again on the same port."""

    def __init__(self, program, folder, extra=""):
        self.port = free_port()
        self._program = program
        self._folder = folder
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"log_dest file {folder}/mosquitto.log\n{extra}"
        )
        self._process = None

    def start(self):
        self._process = subprocess.Popen([self._program, "-c", str(self._config)])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen: " + (self._folder / "mosquitto.log").read_text())

    def kill(self):
        self._process.kill()
        self._process.wait()

    def stop(self):
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


class Subscriber:
    """A client that keeps every message of a broker, over reconnects, in a persistent session."""

    def __init__(self, port, topic="nanotox/#"):
        self.messages = []
        self._news = threading.Condition()
        self._subscribed = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=f"test-{id(self)}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._keep
        expiry = Properties(PacketTypes.CONNECT)
        expiry.SessionExpiryInterval = 600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=expiry)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _keep(self, _client, _data, message):
        with self._news:
            self.messages.append(message)
            self._news.notify_all()

    def wait_for(self, is_met, timeout_s=30):
        """Wait until `is_met(self)` holds; return whether it does."""
        with self._news:
            return self._news.wait_for(lambda: is_met(self), timeout_s)

    def payloads(self, leaf):
        return [json.loads(m.payload) for m in list(self.messages) if m.topic.endswith("/" + leaf)]

    def words(self):
        return [m.payload.decode() for m in list(self.messages) if m.topic.endswith("/availability")]

    def seqs(self):
        return [p["seq"] for leaf in ("reading", "verdict", "plate", "alert") for p in self.payloads(leaf)]

    def close(self):
        client = self._client
        client.disconnect()
        client.loop_stop()
        # Held by its own callbacks it would go with a collection, which may finish its sockets before it.
        client.on_connect = client.on_subscribe = client.on_message = None


def _brokers(parent):
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed; tools/test installs it")
    brokers = []

    def make(extra=""):
        folder = parent / f"broker-{len(brokers)}"
        folder.mkdir()
        # As root it would change its user and could no longer read the files of a test.
        broker = Broker(program, folder, f"user root\n{extra}" if os.geteuid() == 0 else extra)
        brokers.append(broker)
        return broker.start()

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture
def make_broker(tmp_path):
    """Give a function that starts a Mosquitto with extra lines of configuration."""
    yield from _brokers(tmp_path)


@pytest.fixture(scope="module")
def make_lasting_broker(tmp_path_factory):
    """The same for all tests of a module."""
    yield from _brokers(tmp_path_factory.mktemp("broker"))


@pytest.fixture
def broker(make_broker):
    return make_broker()


@pytest.fixture
def subscribe():
    """Give a function that subscribes to a broker."""
    subscribers = []

    def make(broker, topic="nanotox/#"):
        subscribers.append(Subscriber(broker.port, topic))
        return subscribers[-1]

    yield make
    for subscriber in subscribers:
        subscriber.close()
