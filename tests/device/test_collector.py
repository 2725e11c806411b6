import json
import sqlite3
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

import device.collector as collector_module
from device.collector import Collector
from device.collector.check import Aside, Kept, check
from device.collector.gaps import Gaps
from device.collector.store import Store
from device.errors import JournalError
from device.journal import Journal, StorageFullError
from device.messages import stub
from device.messages.sealing import canonical, seal
from device.publishers import Connected, Lost, Received, mqtt
from device.records import PlateReport

REPORT = PlateReport("p", None, "r/1", "d" * 64, None, False, (), (), (), None, 0, False)
PREFIX = "nanotox/v1"
BENCH = f"{PREFIX}/lab/b"


class Wire:
    """Stands where the connection would."""

    def __init__(self):
        self.sent = []

    def start(self):
        pass

    def send(self, message):
        self.sent.append(message)
        return len(self.sent)

    def close(self):
        pass

    def asked(self):
        return [json.loads(message.payload)["args"] for message in self.sent]


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal.db", site="lab", station="b")
    yield made
    made.close()


@pytest.fixture
def wire(monkeypatch):
    made = Wire()
    monkeypatch.setattr(mqtt, "open_publisher", lambda _settings, _setup: made)
    return made


@pytest.fixture
def collector(tmp_path, wire):
    made = Collector(tmp_path / "lab.db", mqtt.Settings(), tell=lambda _: None)
    yield made
    made._store.close()


class Acknowledged(list):
    def received(self, topic, payload):
        return Received(topic, payload, acknowledge=lambda: self.append(topic))


def messages(journal, *seqs):
    acknowledged = Acknowledged()
    rows = [row for row in journal.rows() if row.seq in seqs]
    return [acknowledged.received(f"{BENCH}/plate", row.message) for row in rows], acknowledged


def take(collector, events):
    collector._take(list(events), threading.Event())


def head(journal):
    values = {"ledger_id": journal.ledger_id, "seq": journal.head.seq, "hash": journal.head.hash}
    return Received(f"{BENCH}/head", canonical(values))


def stored(tmp_path, table="record", what="seq"):
    with closing(sqlite3.connect(tmp_path / "lab.db")) as db:
        return [row[0] for row in db.execute(f"SELECT {what} FROM {table}")]  # noqa: S608 - literals


def changed(journal, **changes):
    values = json.loads(journal.rows(1, 1)[0].message) | changes
    return canonical(values | {"hash": seal(values)})


# One message


def test_a_record_is_kept_as_it_came_and_a_newer_form_too(journal):
    journal.append(REPORT)
    message = journal.rows()[0].message
    kept = check(Received(f"{BENCH}/plate", message), PREFIX)
    assert (kept.ledger_id, kept.seq, kept.station) == (journal.ledger_id, 1, "b")
    assert kept.message == message
    newer = changed(journal, schema="plate/2", more=[1])
    assert check(Received(f"{BENCH}/plate", newer), PREFIX).schema == "plate/2"
    assert check(Received(f"{BENCH}/plate", stub(message)), PREFIX).hash == kept.hash


@pytest.mark.parametrize(
    ("leaf", "change", "expected"),
    [
        ("lab/b/plate", {"n_wells": 7}, "the hash of record 1 is wrong"),
        ("lab/c/plate", {}, "it says lab/b; expected the station of its topic"),
        ("lab/b/verdict", {}, "schema is plate/1; expected verdict/ and a number"),
        ("lab/b/plate", {"seq": True}, "has no identity"),
        ("lab/b/plate", {"seq": 0}, "has no identity"),
        ("lab/b/plate", {"seq": 1 << 80}, "has no identity"),
        ("lab/b/plate", {"ledger_id": None}, "has no identity"),
        ("lab/b/plate", {"plate": float("nan")}, "not JSON compliant"),
        ("lab/b/plate", {"plate": "\ud800", "left_out": ["*"]}, "surrogates not allowed"),
    ],
)
def test_a_message_that_is_no_record_is_refused_with_its_reason(journal, leaf, change, expected):
    journal.append(REPORT)
    values = json.loads(journal.rows()[0].message) | change
    with pytest.raises(ValueError, match=expected):
        check(Received(f"{PREFIX}/{leaf}", json.dumps(values).encode()), PREFIX)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b'"n_wells":0', b'"n_wells": 0', "the hash of record 1 is wrong; expected that of its bytes"),
        (b'"n_wells":0', b'"n_wells":1,"n_wells":0', "a key stands twice"),
        (b'"n_wells":0', b'"n_wells":1e999', "1e999 is not JSON compliant"),
        (b'"n_wells":0', b'"n_wells":-Infinity', "-Infinity is not JSON compliant"),
    ],
)
def test_what_says_the_same_in_other_bytes_is_no_record(journal, old, new, expected):
    journal.append(REPORT)
    message = journal.rows()[0].message
    assert old in message
    with pytest.raises(ValueError, match=expected):
        check(Received(f"{BENCH}/plate", message.replace(old, new)), PREFIX)


