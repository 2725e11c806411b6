"""Claims about what a collector knows of the present, and about commands sent through it."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from device.collector import Collector, live
from device.collector.orders import Orders
from device.errors import PublishError
from device.journal import Journal
from device.messages import Info, State, payload
from device.messages.sealing import canonical, rfc3339
from device.publishers import Received, mqtt
from device.records import Alert, Health, PlateReport

REPORT = PlateReport("p", None, "r/1", "d" * 64, None, False, (), (), (), None, 0, False)
BENCH = "nanotox/v1/lab/b"
HERE = ("lab", "b")
NOW = datetime(2026, 3, 4, tzinfo=UTC)
STATE = payload(State("state/1", "boot", NOW, "idle", None))
INFO = payload(
    Info(
        *("info/1", "lab", "b", "boot", "l", "1.0", NOW, "adherent", "phase", "hybrid", None, None, None),
        *("phantom", 0.65, "measured", "0" * 64, ()),
    )
)


def health(*alerts):
    return payload(Health("health/1", "boot", NOW, "synced", alerts, 0, None, *[0] * 6, *[None] * 4))


class Wire:
    def __init__(self):
        self.sent, self.is_up = [], True

    def start(self):
        pass

    def send(self, message):
        self.sent.append(message)
        return len(self.sent) if self.is_up else None

    def close(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A collector that knows the present, what it hears as connection, and the changes that it tells."""
    wire, setups, changes = Wire(), [], []

    def open_publisher(_settings, setup):
        setups.append(setup)
        return wire

    monkeypatch.setattr(mqtt, "open_publisher", open_publisher)
    made = Collector(
        tmp_path / "lab.db",
        mqtt.Settings(),
        tell=lambda _: None,
        on_change=lambda *change: changes.append(change),
    )
    made.wire, made.setup, made.changes = wire, setups[0], changes
    yield made
    made._store.close()


def hear(collector, leaf, body, **other):
    body = body if isinstance(body, bytes) else canonical(body)
    collector._take([Received(f"{BENCH}/{leaf}", body, **other)], threading.Event())


def publish(collector, journal, *records):
    first = journal.head.seq + 1
    journal.append(*records)
    for row in journal.rows(first):
        hear(collector, row.schema.split("/")[0], row.message)


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal.db", site="lab", station="b")
    yield made
    made.close()


def test_what_a_station_says_is_there_until_the_broker_would_forget_it(lab, clock):
    hear(lab, "availability", b"online")
    hear(lab, "info", INFO)
    hear(lab, "state", STATE, expiry_s=30)
    hear(lab, "health", health())
    hear(lab, "image/overlay", b"jpeg", expiry_s=60, user=(("ledger_id", "l"), ("seq", "7")))
    now = lab.now()[HERE]
    assert (now.availability, now.info, now.state, now.health) == ("online", INFO, STATE, health())
    assert now.overlay == live.Overlay(b"jpeg", "l", 7)
    assert now.heard_at is not None
    assert {leaf for *_, leaf in lab.changes} == {"availability", "info", "state", "health", "image/overlay"}
    lab.changes.clear()
    clock[0] += 31
    assert lab.now()[HERE].state is None
    assert lab.changes == [(*HERE, "state")]
    clock[0] += 300
    gone = lab.now()[HERE]
    assert (gone.availability, gone.info) == ("online", INFO)
    assert (gone.state, gone.health, gone.overlay) == (None, None, None)
    hear(lab, "availability", b"")
    assert lab.now()[HERE].availability is None


def test_nothing_that_comes_again_and_again_waits_at_the_broker_for_a_collector_that_is_away(lab):
    kept = {topic.split("/+/+/")[1] for topic in lab.setup.subscribe}
    assert {"reading", "verdict", "availability", "info", "head"} < kept
    glanced = {topic.split("/+/+/")[1] for topic in lab.setup.glance}
    assert glanced == {"state", "health", "latest", "image/overlay"}


@pytest.mark.parametrize(
    ("leaf", "body", "told"),
    [
        ("availability", b"asleep", "availability is 'asleep'; expected online, stopped, offline"),
        ("state", {**STATE, "mode": "<b>"}, "mode is '<b>'; expected one of idle, running, paused, fault"),
        ("state", {**STATE, "schema": "state/9"}, "state/9"),
        ("health", b"[", "is not understood"),
        ("latest", {"schema": "latest/1", "verdict": 1}, "is missing"),
    ],
)
def test_what_is_not_of_its_form_changes_nothing(lab, leaf, body, told, caplog):
    hear(lab, leaf, body)
    hear(lab, leaf, body)
    assert lab.now() == {}
    assert caplog.text.count(told) == 1
    assert lab._n_aside == 0, "it comes every few seconds and would push out what matters"


def test_the_newest_reading_and_verdict_stay_though_older_ones_come_again(lab, journal, make_reading):
    publish(lab, journal, make_reading(5, field=0), make_reading(6, field=1))
    hear(lab, "reading", journal.rows(1, 1)[0].message)
    assert lab.now()[HERE].reading["n_live"] == 6


