"""Many stations in one process that say what stations say, for dashboards before there is hardware.

Each has a journal, a store and a send loop of its own, those of the real station, so that identities, heads,
replays and outages are real too. Only the camera and the analysis are shared: some rendered fields are
assessed once, and each station shows them again in an order of its own, marked as simulated.
"""

import heapq
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from device.publishers import Received, mqtt, open_publisher
from device.records import Frame, Reading, Reason, Scale
from device.service import clock_state
from device.station.commands import Desk
from device.station.instruments import Instruments, load_config, make_info, open_instruments
from device.station.sender import Sender
from device.station.store import Records

_DEAD = (0.03, 0.3, 0.9)
_FIELDS = 4
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
) -> int:
    """Run `stations` stations until `stop` is set; return how many records are unsent then.

    Each gives `rate_hz` fields a second, `fields` of them in all if that is given. Journals lie in `folder`.
    """
    path = folder / "station.toml"
    path.write_text(_CONFIG, encoding="utf-8")
    config = load_config(path)
    tools = open_instruments(config)
    readings = _draw(tools)
    made: list[SimulatedStation] = []
    try:
        for number in range(stations):
            if stop.is_set():
                break
            named = replace(config, station=replace(config.station, name=f"s{number}"))
            made.append(
                SimulatedStation(folder, named, tools, settings, readings, version=version, stop=stop)
            )
        _run(made, stop, rate_hz, fields)
    finally:
        with ThreadPoolExecutor(64) as pool:
            unsent = list(pool.map(SimulatedStation.close, made))
    return sum(unsent)


def _run(
    stations: "Sequence[SimulatedStation]", stop: threading.Event, rate_hz: float, fields: int | None
) -> None:
    """Let one station after another take a field, each at its own beat."""
    began, rng = time.monotonic(), random.Random(0)  # noqa: S311 - a beat, no secret
    due = [(began + rng.random() / rate_hz, number, 0) for number in range(len(stations))]
    heapq.heapify(due)
    while due:
        at, number, n_taken = heapq.heappop(due)
        if stop.wait(max(0.0, at - time.monotonic())):
            return
        stations[number].take()
        if fields is None or n_taken + 1 < fields:
            heapq.heappush(due, (at + 1 / rate_hz, number, n_taken + 1))


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
        self._sender = Sender(
            self._journal,
            topics,
            info=make_info(config, tools, self._journal, version),
            state=state,
            make_publisher=lambda setup: open_publisher("mqtt", settings, setup),
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
        self._sender.start()

    def take(self) -> None:
        """Store the next reading, and the verdict that it leads to."""
        now = datetime.now(UTC)
        shown = self._readings[(self._first + self._n_taken) % len(self._readings)]
        reading = replace(shown, taken_at=now, sequence=self._n_taken)
        self._n_taken += 1
        frame = LostFrame(Reason.CAMERA_LOST, "simulated", now, "phantom", reading.sequence)
        self._records.take(self._records.aim.run, frame, reading)

    def close(self) -> int:
        """Part from the broker; return how many records are unsent."""
        n_unsent = self._sender.end(10.0)
        self._journal.close()
        return n_unsent

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
