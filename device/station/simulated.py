"""Many stations in one process that say what stations say, for dashboards before there is hardware.

Each has a journal, a store and a sender of its own, those of the real station, so that identities, heads,
replays and outages are real too. Only the camera and the analysis are shared: some rendered fields are
assessed once, and each station shows them again in an order of its own, marked as simulated. One loop drives
them all: it takes each field at its time, and steps a sender when the broker or the store has news for it.
"""

import gc
import heapq
import logging
import random
import selectors
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from device.analysis import plate_state
from device.analysis.assess import assess
from device.analysis.phantom import render_well
from device.cameras import LostFrame
from device.config import Config
from device.journal import Journal
from device.messages import State, Topics
from device.messages.replies import Refusal
from device.publishers import Received, Setup, mqtt
from device.records import Frame, Reading, Reason, Scale
from device.service import clock_state
from device.station.commands import Desk
from device.station.instruments import Instruments, load_config, make_info, open_instruments
from device.station.sender import Sender
from device.station.store import Records

log = logging.getLogger(__name__)


class _Once(logging.Filter):
    """Lets each line through once, because all stations lose the same broker."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is new."""
        line, n_before = record.getMessage(), len(self._said)
        self._said.add(line)
        return len(self._said) > n_before


_DEAD = (0.03, 0.3, 0.9)
_FIELDS = 4
_TURN_S = 1.0
"""Each station is looked after this often, whatever comes, ..."""
_AT_ONCE = 10
"""... but no more than so many before fields and the broker are heard again."""
_DRAIN_S = 10.0
"""Limit for what is on its way in the end."""
_COLLECT = 10_000
"""Collections of the young before one of all; some hours."""
_CONFIG = """
[station]
site = "simulated"
name = "s0"
assay = "adherent"
modality = "phase"
[scale]
um_per_px = 0.65
[camera]
kind = "phantom"
live = true
"""


def simulate(
    folder: Path,
    settings: mqtt.Settings,
    stop: threading.Event,
    *,
    stations: int,
    rate_hz: float,
    fields: int | None,
    version: str,
) -> tuple[int, int]:
    """Run `stations` stations until `stop` is set; return how many records they stored and left unsent.

    Each gives `rate_hz` fields a second, `fields` of them in all if that is given. Journals lie in `folder`.
    """
    path = folder / "station.toml"
    path.write_text(_CONFIG, encoding="utf-8")
    config = load_config(path)
    tools = open_instruments(config)
    readings, began = _draw(tools), time.monotonic()
    made: list[SimulatedStation] = []
    thresholds = gc.get_threshold()
    once, senders = _Once(), logging.getLogger(Sender.__module__)
    senders.addFilter(once)
    with selectors.DefaultSelector() as sockets:
        try:
            for number in range(stations):
                if stop.is_set():
                    break
                named = replace(config, station=replace(config.station, name=f"s{number}"))
                drive = (named, tools, settings, sockets, readings)
                made.append(SimulatedStation(folder, *drive, version=version, stop=stop))
            log.info("%d stations set up in %.1f s", len(made), time.monotonic() - began)
            # A full collection over all of them holds every message up, for 40 ms with 1,000 stations.
            gc.freeze()
            gc.set_threshold(*thresholds[:2], _COLLECT)
            loop = _Loop(made, sockets)
            _take_fields(loop, stop, rate_hz, fields)
            for station in made:
                station.part()
            while not all(station.is_over for station in made):
                loop.turn(0.1)
            counts = [station.count() for station in made]
            return sum(n for n, _ in counts), sum(n_unsent for _, n_unsent in counts)
        finally:
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            senders.removeFilter(once)
            for station in made:
                station.close()


def _take_fields(loop: "_Loop", stop: threading.Event, rate_hz: float, fields: int | None) -> None:
    """Let each station take a field at its own beat, and do what comes meanwhile."""
    began, rng = time.monotonic(), random.Random(0)  # noqa: S311 - a beat, no secret
    due = [(began + rng.random() / rate_hz, number, 0) for number in range(len(loop.stations))]
    heapq.heapify(due)
    while due and not stop.is_set():
        at, number, n_taken = due[0]
        if (wait_s := at - time.monotonic()) > 0:
            loop.turn(min(wait_s, 0.2))
            continue
        heapq.heappop(due)
        loop.stations[number].take()
        if fields is None or n_taken + 1 < fields:
            heapq.heappush(due, (at + 1 / rate_hz, number, n_taken + 1))
        loop.turn(0.0)


