"""Questions to what a collector kept, beside a collector that writes: each answered by an index."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from device.collector.check import EVENTS, Kept
from device.collector.gaps import Gaps
from device.collector.store import FORM
from device.errors import JournalError
from device.journal.read import PlateRun, open_read_only, plate_runs
from device.messages.sealing import rfc3339

Payload = dict[str, Any]
"""As published."""

_KEPT = "ledger_id, seq, site, station, schema, ts, hash, message, kind, plate, well"
_STATION = "record INDEXED BY record_station WHERE site = ? AND station = ? AND kind = ?"
_PLATE = "record INDEXED BY record_plate WHERE plate = ? AND kind = ? AND site = ? AND station = ?"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished plate, as a list of plates tells it."""

    plate: str
    site: str
    station: str
    ts: str


class History:
    """The file of a collector, read only; each question opens it for itself, so any thread may ask.

    JournalError if it is no file of a collector, or one of an older form that no collector has opened since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_read_only(self.path) as database:
            try:
                (form,) = database.execute("SELECT form FROM collector").fetchone()
            except sqlite3.OperationalError as error:
                found = f"{path} is no file of a collector; expected one of nanotox collect --db"
                raise JournalError(found) from error
        if form != FORM:
            raise JournalError(f"{path} has form {form}; expected {FORM}: run nanotox collect on it once")

    def stations(self) -> dict[tuple[str, str], str]:
        """Return when each station's newest record was made, RFC 3339, by site and station."""
        found: dict[tuple[str, str], str] = {}
        table = "FROM record INDEXED BY record_station WHERE"
        sites = f"SELECT min(site) {table} kind IS NOT NULL AND site > ?"
        names = f"SELECT min(station) {table} kind IS NOT NULL AND site = ? AND station > ?"
        newest = f"SELECT max(ts) {table} site = ? AND station = ? AND kind = ?"
        with open_read_only(self.path) as database:

            def ask(query: str, *values: str | None) -> str | None:
                answer: str | None = database.execute(query, values).fetchone()[0]
                return answer

            # From one name to the next: DISTINCT would walk through every record.
            site: str | None = ""
            while (site := ask(sites, site)) is not None:
                station: str | None = ""
                while (station := ask(names, site, station)) is not None:
                    found[site, station] = max(ask(newest, site, station, kind) or "" for kind in EVENTS)
        return found

    def select(
        self,
        kind: str,
        site: str,
        station: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 1000,
        plate: str | None = None,
        well: str | None = None,
    ) -> list[Payload]:
        """Return the newest `limit` records of a kind, such as `reading`, the oldest of them first.

        `since` and `until` bound the time at which the station made them, the former included. `well` needs
        `plate`.
        """
        times = _times(since, until)
        values: Sequence[object] = (site, station, kind, *times)
        query = f"SELECT message FROM {_STATION} AND ts >= ? AND ts < ? ORDER BY ts DESC, seq DESC LIMIT ?"  # noqa: S608 - literals
        if plate is not None:
            values = (plate, kind, site, station, *times, *(() if well is None else (well,)))
            query = (
                f"SELECT message FROM {_PLATE} AND ts >= ? AND ts < ?{' AND well = ?' * (well is not None)} "  # noqa: S608 - literals
                "ORDER BY ts DESC, seq DESC LIMIT ?"
            )
        with open_read_only(self.path) as database:
            rows = database.execute(query, (*values, limit)).fetchall()
        return [json.loads(message) for (message,) in reversed(rows)]

    def series(
        self,
        site: str,
        station: str,
        *,
        kind: str = "reading",
        since: datetime | None = None,
        until: datetime | None = None,
        points: int = 300,
    ) -> list[Payload]:
        """Return at most `points` records spread evenly over the time, without their lists of cells.

        Each is the first one of its part of the time, and the last is the newest: what stands between is not
        averaged. Parts without records give none.
        """
        first, last = _times(since, until)
        where, values = f"{_STATION} AND ts >= ? AND ts < ?", (site, station, kind)
        with open_read_only(self.path) as database:
            few = f"SELECT rowid FROM {where} ORDER BY ts LIMIT ?"  # noqa: S608 - literals
            rows = [row[0] for row in database.execute(few, (*values, first, last, points + 1))]
            if len(rows) > points:
                rows = list(_spread(database, where, values, first, last, points))
            found = [
                json.loads(
                    database.execute("SELECT message FROM record WHERE rowid = ?", (row,)).fetchone()[0]
                )
                for row in rows
            ]
        return [{key: value for key, value in values.items() if key != "cells"} for values in found]

    def plates(self, limit: int = 200) -> list[Finished]:
        """Return the newest finished plates, the newest first."""
        query = (
            "SELECT plate, site, station, ts FROM record INDEXED BY record_finished WHERE kind = 'plate' "
            "ORDER BY ts DESC LIMIT ?"
        )
        with open_read_only(self.path) as database:
            return [Finished(*row) for row in database.execute(query, (limit,))]

    def plate(self, plate: str, site: str, station: str) -> PlateRun | None:
        """Return a station's newest finished plate of this name with its final verdicts and its readings."""
        newest = (
            "SELECT ledger_id FROM record INDEXED BY record_plate WHERE plate = ? AND kind = 'plate' "
            "AND site = ? AND station = ? ORDER BY ts DESC LIMIT 1"
        )
        query = (
            "SELECT message FROM record INDEXED BY record_plate WHERE plate = ? AND kind IS NOT NULL "
            "AND ledger_id = ? ORDER BY seq"
        )
        with open_read_only(self.path) as database:
            ledger = database.execute(newest, (plate, site, station)).fetchone()
            if ledger is None:
                return None
            rows = database.execute(query, (plate, *ledger))
            *_, run = plate_runs(json.loads(message) for (message,) in rows)
        return run

    def records(self, after_rowid: int = 0, limit: int = 1000) -> list[tuple[int, Kept]]:
        """Return records in the order in which they came, each with its row id, behind `after_rowid`."""
        query = f"SELECT rowid, {_KEPT} FROM record WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608 - names
        with open_read_only(self.path) as database:
            return [(row[0], Kept(*row[1:])) for row in database.execute(query, (after_rowid, limit))]

    def export(
        self,
        kind: str | None,
        site: str | None = None,
        station: str | None = None,
        *,
        plate: str | None = None,
        since: datetime | None = None,
    ) -> Iterator[Payload]:
        """Yield records of a kind, ledger after ledger in their order; None yields the chain.

        That is every record, with a note where numbers were let go or given up: which was the last of them,
        with its hash.
        """
        asked = {"kind": kind, "site": site, "station": station, "plate": plate}
        asked = {f"{name} = ?": value for name, value in asked.items() if value is not None}
        asked |= {} if since is None else {"ts >= ?": rfc3339(since)}
        where = " AND ".join(asked) or "1"
        query = f"SELECT ledger_id, seq, message FROM record WHERE {where} ORDER BY ledger_id, seq"  # noqa: S608 - names
        gone = (
            "SELECT ledger_id, 1, last_seq FROM let_go "
            "UNION ALL SELECT ledger_id, first_seq, last_seq FROM given_up"
        )
        with open_read_only(self.path) as database:
            known: dict[str, Gaps] = {}
            for ledger_id, first, last in database.execute(gone):
                known.setdefault(ledger_id, Gaps()).fill(first, last)
            before = ("", 0)
            for ledger_id, seq, message in database.execute(query, tuple(asked.values())):
                values = json.loads(message)
                first = before[1] + 1 if ledger_id == before[0] else 1
                if kind is None and seq > first and known.get(ledger_id, Gaps()).has(first, seq - 1):
                    n_gone, before_it = seq - first, values["prev_hash"]
                    yield {"ledger_id": ledger_id, "seq": seq - 1, "hash": before_it, "n_gone": n_gone}
                yield values
                before = (ledger_id, seq)

    def newest(self) -> list[Kept]:
        """Return of each station the newest reading and verdict and its last 50 alerts, the oldest first."""
        query = f"SELECT {_KEPT} FROM {_STATION} ORDER BY ts DESC, seq DESC LIMIT ?"  # noqa: S608 - names
        found: list[Kept] = []
        stations = self.stations()
        with open_read_only(self.path) as database:
            for where in stations:
                for kind, limit in (("reading", 1), ("verdict", 1), ("alert", 50)):
                    rows = database.execute(query, (*where, kind, limit)).fetchall()
                    found += [Kept(*row) for row in reversed(rows)]
        return found


def _times(since: datetime | None, until: datetime | None) -> tuple[str, str]:
    """Return bounds as they compare with the times that records carry."""
    return "0" if since is None else rfc3339(since), "9" if until is None else rfc3339(until)


def _spread(
    database: sqlite3.Connection,
    where: str,
    values: tuple[str, str, str],
    first: str,
    last: str,
    points: int,
) -> Iterator[int]:
    """Yield the row of the first record in each of `points` - 1 equal parts of the time, then the newest."""
    ends = []
    for order in ("", " DESC"):
        query = f"SELECT ts, rowid FROM {where} ORDER BY ts{order} LIMIT 1"  # noqa: S608 - literals
        ends.append(database.execute(query, (*values, first, last)).fetchone())
    (first, _), (last, newest) = ends
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    part: timedelta = (end - begin) / (points - 1)
    query = f"SELECT rowid FROM {where} ORDER BY ts LIMIT 1"  # noqa: S608 - literals
    for number in range(points - 1):
        bounds = (rfc3339(begin + number * part), rfc3339(begin + (number + 1) * part))
        if (row := database.execute(query, (*values, *bounds)).fetchone()) is not None:
            yield row[0]
    yield newest
