"""What stations say now, in memory: retained topics and the newest events, each until its time is up.

The broker tells with a message how long it still holds, so that nothing here lives longer than there.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from device.collector.check import Kept
from device.collector.validate import fault_of
from device.messages import OVERLAY
from device.messages.sealing import parse
from device.publishers import Received

Payload = dict[str, Any]
"""As published; not to be changed."""

LEAVES = ("availability", "info")
"""Said rarely and without an end: not to be missed."""
GLANCED = ("state", "health", "latest", OVERLAY)
"""Said again and again, each time for a while."""
_WORDS = ("online", "stopped", "offline")
_EXPIRY_S = 300.0
"""Where the broker does not say how long a message holds."""
_NAME = re.compile("[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class Overlay:
    """The picture of the newest field."""

    jpeg: bytes
    ledger_id: str | None
    """With `seq` the reading that it shows; null where nobody said."""
    seq: int | None


@dataclass(frozen=True, slots=True)
class StationNow:
    """A station as far as it is heard now; null where nothing was said, or it holds no longer."""

    site: str
    station: str
    heard_at: datetime | None = None
    """When it last said anything, UTC by the clock here, what the broker kept for it included; null where
    the file alone knows it."""
    availability: str | None = None
    """online, stopped or offline."""
    info: Payload | None = None
    state: Payload | None = None
    health: Payload | None = None
    latest: Payload | None = None
    """With `valid_until` and `verdict`, the one that holds; null says that no verdict holds now."""
    reading: Payload | None = None
    """The newest, however old it is."""
    verdict: Payload | None = None
    """The newest, as an event or in `latest`, however old it is."""
    overlay: Overlay | None = None
    alerts: tuple[Payload, ...] = ()
    """Raised ones. One that `health` tells and nobody heard has a `code` alone."""


class Live:
    """What stations say now; `heard` in the collector's thread, `now` in any.

    `on_change` is called in the collector's thread with site, station and leaf, also when a leaf holds no
    longer, and must not wait.
    """

    def __init__(self, prefix: str, on_change: Callable[[str, str, str], None]) -> None:
        self._prefix, self._on_change = prefix, on_change
        self._lock = threading.Lock()
        self._stations: dict[tuple[str, str], StationNow] = {}
        self._alerts: dict[tuple[str, str], dict[str, Payload]] = {}
        self._over_at: dict[tuple[str, str, str], float] = {}

    def now(self) -> dict[tuple[str, str], StationNow]:
        """Return every station that was heard, by site and station."""
        self.expire()
        with self._lock:
            return dict(self._stations)

    def hear(self, received: Received) -> None:
        """Take a message on one of `LEAVES` or `GLANCED`.

        ValueError, or KeyError for a form that this version does not know, if it is none.
        """
        site, station, leaf = received.topic.removeprefix(f"{self._prefix}/").split("/", 2)
        if not (_NAME.fullmatch(site) and _NAME.fullmatch(station)):
            raise ValueError("expected names of small letters, digits and hyphens")
        value: Any = None
        if not received.payload:  # somebody cleared what was retained
            self._over_at.pop((site, station, leaf), None)
        elif leaf == "availability":
            value = received.payload.decode()
            if value not in _WORDS:
                raise ValueError(f"availability is {value[:40]!r}; expected {', '.join(_WORDS)}")
        elif leaf == OVERLAY:
            told = dict(received.user)
            seq = told.get("seq", "")
            value = Overlay(received.payload, told.get("ledger_id"), int(seq) if seq.isdecimal() else None)
        else:
            value = parse(received.payload)
            if (fault := fault_of(value)) is not None:
                raise ValueError(fault)
        if value is not None and leaf in GLANCED:
            holds_s = _EXPIRY_S if received.expiry_s is None else received.expiry_s
            self._over_at[site, station, leaf] = time.monotonic() + holds_s
        changes = _field(leaf, value)
        if leaf == "latest" and value is not None and self._is_newer(site, station, value["verdict"]):
            changes["verdict"] = value["verdict"]
        self._change(site, station, leaf, changes)

    def keep(self, records: Iterable[Kept], *, is_heard: bool = True) -> None:
        """Take records that are stored, or with `is_heard` False were stored long ago.

        Of the readings and verdicts of a station the newest is enough.
        """
        newest: dict[tuple[str, str, str], tuple[Payload, bytes]] = {}
        for record in records:
            site, station, kind = record.site, record.station, record.kind
            place = {name: getattr(record, name) for name in ("schema", "ledger_id", "seq", "ts")}
            if kind == "alert":
                values = json.loads(record.message)
                known = self._alerts.setdefault((site, station), {})
                if _is_newer(place, known.get(values["code"])):
                    known[values["code"]] = values
                    self._change(site, station, kind, {}, is_heard=is_heard)
            elif kind in ("reading", "verdict") and self._is_newer(site, station, place):
                before, _ = newest.get((site, station, kind), (None, b""))
                if _is_newer(place, before):
                    newest[site, station, kind] = place, record.message
        for (site, station, kind), (_, message) in newest.items():
            self._change(site, station, kind, {kind: json.loads(message)}, is_heard=is_heard)

    def expire(self) -> None:
        """Forget what holds no longer."""
        now = time.monotonic()
        with self._lock:
            over = [key for key, at in self._over_at.items() if at <= now]
            for site, station, leaf in over:
                del self._over_at[site, station, leaf]
                said = self._stations[site, station]
                self._stations[site, station] = replace(said, **_field(leaf, None))
        for site, station, leaf in over:
            self._on_change(site, station, leaf)

    def _is_newer(self, site: str, station: str, values: Payload) -> bool:
        known = self._stations.get((site, station))
        return known is None or _is_newer(values, getattr(known, values["schema"].split("/")[0]))

    def _change(
        self, site: str, station: str, leaf: str, changes: dict[str, Any], *, is_heard: bool = True
    ) -> None:
        where = (site, station)
        with self._lock:
            said = replace(self._stations.get(where, StationNow(site, station)), **changes)
            heard_at = datetime.now(UTC) if is_heard else said.heard_at
            alerts = _raised(said, self._alerts.get(where, {}))
            self._stations[where] = replace(said, heard_at=heard_at, alerts=alerts)
        self._on_change(site, station, leaf)


def _field(leaf: str, value: object) -> dict[str, Any]:
    return {"overlay" if leaf == OVERLAY else leaf: value}


def _is_newer(values: Payload, known: Payload | None) -> bool:
    """Return whether a record follows another one of its station: those that come again do not."""
    if known is None or values["ledger_id"] != known["ledger_id"]:
        return known is None or bool(values["ts"] > known["ts"])
    return bool(values["seq"] > known["seq"])


def _raised(said: StationNow, heard: dict[str, Payload]) -> tuple[Payload, ...]:
    """Return the alerts of this run of the station; a new one begins with none raised."""
    told = said.health or said.info or max(heard.values(), key=lambda v: v["ts"], default={})
    mine = {code: values for code, values in heard.items() if values["boot_id"] == told["boot_id"]}
    codes = (said.health or {}).get("alerts", ())
    untold = tuple({"code": code} for code in codes if code not in mine)
    return (*(values for values in mine.values() if values["raised"]), *untold)
