"""The reference consumer: every record of every station once, in one SQLite file, whatever dies on the way.

PUBACK is not delivery: a broker that is killed loses what it has acknowledged. So a collector counts. It
drops what it has by (ledger_id, seq), sees what is missing by the numbers and by the retained `head`, and
asks the station for it with `replay`. It acknowledges a message to the broker only after the commit, and can
therefore be killed at any moment.
"""

import json
import logging
import queue
import random
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device.collector.store import Aside, Gaps, Kept, Store
from device.journal import StorageFullError
from device.messages import Topics, canonical, rfc3339, seal
from device.messages.commands import REPLAY_ROWS
from device.publishers import Connected, Event, Lost, Message, Received, Setup, mqtt

__all__ = ["Collector", "check"]

log = logging.getLogger(__name__)

EVENTS = ("reading", "verdict", "plate", "alert")
"""Leaves whose records are numbered."""
_PATIENCE_S = 1.0
"""A gap must stay this long before it is asked for: most are messages that are still on their way."""
_ASK_S = (1.1, 10.0)
"""First and longest wait between two requests to one station; while nothing comes the wait doubles."""
_BATCH = 200
"""Most messages in one commit."""
_FULL_S = 1.0
"""Wait before a full disk is tried again."""


def check(received: Received, prefix: str) -> Kept:
    """Return the record that a message holds, or say in a ValueError why it is none.

    A higher number of a known form is taken, so that a station may be newer than its collector. A stub, which
    stands for a record that the broker never took, cannot be checked against its hash.
    """
    values = dict(json.loads(received.payload))
    sealed = seal(values)  # refuses what UTF-8 and SQLite cannot tell
    where = received.topic.removeprefix(f"{prefix}/").split("/")
    told = [values.get(name) for name in ("site", "station", "schema", "ledger_id", "hash", "ts")]
    seq = values.get("seq")
    if not all(isinstance(text, str) for text in told) or type(seq) is not int or not 0 < seq < 1 << 62:
        raise ValueError(
            "the message has no identity; expected site, station, schema, ledger_id, seq, hash, ts"
        )
    site, station, schema, ledger_id, sha256, ts = map(str, told)
    if where[:2] != [site, station]:
        raise ValueError(f"it says {site}/{station}; expected the station of its topic")
    if not re.fullmatch(rf"{where[-1]}/[1-9][0-9]*", schema):
        raise ValueError(f"schema is {schema}; expected {where[-1]}/ and a number")
    if values.get("left_out") != ["*"] and sealed != sha256:
        raise ValueError(f"the hash of record {seq} is wrong; expected that of what it says")
    return Kept(ledger_id, seq, site, station, schema, ts, sha256, received.payload)


@dataclass(slots=True)
class _Station:
    """A station as far as it is heard."""

    topics: Topics
    ledger_id: str | None = None
    """The ledger that its `head` tells: another one cannot be asked for."""
    ask_at: float | None = None
    """When to ask for what is missing; None while nothing is."""
    wait_s: float = _ASK_S[0]
    asked: range = field(default_factory=lambda: range(0))
    transaction: str = ""

    def hurry(self) -> None:
        """Hear that it answers, or may answer again."""
        self.wait_s = _ASK_S[0]
        if self.ask_at is not None:
            self.ask_at = min(self.ask_at, time.monotonic() + self.wait_s)


