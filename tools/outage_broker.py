"""A broker, a collector, a subscriber and other commands of this tree for tools/outage-test."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

from device.publishers import Event, Received, Setup, mqtt, open_publisher

ROOT = Path(__file__).resolve().parent.parent
RUNNING: list[subprocess.Popen[bytes]] = []


def start_broker(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Return a Mosquitto that listens."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit("tools/outage-test: mosquitto is not installed; tools/test installs it")
    user = "user root\n" if os.geteuid() == 0 else ""
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n{user}"
    )
    broker = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    RUNNING.append(broker)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return broker
        time.sleep(0.01)


def ask(folder: Path, query: str) -> tuple[int, ...]:
    """Return what the collector's file answers, zeros before there is one."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/lab.db?mode=ro", uri=True, timeout=10)) as db:
            return db.execute(query).fetchone()
    except sqlite3.OperationalError:
        return 0, 0


def count(folder: Path) -> int:
    """Return how many records the collector has."""
    return ask(folder, "SELECT count(*) FROM record")[0]


def newest(folder: Path) -> int:
    """Return the newest seq that the collector has of the one station."""
    # by the index: looking through all of them would take the processor from whom is measured
    one = "SELECT ledger_id FROM record LIMIT 1"
    return ask(folder, f"SELECT ifnull(max(seq), 0) FROM record WHERE ledger_id = ({one})")[0]  # noqa: S608 - a literal


def collect(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Return a collector that writes to the folder."""
    return nanotox("collect", "--broker", f"mqtt://127.0.0.1:{port}", "--db", str(folder / "lab.db"))


def end(*programs: subprocess.Popen[bytes]) -> None:
    """End programs, those that hang too."""
    for program in programs:
        program.terminate()
        try:
            program.wait(30)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def nanotox(*words: str) -> subprocess.Popen[bytes]:
    """Return a running command of this tree."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "device.cli", *words]
    RUNNING.append(
        program := subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    )
    return program


def print_row(told: dict[str, object]) -> None:
    """Print a table of one row."""
    print(f"\n| {' | '.join(told)} |\n{'|---' * len(told)}|\n| {' | '.join(map(str, told.values()))} |")


class Ear:
    """A subscriber that notes when each record came, and what stations say of themselves."""

    def __init__(self, port: int) -> None:
        self.came: list[tuple[float, bytes]] = []
        self.online: set[str] = set()
        leaves = ("reading", "verdict", "availability")
        topics = tuple(f"nanotox/v1/+/+/{leaf}" for leaf in leaves)
        setup = Setup("outage-test", None, self._take, topics, is_durable=True)  # hears who was online before
        self.client = open_publisher("mqtt", mqtt.Settings("127.0.0.1", port), setup)
        self.client.start()

    def _take(self, event: Event) -> None:
        now = time.time()
        if not isinstance(event, Received):
            return
        if event.acknowledge is not None:
            event.acknowledge()
        _, _, _, station, leaf = event.topic.split("/")
        if leaf == "availability":
            (self.online.add if event.payload == b"online" else self.online.discard)(station)
        else:
            self.came.append((now, event.payload))

    def ways_ms(self, since: int) -> list[float]:
        """Return how long each record took from its `ts`, which is told in ms, sorted."""
        times = [(at, datetime.fromisoformat(json.loads(body)["ts"])) for at, body in self.came[since:]]
        return sorted(1000 * (at - ts.timestamp()) for at, ts in times)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Return how much processor time a process has had, s."""
    values = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