# Gaps


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(0, 45))
def test_what_is_missing_is_what_did_not_come(seqs, top):
    gaps, seen = Gaps(), set()
    for seq in seqs:
        newest = gaps.newest
        assert gaps.fill(seq, seq) == (seq not in seen and seq <= newest)
        seen.add(seq)
    gaps.reach(top)
    expected = set(range(1, max([top, *seen], default=0) + 1)) - seen
    assert [n for gap in gaps.missing for n in gap] == sorted(expected)
    assert len(gaps) == len(expected)
    asked = gaps.next_asked(top, 7)
    assert len(asked) <= 7
    if expected:
        assert {asked[0], asked[-1]} <= expected
        assert asked[-1] == max((n for n in expected if n < top), default=max(expected))
    else:
        assert not asked


# The file


def kept(seq, sha256="h", ledger_id="l"):
    return Kept(ledger_id, seq, "lab", "b", "plate/1", "t", sha256, b"{}")


def test_each_record_is_there_once_and_one_that_contradicts_it_is_kept_aside(tmp_path):
    store = Store(tmp_path / "lab.db")
    assert store.keep([kept(1), kept(2), kept(1)]) == []
    contradiction = store.keep([kept(2, "other"), kept(5), kept(1, ledger_id="m")])
    assert contradiction == [
        Aside("lab/b/plate", "record 2 of this ledger is stored with another hash; expected the same", b"{}")
    ]
    assert (store.count(), store.n_doubled) == ((4, 1), 2)
    store.give_up("l", range(3, 4), "retention")
    store.close()
    store = Store(tmp_path / "lab.db")
    assert store.n_doubled == 2
    assert {ledger: gap.missing for ledger, gap in store.gaps().items()} == {"l": [range(4, 5)], "m": []}
    store.close()


def test_a_collection_has_one_user_and_one_identity(tmp_path):
    store = Store(tmp_path / "lab.db")
    with pytest.raises(JournalError, match="in use by another process"):
        Store(tmp_path / "lab.db")
    store.close()
    again = Store(tmp_path / "lab.db")
    assert again.client_id == store.client_id
    again.close()
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE other (a)")
    db.close()
    with pytest.raises(JournalError, match="is a database of something else; name another file with --db"):
        Store(tmp_path / "other.db")


# The loop


def test_nothing_is_acknowledged_before_it_is_committed(journal, collector, tmp_path, monkeypatch):
    journal.append(*[REPORT] * 3)
    events, acknowledged = messages(journal, 1, 2, 3)
    n_tries = []

    def full(*_):
        n_tries.append(len(acknowledged))
        raise StorageFullError("the disk is full")

    stop = threading.Event()
    stop.set()
    monkeypatch.setattr(collector._store, "keep", full)
    collector._take(events, stop)
    assert (n_tries, acknowledged, stored(tmp_path)) == ([0], [], [])
    assert collector._gaps == {}
    monkeypatch.undo()
    take(collector, events)
    assert len(acknowledged) == 3
    assert stored(tmp_path) == [1, 2, 3]


def test_what_does_not_fit_is_kept_aside_told_once_and_blocks_nothing(journal, collector, tmp_path, caplog):
    journal.append(*[REPORT] * 2)
    events, acknowledged = messages(journal, 1, 2)
    odd = [b"", b"[1]", b"{}", b"\xff", b"[" * 60_000, events[0].payload.replace(b'"p"', b'"q"')]
    odd = [acknowledged.received(f"{BENCH}/plate", body) for body in odd]
    strange = acknowledged.received(f"{BENCH}/head", b'{"seq":"x"}')
    take(collector, [events[0], *odd, strange, events[1]])
    assert stored(tmp_path) == [1, 2]
    assert len(stored(tmp_path, "set_aside", "why")) == len(odd)
    assert len(acknowledged) == len(odd) + 3
    assert caplog.text.count("is kept aside") == 1
    assert "head is not understood" in caplog.text


def test_a_gap_is_asked_for_when_it_does_not_close_by_itself(journal, collector, wire):
    journal.append(*[REPORT] * 1300)
    events, _ = messages(journal, 1, 2, 4, 1299)
    take(collector, [*events, head(journal)])
    station = collector._stations["lab/b"]
    collector._close_gaps(station, 100.0)
    collector._close_gaps(station, 100.9)
    assert wire.sent == [], "it may still be on its way"
    collector._close_gaps(station, 101.0)
    assert wire.asked() == [{"from_seq": 301, "to_seq": 1300}], "the newest first"
    assert wire.sent[0].topic == f"{BENCH}/cmd/replay"
    assert wire.sent[0].response_topic == f"{BENCH}/reply/{collector._store.client_id}"
    collector._close_gaps(station, 102.0)
    assert len(wire.sent) == 1
    collector._close_gaps(station, 102.2)
    assert wire.asked()[1] == {"from_seq": 3, "to_seq": 300}, "what is not answered blocks nothing"
    for now in (104.5, 110.0, 125.0):
        collector._close_gaps(station, now)
    assert [asked["from_seq"] for asked in wire.asked()] == [301, 3, 301, 3, 301]
    take(collector, messages(journal, *range(1, 1301))[0])
    collector._close_gaps(station, 200.0)
    collector._close_gaps(station, 300.0)
    assert len(wire.sent) == 5


