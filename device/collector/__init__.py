"""The reference consumer: every record of every station once, in one SQLite file, whatever dies on the way.

PUBACK is not delivery: a broker that is killed loses what it has acknowledged. So a collector counts. It
drops what it has by (ledger_id, seq), sees what is missing by the numbers and by the retained `head`, and
asks the station for it with `replay`. It acknowledges a message to the broker only after the commit, and can
therefore be killed at any moment.

With `on_change` it also holds in memory what stations say now (`device.collector.live`), and sends commands.
`device.collector.history` answers questions to the file.
"""

import json
import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device.collector import live
from device.collector.check import EVENTS, Aside, Kept, check
from device.collector.gaps import ASK_S, Gaps, Station
from device.collector.history import History
from device.collector.live import Live, StationNow
from device.collector.orders import Order, Orders, Reply, make_order
from device.collector.retention import Keep
from device.collector.store import Store
from device.journal import StorageFullError
from device.messages import Topics, canonical, rfc3339
from device.messages.commands import REPLAY_ROWS
from device.publishers import Connected, Event, Lost, Message, Received, Setup, mqtt

__all__ = ["Collector", "History", "StationNow"]

log = logging.getLogger(__name__)

_PATIENCE_S = 1.0
"""A gap must stay this long before it is asked for: most are messages that are still on their way."""
_BATCH = 200
"""Most messages in one commit."""
_LET_GO_S = 60.0
"""Time between two looks for records that need not be kept."""
_FULL_S = 1.0
"""Wait before a full disk is tried again."""


