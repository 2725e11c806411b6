"""Claims about the history of a collector: every question is answered by an index, old files too.

NANOTOX_LONG=1 in the environment asks a file of a million readings instead of 20,000.
"""

import itertools
import os
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from device.collector import History
from device.collector.check import Kept
from device.collector.store import Store
from device.errors import JournalError
from device.messages.sealing import canonical, rfc3339

N = 1_000_000 if os.environ.get("NANOTOX_LONG") else 20_000
START = datetime(2026, 3, 2, tzinfo=UTC)
STEP = timedelta(seconds=1)


def kept(number, kind="reading", *, station=None, ledger_id=None, plate=None, well=None, **values):
    """Return a record that stands as number `number` among those of its station."""
    station = f"b{number % 4}" if station is None else station
    body = {"schema": f"{kind}/1", "seq": number + 1, "plate": plate, "well": well, **values}
    return Kept(
        *(f"ledger-{station}" if ledger_id is None else ledger_id, number + 1, "lab", station, f"{kind}/1"),
        *(rfc3339(START + number * STEP), "h", canonical(body), kind, plate, well),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of N readings of four stations; each hundred of them is a plate of its own."""
    path = tmp_path_factory.mktemp("history") / "lab.db"
    store = Store(path)
    cells = ", ".join(['{"row": 1.0, "col": 2.0}'] * (40 if N > 20_000 else 2))
    with store._db as db:  # as `keep` would, in a tenth of the time
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute(
            f"""WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < {N - 1})
            INSERT INTO record SELECT 'ledger-b' || (n % 4), n + 1, 'lab', 'b' || (n % 4), 'reading/1',
            strftime('%Y-%m-%dT%H:%M:%S.000Z', '2026-03-02', '+' || n || ' seconds'), 'h',
            CAST('{{"schema":"reading/1","seq":' || (n + 1) || ',"cells":[{cells}]}}' AS BLOB), '',
            'reading', 'p' || (n / 100), 'A' || (n % 10) FROM number"""  # noqa: S608 - numbers
        )
    store.keep([kept(N, "plate", station="b0", plate="p0"), kept(N, "verdict", station="b1")])
    store.close()
    return path


@pytest.fixture
def history(path):
    return History(path)


def seqs(records):
    return [values["seq"] for values in records]


def test_stations_are_those_that_said_something(history):
    assert list(history.stations()) == [("lab", f"b{i}") for i in range(4)]
    assert history.stations()["lab", "b1"] == rfc3339(START + N * STEP)


def test_the_newest_records_come_in_their_order_and_within_their_time(history):
    assert seqs(history.select("reading", "lab", "b2", limit=3)) == [N - 9, N - 5, N - 1]
    found = history.select("reading", "lab", "b2", since=START + 8 * STEP, until=START + 14 * STEP)
    assert seqs(found) == [11], "2, 6, 10, 14 are those of this station: since is included, until is not"
    assert seqs(history.select("verdict", "lab", "b1")) == [N + 1]
    assert history.select("verdict", "lab", "b9") == []


def test_records_of_a_plate_and_of_a_well_are_found(history):
    assert seqs(history.select("reading", "lab", "b3", plate="p7", limit=2)) == [796, 800]
    assert seqs(history.select("reading", "lab", "b3", plate="p7", well="A7"))[:2] == [708, 728]
    assert history.select("reading", "lab", "b3", plate="none") == []


def test_a_series_is_spread_evenly_and_ends_with_the_newest(history):
    found = history.series("lab", "b0", points=50)
    assert len(found) == 50
    assert (found[0]["seq"], found[-1]["seq"]) == (1, N - 3)
    steps = [after["seq"] - before["seq"] for before, after in itertools.pairwise(found)]
    assert max(steps) - min(steps) <= 4
    assert "cells" not in found[0]
    assert seqs(history.series("lab", "b0", points=50, until=START + 9 * STEP)) == [1, 5, 9]
    assert history.series("lab", "b9") == []


def test_plates_are_listed_and_one_is_read_whole(history, tmp_path):
    assert [(item.plate, item.station) for item in history.plates()] == [("p0", "b0")]
    assert history.plate("p7", "lab", "b0") is None, "it is not finished"
    told = [("reading", {"well": "A1"})] * 4  # two of them of a run that was broken off
    told += [("verdict", {"well": "A1", "stage": "final", "n_fields": 1, "n_fields_refused": 1})]
    told += [("plate", {"n_wells": 1})]
    made = [kept(n, kind, station="b", plate="p7", **values) for n, (kind, values) in enumerate(told)]
    with closing(Store(tmp_path / "lab.db")) as store:
        store.keep(reversed(made))  # as a replay brings them
        store.keep([kept(90, "plate", station="c", plate="p7", n_wells=8)])
    lab = History(tmp_path / "lab.db")
    run = lab.plate("p7", "lab", "b")
    assert (run.plate["n_wells"], seqs(run.verdicts), seqs(run.readings)) == (1, [5], [3, 4])
    assert lab.plate("p7", "lab", "c").plate["n_wells"] == 8, "a plate of that name elsewhere is another"


def test_records_are_read_on_in_the_order_in_which_they_came(history):
    first = history.records(0, 3)
    assert [record.seq for _, record in first] == [1, 2, 3]
    assert [record.seq for _, record in history.records(first[-1][0], 2)] == [4, 5]
    assert history.records(N + 2) == []


def test_every_question_is_answered_by_an_index_and_at_once(history, monkeypatch):
    plans, asked = [], []

    class Watched(sqlite3.Connection):
        def execute(self, query, *values):
            if query.startswith("SELECT"):
                plans.extend(
                    (query, row[3]) for row in super().execute(f"EXPLAIN QUERY PLAN {query}", *values)
                )
            return super().execute(query, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: connect(*args, factory=Watched, **options)
    )
    questions = {
        "stations": history.stations,
        "newest": history.newest,
        "readings": lambda: history.select("reading", "lab", "b1"),
        "span": lambda: history.select("reading", "lab", "b1", since=START, until=START + 900 * STEP),
        "well": lambda: history.select("reading", "lab", "b1", plate="p3", well="A1"),
        "series": lambda: history.series("lab", "b1", points=300),
        "plates": history.plates,
        "plate": lambda: history.plate("p0", "lab", "b0"),
        "records": lambda: history.records(N // 2),
    }
    for name, ask in questions.items():
        plans.clear()
        ask()
        scans = [row for row in plans if "SCAN" in row[1] and "record_finished" not in row[1]]
        assert not [row for row in scans if "FROM collector" not in row[0]], name
        assert plans, name
    monkeypatch.undo()
    for name, ask in questions.items():
        began = time.perf_counter()
        ask()
        asked.append(f"{name} {time.perf_counter() - began:.3f} s")
    sys.stdout.write(f"{N} readings: {', '.join(asked)}\n")  # pytest -rP shows it


def test_a_file_of_the_first_form_gets_its_indexes(tmp_path):
    path = tmp_path / "lab.db"
    store = Store(path)
    store.keep([kept(n, plate="p", well="A1") for n in range(8)])
    store.keep([kept(8, left_out=["*"])])
    store.close()
    with closing(sqlite3.connect(path)) as db, db:
        for name in ("record_station", "record_plate", "record_finished"):
            db.execute(f"DROP INDEX {name}")
        db.execute("DROP TABLE let_go")
        for name in ("kind", "plate", "well"):
            db.execute(f"ALTER TABLE record DROP COLUMN {name}")
        db.execute("UPDATE collector SET form = 1")
    with pytest.raises(JournalError, match="has form 1; expected 2: run nanotox collect on it once"):
        History(path)
    Store(path).close()
    assert seqs(History(path).select("reading", "lab", "b1", plate="p", well="A1")) == [2, 6]
    assert [r.kind for _, r in History(path).records()] == ["reading"] * 8 + [None]


def test_a_file_that_is_no_collection_is_told(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE other (a)")
    with pytest.raises(JournalError, match="is no file of a collector; expected one of nanotox collect"):
        History(tmp_path / "other.db")


def test_a_history_is_read_beside_a_collector_that_writes(tmp_path):
    with closing(Store(tmp_path / "lab.db")) as store:
        history = History(tmp_path / "lab.db")
        assert history.stations() == {}
        store.keep([kept(0)])
        assert seqs(history.select("reading", "lab", "b0")) == [1]