def test_of_a_batch_the_newest_of_each_station_is_told_once_whatever_its_order(lab, journal, make_reading):
    journal.append(*(make_reading(field=field) for field in range(3)))
    rows = [Received(f"{BENCH}/reading", row.message) for row in journal.rows()]
    lab._take([rows[1], rows[2], rows[0], rows[2]], threading.Event())
    assert lab.now()[HERE].reading["seq"] == 3
    assert lab.changes == [(*HERE, "reading")]


def test_a_verdict_holds_for_its_time_and_is_known_after_it(lab, clock, judged_plate):
    verdict = judged_plate()[1][0]
    identity = {"schema": "verdict/1", "site": "lab", "station": "b", "ledger_id": "l", "seq": 4}
    identity |= {"boot_id": "boot", "ts": rfc3339(NOW), "clock_state": "synced", "prev_hash": "0" * 64}
    verdict |= identity | {"hash": "1", "research_use_only": True, "left_out": [], "full_sha256": None}
    values = {"schema": "latest/1", "valid_until": rfc3339(NOW + timedelta(seconds=60)), "verdict": verdict}
    hear(lab, "latest", values | {"research_use_only": True}, expiry_s=60)
    assert lab.now()[HERE].latest["verdict"] == lab.now()[HERE].verdict == verdict
    clock[0] += 60
    assert lab.now()[HERE].latest is None
    assert lab.now()[HERE].verdict == verdict


def alert(code, *, raised=True):
    return Alert(code, raised, f"{code} happened", NOW)


def codes(collector):
    return [values["code"] for values in collector.now()[HERE].alerts]


def test_alerts_are_those_that_are_raised_in_this_run_of_the_station(lab, journal):
    publish(lab, journal, alert("BLUR"), alert("CAMERA_LOST"), alert("BLUR", raised=False))
    hear(lab, "alert", journal.rows(1, 1)[0].message)
    assert codes(lab) == ["CAMERA_LOST"]
    assert lab.now()[HERE].alerts[0]["text"] == "CAMERA_LOST happened"
    hear(lab, "health", health("DISK_FULL") | {"boot_id": json.loads(journal.rows()[0].message)["boot_id"]})
    assert codes(lab) == ["CAMERA_LOST", "DISK_FULL"]
    hear(lab, "health", health("DISK_FULL"))
    assert codes(lab) == ["DISK_FULL"], "another run began with none"


def test_a_collector_that_starts_again_knows_what_it_kept(lab, journal, make_reading, tmp_path):
    publish(lab, journal, make_reading(5), alert("CAMERA_LOST"))
    lab._store.close()
    again = Collector(tmp_path / "lab.db", mqtt.Settings(), tell=lambda _: None, on_change=lambda *_: None)
    now = again.now()[HERE]
    assert (now.heard_at, now.reading["n_live"]) == (None, 5)
    assert codes(again) == ["CAMERA_LOST"]
    again._store.close()


# Commands


def order(collector, **args):
    future = collector.command("lab", "b", "ping", args, operator="Ada", reason="why")
    collector._take(collector._next_events(), threading.Event())
    return future


def test_a_command_is_sent_and_answered_to_the_one_who_waits(lab):
    futures = [order(lab, a=1), order(lab)]
    sent = [json.loads(message.payload) for message in lab.wire.sent]
    assert (sent[0]["operator"], sent[0]["reason"], sent[0]["args"]) == ("Ada", "why", {"a": 1})
    assert lab.wire.sent[0].topic == f"{BENCH}/cmd/ping"
    assert lab.wire.sent[0].expiry_s == 30
    answer = {"ok": False, "transaction": sent[1]["transaction"], "error": None, "result": None}
    hear(lab, f"reply/{lab._store.client_id}", answer)
    assert futures[1].result(0) == answer
    assert not futures[0].done()


def test_a_command_without_a_broker_or_an_answer_fails_in_words(lab, monkeypatch):
    lab.wire.is_up = False
    with pytest.raises(PublishError, match="there is no broker; the command was not sent"):
        order(lab).result(0)
    lab.wire.is_up = True
    future = order(lab)
    lab._orders.give_up(float("inf"))
    with pytest.raises(PublishError, match="no answer to nanotox/v1/lab/b/cmd/ping within 60 s"):
        future.result(0)
    with pytest.raises(ValueError, match="expected at most 16384"):
        order(lab, a="x" * 20_000)
    assert isinstance(lab._orders, Orders)


def test_without_a_listener_nothing_live_is_asked_for(tmp_path, monkeypatch):
    setups = []
    monkeypatch.setattr(mqtt, "open_publisher", lambda _, setup: setups.append(setup))
    collector = Collector(tmp_path / "lab.db", mqtt.Settings(), tell=lambda _: None)
    assert setups[0].glance == ()
    assert not any(topic.endswith(("/info", "/availability")) for topic in setups[0].subscribe)
    assert collector.now() == {}
    collector._store.close()
