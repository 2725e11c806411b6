"""A collector that knows the present, against a real broker."""

import json
import threading
from datetime import UTC, datetime
from queue import SimpleQueue

import pytest

from device.collector import Collector
from device.messages import State, payload
from device.messages.sealing import canonical
from device.publishers import Connected, Message, Received, Setup, mqtt, open_publisher

pytestmark = pytest.mark.system

BENCH = "nanotox/v1/lab/b"
HERE = ("lab", "b")
STATE = payload(State("state/1", "boot", datetime(2026, 3, 4, tzinfo=UTC), "idle", None))


class Running:
    """A collector in a thread of its own."""

    def __init__(self, path, port):
        self._changed, self._stop = threading.Condition(), threading.Event()
        settings = mqtt.Settings("127.0.0.1", port)
        self.collector = Collector(path, settings, tell=lambda _: None, on_change=self._note)
        self._thread = threading.Thread(target=self.collector.run, args=(self._stop,))
        self._thread.start()

    def _note(self, *_):
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, is_met, timeout_s=60):
        """Return what the station says as soon as `is_met` of it."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_met(self._station()), timeout_s), self._station()
        return self._station()

    def _station(self):
        return self.collector.now().get(HERE)

    def close(self):
        self._stop.set()
        self._thread.join(30)


@pytest.fixture
def station(broker):
    """Stands where the station would: takes commands and publishes."""
    heard = SimpleQueue()
    settings = mqtt.Settings("127.0.0.1", broker.port, session_expiry_s=0)
    made = open_publisher("mqtt", settings, Setup("nanotox-b", None, heard.put, (f"{BENCH}/cmd/#",)))
    made.start()
    while not isinstance(heard.get(timeout=60), Connected):
        pass
    made.heard = heard
    yield made
    made.close()


def say(station, leaf, body, **other):
    station.send(Message(f"{BENCH}/{leaf}", body, retain=True, **other))


def test_what_is_said_is_known_until_the_broker_forgets_it_and_commands_are_answered(
    broker, station, tmp_path
):
    jpeg = b"\xff" * 100_000
    say(station, "availability", b"online")
    say(station, "image/overlay", jpeg, qos=0, expiry_s=600, user=(("ledger_id", "l"), ("seq", "7")))
    running = Running(tmp_path / "lab.db", broker.port)
    try:
        found = running.wait_for(lambda s: s and s.availability and s.overlay)
        assert (found.availability, found.overlay.jpeg, found.overlay.seq) == ("online", jpeg, 7)
        say(station, "state", canonical(STATE), expiry_s=1)
        running.wait_for(lambda s: s.state == STATE)
        running.wait_for(lambda s: s.state is None)
        future = running.collector.command(*HERE, "ping", {}, operator="Ada")
        while not isinstance(asked := station.heard.get(timeout=60), Received):
            pass
        transaction = json.loads(asked.payload)["transaction"]
        answer = {"ok": True, "transaction": transaction, "error": None, "result": None}
        station.send(Message(asked.response_topic, canonical(answer)))
        assert future.result(60) == answer
    finally:
        running.close()
