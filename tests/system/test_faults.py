"""Between journal and collector: a faulty network, a frozen broker, a broker that refuses."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import struct
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from device.collector import Collector
from device.journal import Journal
from device.messages import State, Topics
from device.publishers import _link, mqtt, open_publisher
from device.records import Outcome, PlateReport, Quality, Reading, Tally
from device.station.sender import Sender

pytestmark = pytest.mark.system

N_RECORDS = int(os.environ.get("NANOTOX_FAULT_RECORDS", "120"))
"""Records a mode; docs/reliability.md tells of 2,000."""
NOW = datetime(2026, 3, 4, tzinfo=UTC)
REPORT = PlateReport("p", None, "r/1", "d" * 64, None, False, (), (), (), None, 0, False)
QUALITY = Quality(True, (), (), 0.1, 0.1, -1.0, 0.0, 0.0, 0.5, 0.1, 0.65, "measured")
READING = Reading(
    "f", 0, NOW, None, 0, False, Outcome.INCONCLUSIVE, (), 0, 0, 0, None, None, Tally(0, 0, 0, None, 0.0),
    QUALITY, (), 480, 640, "adherent", "phase", "hybrid", None, None,
)  # fmt: skip


def wait_until(is_met, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_met():
            return True
        time.sleep(0.01)
    return False


class Proxy:
    """A TCP proxy to a broker that misbehaves as `mode` says, to connections that stand as to new ones."""

    def __init__(self, broker_port):
        self.mode, self.n_connections, self.n_faults = "pass", 0, 0
        self._broker_port = broker_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._server, self.port = server, server.sockets[0].getsockname()[1]

    def close(self):
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, doing):
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(20)

    async def _end(self):
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.n_connections += 1
        there, away = await asyncio.open_connection("127.0.0.1", self._broker_port)
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(reader, away, is_upward=True)),
                    asyncio.ensure_future(self._pump(there, writer, is_upward=False)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for end in (writer, away):
                end.transport.abort()

    async def _pump(self, reader, writer, *, is_upward):
        try:
            while data := await reader.read(4096):
                self.n_faults += self.mode != "pass"
                if self.mode == "reset":
                    linger = struct.pack("ii", 1, 0)  # close with RST
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return
                if self.mode == "drop" or (self.mode == "half open" and not is_upward):
                    continue
                if self.mode == "delay":
                    await asyncio.sleep(0.03)
                while self.mode == "stall":
                    await asyncio.sleep(0.01)
                for piece in (data[i : i + 1] for i in range(len(data))) if self.mode == "bytes" else (data,):
                    writer.write(piece)
                    await writer.drain()
        except OSError:
            pass


class Line:
    """A journal with its send loop, and a collector in a thread of its own."""

    def __init__(self, folder, port, collector_port, keepalive_s=1):
        self.folder, self.stop = folder, threading.Event()
        self.journal = Journal(folder / "journal.db", site="lab", station="b")
        state = State("state/1", self.journal.boot_id, NOW, "running", None)
        settings = mqtt.Settings(port=port, keepalive_s=keepalive_s)
        self.sender = Sender(
            self.journal,
            Topics("lab", "b"),
            info=state,
            state=state,
            make_publisher=lambda setup: open_publisher("mqtt", settings, setup),
            client_id="nanotox-b",
            hear=self.hear,
        )
        there = mqtt.Settings(port=collector_port, keepalive_s=keepalive_s)
        collector = Collector(folder / "lab.db", there, tell=lambda _: None)
        self._thread = threading.Thread(target=collector.run, args=(self.stop,))
        self._thread.start()
        self.sender.start()

    def hear(self, received):
        """Carry out a replay, as `Station` does once its desk has read it."""
        asked = json.loads(received.payload)["args"]
        self.sender.outbox.replay(asked["from_seq"], asked["to_seq"])

    def store(self, n, record=REPORT):
        for _ in range(n):
            self.journal.append(record)
            self.sender.stored()

    def collected(self):
        with closing(sqlite3.connect(self.folder / "lab.db")) as db:
            return dict(db.execute("SELECT seq, hash FROM record"))

    def has_all(self):
        return self.collected() == {row.seq: row.hash for row in self.journal.rows()}

    def close(self):
        self.stop.set()
        self._thread.join(30)
        n_unsent = self.sender.end(5.0)
        self.journal.close()
        return n_unsent


@pytest.fixture
def make_line(tmp_path, monkeypatch):
    monkeypatch.setattr(_link, "ANSWER_S", 2.0)
    lines = []

    def make(*ports):
        lines.append(Line(tmp_path, *ports))
        return lines[-1]

    yield make
    for line in lines:
        if not line.stop.is_set():
            line.close()


@pytest.fixture
def proxy(broker):
    made = Proxy(broker.port)
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["drop", "delay", "stall", "reset", "bytes", "half open"])
def test_a_faulty_network_loses_nothing(make_line, proxy, mode):
    line = make_line(proxy.port, proxy.port)
    share = N_RECORDS // 4
    line.store(share)
    assert wait_until(line.has_all)
    n_connections = proxy.n_connections
    proxy.mode = mode
    line.store(2 * share)
    if mode in ("delay", "bytes"):
        assert wait_until(line.has_all)
    else:
        # both ends have noticed, have tried again and have met the fault once more
        assert wait_until(lambda: proxy.n_connections >= n_connections + 4)
    assert proxy.n_faults > 0
    proxy.mode = "pass"
    line.store(share)
    assert wait_until(line.has_all)
    assert line.journal.head.seq == 4 * share
    assert line.close() == 0


def test_a_frozen_broker_is_noticed_and_what_comes_meanwhile_is_stored(make_line, broker, caplog):
    line = make_line(broker.port, broker.port)
    line.store(5)
    assert wait_until(line.has_all)
    broker._process.send_signal(signal.SIGSTOP)
    try:
        line.store(50)
        assert line.journal.count_unsent() >= 50
        assert wait_until(lambda: "no broker: connection lost: Keep alive timeout" in caplog.text)
        line.store(50)
    finally:
        broker._process.send_signal(signal.SIGCONT)
    assert wait_until(line.has_all)
    assert line.close() == 0


def test_a_topic_that_is_refused_blocks_no_other(make_broker, make_line, tmp_path, caplog):
    acl = tmp_path / "acl"
    leaves = ("availability", "info", "state", "head", "reading")
    acl.write_text("topic read #\n" + "".join(f"topic write nanotox/v1/lab/b/{leaf}\n" for leaf in leaves))
    broker = make_broker(f"acl_file {acl}\n")
    line = make_line(broker.port, broker.port)
    line.store(40)
    line.store(40, READING)
    assert wait_until(lambda: set(line.collected()) == set(range(41, 81)))
    assert "the broker refuses a message: Not authorized (code 135)" in caplog.text
    assert line.close() == 40, "what it refuses stays in the journal"