class Collector:
    """A collection in the file `path` from the broker of `settings`; `tell` gets a line of numbers.

    It lets go what `keep` does not ask for.

    With `on_change` it knows what stations say now (`now`); that is called with site, station and leaf in the
    thread of `run`, and must not wait.

    JournalError or PublishError if the file, or a file of `settings`, cannot be used.
    """

    def __init__(
        self,
        path: Path,
        settings: mqtt.Settings,
        *,
        tell: Callable[[str], None],
        on_change: Callable[[str, str, str], None] | None = None,
        keep: Keep = Keep(),  # noqa: B008 - frozen
    ) -> None:
        self._store, self._keep_only, self._let_go_at = Store(path), keep, 0.0
        self._prefix, self._tell = settings.prefix, tell
        self._gaps = self._store.gaps()
        self._n_records, self._n_aside = self._store.count()
        self._stations: dict[str, Station] = {}
        self._suspects: set[str] = set()
        self._losses: set[str] = set()
        self._events: queue.SimpleQueue[Event | Order] = queue.SimpleQueue()
        self._orders = Orders(lambda message: self._publisher.send(message))
        self._live = None if on_change is None else Live(settings.prefix, on_change)
        client_id = self._store.client_id
        leaves: tuple[str, ...] = (*EVENTS, "head", f"reply/{client_id}")
        leaves += () if self._live is None else live.LEAVES
        asked = tuple(f"{settings.prefix}/+/+/{leaf}" for leaf in leaves)
        glance = tuple(f"{settings.prefix}/+/+/{leaf}" for leaf in live.GLANCED if self._live)
        setup = Setup(client_id, None, self._events.put, asked, is_durable=True, glance=glance)
        try:
            if self._live is not None:
                self._live.keep(History(path).newest(), is_heard=False)
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
                now = time.monotonic()
                for station in self._stations.values():
                    self._close_gaps(station, now)
                self._orders.give_up(now)
                self._let_go(now)
                if self._live is not None:
                    self._live.expire()
                self._report()
        finally:
            self._publisher.close()
            self._store.close()

    def now(self) -> dict[tuple[str, str], StationNow]:
        """Return what each station says now, by site and station; from any thread, {} without `on_change`."""
        return {} if self._live is None else self._live.now()

    def command(
        self,
        site: str,
        station: str,
        name: str,
        args: dict[str, Any],
        *,
        operator: str,
        reason: str | None = None,
    ) -> Future[Reply]:
        """Send `cmd/<name>` and return what becomes the station's reply; from any thread.

        A refusal is a reply with `ok` false. The future raises PublishError without a broker, or where no
        answer comes within 60 s; the command may have been carried out then. ValueError for one that is too
        large.
        """
        topics = Topics(site, station, self._prefix)
        order = make_order(topics, self._store.client_id, name, args, operator=operator, reason=reason)
        self._events.put(order)
        return order.reply

    def _next_events(self) -> list[Event | Order]:
        events: list[Event | Order] = []
        try:
            events.append(self._events.get(timeout=0.2))
            while len(events) < _BATCH:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return events

    def _take(self, events: list[Event | Order], stop: threading.Event) -> None:
        """Store what came, then hear what it means, then tell the broker that it is kept."""
        records: list[Kept] = []
        aside: list[Aside] = []
        told: list[tuple[str, Station, dict[str, Any]]] = []
        for event in events:
            if isinstance(event, Order):
                self._orders.send(event)
                continue
            if not isinstance(event, Received):
                self._note_connection(event)
                continue
            try:
                leaf = event.topic.removeprefix(f"{self._prefix}/").split("/")[2]
                if leaf in EVENTS:
                    records.append(check(event, self._prefix))
                elif self._live is not None and leaf not in ("head", "reply"):
                    self._look(event)
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

    def _look(self, received: Received) -> None:
        """Hear what holds now; what is not understood is told once and else passed over."""
        try:
            if self._live is not None:
                self._live.hear(received)
        except (ValueError, KeyError, RecursionError) as error:
            self._suspect(received.topic, f"{received.topic} is not understood ({error})")

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
        if self._live is not None:
            self._live.keep(records)
        return True

    def _station(self, topic: str) -> Station:
        site, name = topic.removeprefix(f"{self._prefix}/").split("/")[:2]
        made = Station(Topics(site, name, self._prefix))
        return self._stations.setdefault(f"{site}/{name}", made)

    def _hear(self, leaf: str, station: Station, values: Any) -> None:  # noqa: ANN401 - any JSON value
        """Hear a head or an answer; what is none is passed over."""
        try:
            if leaf == "head":
                ledger_id, seq = str(values["ledger_id"]), int(values["seq"])
                if seq < 1 << 62:
                    station.ledger_id = ledger_id
                    self._gaps.setdefault(ledger_id, Gaps()).reach(seq)
            elif (
                not self._orders.answer(values)
                and values["transaction"] == station.transaction
                and values["error"] is not None
            ):
                self._hear_refusal(station, values["error"]["code"], values["error"]["message"])
        except (TypeError, KeyError, ValueError) as error:
            self._suspect(station.topics.of(leaf), f"{station.topics.of(leaf)} is not understood ({error})")

    def _hear_refusal(self, station: Station, code: str, message: str) -> None:
        name = f"{station.topics.site}/{station.topics.station}"
        if code == "NOT_KEPT" and station.ledger_id is not None and station.asked:
            numbers = station.asked
            log.warning("%s: records %d to %d are lost: %s", name, numbers[0], numbers[-1], message)
            self._store.give_up(station.ledger_id, numbers, message)
            self._gaps[station.ledger_id].fill(numbers[0], numbers[-1])
        elif code == "BUSY":
            station.ask_at = time.monotonic() + random.uniform(1.0, 1.5) * ASK_S[0]  # noqa: S311 - jitter, no secret
        else:
            self._suspect(name, f"{name} does not send records again: {message}")

    def _close_gaps(self, station: Station, now: float) -> None:
        """Ask a station for records that are missing and do not come by themselves."""
        gaps = self._gaps.get(station.ledger_id or "")
        if gaps is None or not gaps.missing:
            station.ask_at = None
        elif station.ask_at is None:
            station.ask_at = now + _PATIENCE_S
        elif now >= station.ask_at:
            station.asked = asked = gaps.next_asked(station.asked.stop, REPLAY_ROWS)
            station.ask_at, station.wait_s = now + station.wait_s, min(2 * station.wait_s, ASK_S[1])
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

    def _let_go(self, now: float) -> None:
        """Let some old records go, if it is time; there may be more."""
        if now >= self._let_go_at:
            n_records = self._store.let_go(self._gaps, self._keep_only)
            self._n_records -= n_records
            self._let_go_at = now + (0.0 if n_records else _LET_GO_S)

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