def test_a_collector_asks_again_soon_when_something_came_or_the_broker_is_back(
    journal, collector, monkeypatch
):
    monkeypatch.setattr(collector_module.time, "monotonic", lambda: 1000.0)
    journal.append(*[REPORT] * 9)
    take(collector, [*messages(journal, 1)[0], head(journal)])
    station = collector._stations["lab/b"]
    for news in (messages(journal, 5)[0][0], Connected(16)):
        station.ask_at, station.wait_s = 1009.0, 8.8
        take(collector, [Lost("gone"), news])
        assert (station.ask_at, station.wait_s) == (1001.1, 1.1)


def test_records_that_no_station_has_are_given_up_and_told(journal, collector, wire, tmp_path, caplog):
    journal.append(*[REPORT] * 9)
    take(collector, [*messages(journal, 4, 5, 9)[0], head(journal)])
    station = collector._stations["lab/b"]
    for now in (0.0, 1.0):
        collector._close_gaps(station, now)
    refusal = {"code": "NOT_KEPT", "message": "retention"}
    for transaction in ("another", station.transaction):
        answer = canonical({"transaction": transaction, "error": refusal})
        assert stored(tmp_path, "given_up", "why") == []
        take(collector, [Received(f"{BENCH}/reply/c", answer)])
    assert stored(tmp_path, "given_up", "why") == ["retention"]
    assert "lab/b: records 1 to 8 are lost: retention" in caplog.text
    assert collector._gaps[journal.ledger_id].missing == []


def test_a_station_with_a_new_journal_is_not_asked_for_the_old_one(journal, collector, wire):
    journal.append(*[REPORT] * 3)
    take(collector, [*messages(journal, 3)[0], head(journal)])
    new = canonical({"ledger_id": "new", "seq": 0, "hash": "0"})
    take(collector, [Received(f"{BENCH}/head", new)])
    for now in (0.0, 10.0, 20.0):
        collector._close_gaps(collector._stations["lab/b"], now)
    assert wire.sent == []
    assert len(collector._gaps[journal.ledger_id]) == 2, "they stay missing, and are told so"


def test_a_busy_station_is_asked_again_and_another_refusal_is_told(
    journal, collector, wire, caplog, monkeypatch
):
    monkeypatch.setattr(collector_module.time, "monotonic", lambda: 1000.0)
    journal.append(*[REPORT] * 3)
    take(collector, [*messages(journal, 3)[0], head(journal)])
    station = collector._stations["lab/b"]
    for now in (0.0, 1.0):
        collector._close_gaps(station, now)
    for code in ("BUSY", "NOT_WRITTEN"):
        error = {"code": code, "message": f"for {code}"}
        body = canonical({"transaction": station.transaction, "error": error})
        take(collector, [Received(f"{BENCH}/reply/c", body)])
    assert 1001.1 <= station.ask_at <= 1001.65
    assert "lab/b does not send records again: for NOT_WRITTEN" in caplog.text
    assert "for BUSY" not in caplog.text


def test_a_started_collector_tells_its_numbers_and_ends_when_asked(tmp_path, wire, journal):
    lines, stop = [], threading.Event()
    journal.append(REPORT)

    def tell(line):
        lines.append(line)
        if line.startswith("1 records"):
            stop.set()

    collector = Collector(tmp_path / "lab.db", mqtt.Settings(), tell=tell)
    for event in messages(journal, 1)[0] * 2:
        collector._events.put(event)
    collector.run(stop)
    assert lines[-1] == "1 records of 1 journals, 0 missing, 1 doubled and dropped, 0 kept aside"
    again = Collector(tmp_path / "lab.db", mqtt.Settings(), tell=lines.append)
    again._report()
    assert lines[-1] == lines[-2]
    again._store.close()


def test_a_full_disk_does_not_end_a_collector_that_lets_records_go(collector, monkeypatch, caplog):
    def full(*_):
        raise StorageFullError("the disk is full")

    monkeypatch.setattr(collector._store, "let_go", full)
    collector._let_go(100.0)
    collector._let_go(100.1)
    assert caplog.text.count("the disk is full") == 1
    monkeypatch.setattr(collector._store, "let_go", lambda *_: 5)
    n_before = collector._n_records
    for now in (159.0, 160.0, 160.1):
        collector._let_go(now)
    assert collector._n_records == n_before - 10, "more at once while there is more"