class Collector:
    """A collection in the file `path` from the broker of `settings`; `tell` gets a line of numbers.

    JournalError or PublishError if the file, or a file of `settings`, cannot be used.
    """

    def __init__(self, path: Path, settings: mqtt.Settings, *, tell: Callable[[str], None]) -> None:
        self._store = Store(path)
        self._prefix, self._tell = settings.prefix, tell
        self._gaps = self._store.gaps()
        self._n_records, self._n_aside = self._store.count()
        self._stations: dict[str, _Station] = {}
        self._suspects: set[str] = set()
        self._losses: set[str] = set()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        client_id = self._store.client_id
        asked = tuple(f"{settings.prefix}/+/+/{leaf}" for leaf in (*EVENTS, "head", f"reply/{client_id}"))
        setup = Setup(client_id, None, self._events.put, asked, is_durable=True)
        try:
            self._publisher = mqtt.open_publisher(settings, setup)
        except BaseException:
            self._store.close()
            raise

    def run(self, stop: threading.Event) -> None:
        """Collect until `stop` is set; JournalError if the file cannot be written any more."""
        self._publisher.start()
        try:
            while not stop.is_set():
                self._take(self._next_events(), stop)
                for station in self._stations.values():
                    self._close_gaps(station, time.monotonic())
                self._report()
        finally:
            self._publisher.close()
            self._store.close()

    def _next_events(self) -> list[Event]:
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=0.2))
            while len(events) < _BATCH:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return events

    def _take(self, events: list[Event], stop: threading.Event) -> None:
        """Store what came, then hear what it means, then tell the broker that it is kept."""
        records: list[Kept] = []
        aside: list[Aside] = []
        told: list[tuple[str, _Station, dict[str, Any]]] = []
        for event in events:
            if not isinstance(event, Received):
                self._note_connection(event)
                continue
            try:
                leaf = event.topic.removeprefix(f"{self._prefix}/").split("/")[2]
                if leaf in EVENTS:
                    records.append(check(event, self._prefix))
                else:
                    told.append((leaf, self._station(event.topic), json.loads(event.payload)))
            except (ValueError, TypeError, RecursionError) as error:
                aside.append(Aside(event.topic, str(error), event.payload))
        if (records or aside) and not self._keep(records, aside, stop):
            return
        for leaf, station, values in told:
            self._hear(leaf, station, values)
        for event in events:
            if isinstance(event, Received) and event.acknowledge is not None:
                event.acknowledge()

    def _keep(self, records: list[Kept], aside: list[Aside], stop: threading.Event) -> bool:
        """Commit, waiting for room on a full disk; False if the collector ends meanwhile."""
        while True:
            try:
                n_before = self._store.n_doubled
                aside += self._store.keep(records, aside)
                break
            except StorageFullError as error:
                self._suspect("disk", str(error))
                if stop.wait(_FULL_S):
                    return False
        self._n_records += len(records) - (self._store.n_doubled - n_before)
        self._n_aside += len(aside)
        for item in aside:
            self._suspect(item.topic, f"a message on {item.topic} is kept aside: {item.why}")
        for record in records:
            topic = f"{self._prefix}/{record.site}/{record.station}/{record.schema}"
            if self._gaps.setdefault(record.ledger_id, Gaps()).fill(record.seq, record.seq):
                self._station(topic).hurry()
        return True

    def _station(self, topic: str) -> _Station:
        site, name = topic.removeprefix(f"{self._prefix}/").split("/")[:2]
        made = _Station(Topics(site, name, self._prefix))
        return self._stations.setdefault(f"{site}/{name}", made)

    def _hear(self, leaf: str, station: _Station, values: Any) -> None:  # noqa: ANN401 - any JSON value
        """Hear a head or an answer; what is none is passed over."""
        try:
            if leaf == "head":
                ledger_id, seq = str(values["ledger_id"]), int(values["seq"])
                if seq < 1 << 62:
                    station.ledger_id = ledger_id
                    self._gaps.setdefault(ledger_id, Gaps()).reach(seq)
            elif values["transaction"] == station.transaction and values["error"] is not None:
                self._hear_refusal(station, values["error"]["code"], values["error"]["message"])
        except (TypeError, KeyError, ValueError) as error:
            self._suspect(station.topics.of(leaf), f"{station.topics.of(leaf)} is not understood ({error})")

    def _hear_refusal(self, station: _Station, code: str, message: str) -> None:
        name = f"{station.topics.site}/{station.topics.station}"
        if code == "NOT_KEPT" and station.ledger_id is not None and station.asked:
            numbers = station.asked
            log.warning("%s: records %d to %d are lost: %s", name, numbers[0], numbers[-1], message)
            self._store.give_up(station.ledger_id, numbers, message)
            self._gaps[station.ledger_id].fill(numbers[0], numbers[-1])
        elif code == "BUSY":
            station.ask_at = time.monotonic() + random.uniform(1.0, 1.5) * _ASK_S[0]  # noqa: S311 - jitter, no secret
        else:
            self._suspect(name, f"{name} does not send records again: {message}")

    def _close_gaps(self, station: _Station, now: float) -> None:
        """Ask a station for records that are missing and do not come by themselves."""
        gaps = self._gaps.get(station.ledger_id or "")
        if gaps is None or not gaps.missing:
            station.ask_at = None
        elif station.ask_at is None:
            station.ask_at = now + _PATIENCE_S
        elif now >= station.ask_at:
            station.asked = asked = gaps.next_asked(station.asked.stop, REPLAY_ROWS)
            station.ask_at, station.wait_s = now + station.wait_s, min(2 * station.wait_s, _ASK_S[1])
            station.transaction = uuid.uuid4().hex
            command = {
                "transaction": station.transaction,
                "issued_at": rfc3339(datetime.now(UTC)),
                "operator": "nanotox collect",
                "args": {"from_seq": asked[0], "to_seq": asked[-1]},
            }
            answer_to = station.topics.of(f"reply/{self._store.client_id}")
            body, topic = canonical(command), station.topics.of("cmd/replay")
            self._publisher.send(Message(topic, body, expiry_s=30, response_topic=answer_to))

    def _note_connection(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._losses.clear()
            for station in self._stations.values():
                station.hurry()
            log.info("broker connected")
            if event.refused is not None:
                log.warning("the broker refuses a subscription: %s; check its access list", event.refused)
        elif isinstance(event, Lost) and event.detail not in self._losses:
            self._losses.add(event.detail)
            log.warning("no broker: %s; tried again until it is there", event.detail)

    def _suspect(self, key: str, text: str) -> None:
        """Log what is wrong once for each `key`; the numbers tell of the others."""
        if key not in self._suspects:
            self._suspects.add(key)
            log.warning("%s", text)

    def _report(self) -> None:
        n_missing = sum(map(len, self._gaps.values()))
        line = (
            f"{self._n_records} records of {len(self._gaps)} journals, {n_missing} missing, "
            f"{self._store.n_doubled} doubled and dropped, {self._n_aside} kept aside"
        )
        self._tell(line)