class _Loop:
    """What drives the senders of all stations: their sockets, and a turn for each about every second."""

    def __init__(self, stations: "Sequence[SimulatedStation]", sockets: selectors.BaseSelector) -> None:
        self.stations, self._sockets = stations, sockets
        self._by_publisher = {station.publisher: station for station in stations}
        now = time.monotonic()
        self._due = [(now + _TURN_S * n / len(stations), n) for n in range(len(stations))]

    def turn(self, timeout_s: float) -> None:
        """Hear what the broker says within `timeout_s` s, and look after the stations whose turn it is."""
        wait_s = min(timeout_s, self._due[0][0] - time.monotonic())
        for key, _ in self._sockets.select(max(0.0, wait_s)):
            self._by_publisher[key.data].hear()
        for _ in range(_AT_ONCE):
            at, number = self._due[0]
            if at > time.monotonic():
                break
            self.stations[number].look_after()
            heapq.heapreplace(self._due, (time.monotonic() + _TURN_S, number))


def _draw(tools: Instruments) -> list[Reading]:
    """Return the readings of some rendered fields."""
    known, now = Scale(0.65, "measured"), datetime.now(UTC)
    options = {"modality": tools.settings.modality, "fields": _FIELDS}
    return [
        assess(Frame(drawn.image, now, "phantom", 0, known, simulated=True), tools.classify, tools.settings)
        for seed, dead in enumerate(_DEAD)
        for drawn in render_well(dead, seed=seed, **options)  # type: ignore[arg-type]  # named above
    ]


class SimulatedStation:
    """One station that shows `readings` again and again, beginning with one of its own."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        tools: Instruments,
        settings: mqtt.Settings,
        sockets: selectors.BaseSelector,
        readings: Sequence[Reading],
        *,
        version: str,
        stop: threading.Event,
    ) -> None:
        section, name = config.station, config.station.name
        self._readings, self._n_taken, self._first = readings, 0, int(name[1:])
        topics = Topics(section.site, name, settings.prefix)
        self._journal = Journal(
            folder / f"{name}.db", site=section.site, station=name, clock_state=clock_state
        )
        state = State("state/1", self._journal.boot_id, datetime.now(UTC), "running", None)
        self.publisher: mqtt.MqttPublisher
        self.is_over = False
        """Whether it has parted from the broker."""

        def make_publisher(setup: Setup) -> mqtt.MqttPublisher:
            self.publisher = mqtt.open_publisher(settings, setup, sockets)
            return self.publisher

        self._sender = Sender(
            self._journal,
            topics,
            info=make_info(config, tools, self._journal, version),
            state=state,
            make_publisher=make_publisher,
            client_id=f"nanotox-{section.site}-{name}",
            hear=self._hear,
        )
        words = (section.assay, section.modality, section.method)
        self._records = Records(
            self._journal,
            lambda *_: plate_state.start_live(tools.rule, assay=words[0], modality=words[1], method=words[2]),
            note_stored=self._sender.stored,
            note_fault=lambda *_: None,
            stopping=stop,
        )
        self._desk = Desk(topics, known=(), answer=self._sender.reply)  # it carries nothing out

    def take(self) -> None:
        """Store the next reading, and the verdict that it leads to."""
        now = datetime.now(UTC)
        shown = self._readings[(self._first + self._n_taken) % len(self._readings)]
        reading = replace(shown, taken_at=now, sequence=self._n_taken)
        self._n_taken += 1
        frame = LostFrame(Reason.CAMERA_LOST, "simulated", now, "phantom", reading.sequence)
        self._records.take(self._records.aim.run, frame, reading)
        self._step()

    def hear(self) -> None:
        """Hear what the broker says."""
        self.publisher.read()
        self._step()

    def look_after(self) -> None:
        """Connect or keep the connection alive, and send what is due by the clock."""
        self.publisher.tend()
        self._step()

    def part(self) -> None:
        """Begin to part from the broker."""
        self._sender.part(_DRAIN_S)
        self._step()

    def count(self) -> tuple[int, int]:
        """Return how many records it has stored, and how many of them the broker has not taken."""
        return self._journal.head.seq, self._journal.count_unsent()

    def close(self) -> None:
        """Let go of all that it holds."""
        self.publisher.close()
        self._journal.close()

    def _step(self) -> None:
        self.is_over = self.is_over or not self._sender.step(0.0)

    def _hear(self, received: Received) -> None:
        order = self._desk.hear(received)
        if order is None:
            return
        if order.name == "replay":
            refusal = self._sender.outbox.replay(order.args.from_seq, order.args.to_seq)
        else:
            found = f"this station is simulated and carries out no {order.name}; expected replay"
            refusal = Refusal("SIMULATED", found)
        self._desk.answer(order, refusal)
