"""Claims about what a station says of itself: conditions told once, a verdict that ends."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from device.journal import Journal, StorageFullError
from device.messages import State, Topics
from device.messages.recompute import parse
from device.publishers import Connected, Lost, Settled
from device.records import Alert, Health
from device.service import Machine, read_machine
from device.station.buffer import Flow
from device.station.health import CONDITIONS, Watch
from device.station.sender import Sender

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WELL = Machine(1 << 30, 51.5, (), 1 << 26)


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.db", site="lab", station="bench-1")
    yield opened
    opened.close()


class Room:
    """A watch whose clocks and machine a test turns."""

    def __init__(self, journal):
        self.time_s, self.machine, self.clock, self.now = 0.0, WELL, "synced", NOW
        self.journal = journal
        self.watch = Watch(
            journal,
            flow=lambda: Flow(5, 2, 2, 1),
            n_reopens=lambda: 3,
            note_stored=lambda: None,
            machine=lambda: self.machine,
            clock=lambda: self.now,
            clock_state=lambda: self.clock,
            monotonic=lambda: self.time_s,
        )

    def look_after(self, seconds):
        self.time_s += seconds
        self.watch.look()

    def told(self):
        found = [json.loads(row.message) for row in self.journal.rows()]
        assert all(values["schema"] == "alert/1" for values in found)
        return [(values["code"], values["raised"]) for values in found]


@pytest.fixture
def room(journal):
    return Room(journal)


# Health


def test_health_tells_how_the_station_is_and_no_age_is_negative(room, make_reading):
    room.watch.note("CAMERA_LOST", True)
    told = room.watch.health(4)
    assert (told.n_captured, told.n_analyzed, told.n_dropped, told.n_waiting) == (5, 2, 2, 1)
    assert (told.n_camera_reopens, told.n_reconnects, told.alerts) == (3, 4, ("CAMERA_LOST",))
    assert (told.cpu_celsius, told.throttled, told.rss_bytes) == (51.5, (), 1 << 26)
    assert told.n_unsent == 1
    room.now = datetime.now(UTC) + timedelta(days=3650)
    assert 3649 * 86_400 < room.watch.health(0).oldest_unsent_s < 3651 * 86_400
    room.now = NOW - timedelta(days=3650)
    assert room.watch.health(0).oldest_unsent_s == 0.0
    room.journal.mark_sent([1])
    assert room.watch.health(0).oldest_unsent_s is None


def test_the_machine_is_read_where_it_tells_and_unknown_where_not(tmp_path):
    zone = tmp_path / "sys/class/thermal"
    for number, (kind, heat) in enumerate([("gpu-thermal", "90000"), ("cpu-thermal", "48312"), ("CPU", "x")]):
        folder = zone / f"thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(kind + "\n")
        (folder / "temp").write_text(heat + "\n")
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware"
    firmware.mkdir(parents=True)
    for bits, codes in (("0", ()), ("50005", ("UNDER_VOLTAGE", "THROTTLED")), ("80008", ("THROTTLED",))):
        (firmware / "get_throttled").write_text(bits + "\n")
        assert read_machine(tmp_path, tmp_path)[1:] == (48.312, codes, None)
    nothing = read_machine(tmp_path / "nowhere", tmp_path / "nowhere")
    assert nothing == (None, None, None, None)
    here = read_machine(tmp_path)
    assert here.disk_free_bytes > 0
    assert 5_000_000 < here.rss_bytes < 50_000_000_000


# Conditions


def test_a_condition_that_comes_and_goes_is_raised_once_and_cleared_once(room):
    for _ in range(20):
        room.watch.note("CAMERA_LOST", True)
        assert room.watch.fault == "CAMERA_LOST"
        room.look_after(6)
        room.watch.note("CAMERA_LOST", False)
        assert room.watch.fault is None
        room.look_after(30)
    assert room.told() == [("CAMERA_LOST", True)]
    room.look_after(31)
    room.look_after(100)
    assert room.told() == [("CAMERA_LOST", True), ("CAMERA_LOST", False)]
    raised, cleared = (parse(Alert, json.loads(row.message)) for row in room.journal.rows())
    assert raised.since == cleared.since == NOW
    room.watch.note("CAMERA_LOST", True)
    assert len(room.told()) == 3


def test_the_newest_fault_is_that_of_the_state_and_the_machine_has_none(room):
    room.machine = WELL._replace(throttled=("UNDER_VOLTAGE", "THROTTLED"))
    room.watch.note("CAMERA_LOST", True)
    room.watch.note("STORAGE_FULL", True)
    room.look_after(5)
    assert room.watch.fault == "STORAGE_FULL"
    room.watch.note("STORAGE_FULL", False)
    assert room.watch.fault == "CAMERA_LOST"
    assert [code for code, _ in room.told()] == ["CAMERA_LOST", "STORAGE_FULL", "UNDER_VOLTAGE", "THROTTLED"]
    assert set(CONDITIONS) > {code for code, _ in room.told()}


def test_a_clock_may_take_two_minutes_to_be_set(room):
    room.clock = "unsynced"
    room.look_after(119)
    assert room.told() == []
    room.look_after(5)
    assert room.told() == [("CLOCK_UNSYNCED", True)]
    room.clock = "synced"
    room.look_after(5)
    room.look_after(60)
    assert room.told()[1:] == [("CLOCK_UNSYNCED", False)]


def test_what_finds_no_room_is_told_when_there_is_some_in_its_order(room, monkeypatch):
    append, is_full = Journal.append, True

    def refuse(journal, *records):
        if is_full:
            raise StorageFullError("full")
        return append(journal, *records)

    monkeypatch.setattr(Journal, "append", refuse)
    room.watch.note("STORAGE_FULL", True)
    room.watch.note("CAMERA_LOST", True)
    assert room.told() == []
    is_full = False
    room.look_after(5)
    assert room.told() == [("STORAGE_FULL", True), ("CAMERA_LOST", True)]


def test_the_last_look_tells_what_is_over_and_leaves_what_is_not(room):
    room.watch.note("CAMERA_LOST", True)
    room.watch.note("STORAGE_FULL", True)
    room.watch.note("STORAGE_FULL", False)
    room.watch.look(is_last=True)
    assert room.told()[2:] == [("STORAGE_FULL", False)]


# On the way out


class Taker:
    """Stands where a broker would: keeps what is sent and answers as the test says."""

    def __init__(self, setup):
        self.notify, self.sent, self.refuses = setup.notify, [], False

    def start(self):
        self.notify(Connected(16))

    def send(self, message):
        self.sent.append(message)
        self.notify(Settled(len(self.sent), "Not authorized (code 135)" if self.refuses else None))
        return len(self.sent)

    def close(self):
        pass

    def of(self, leaf):
        return [message for message in self.sent if message.topic.endswith("/" + leaf)]


def send_all(journal, verdict, *, clock, refusals=None, refuses=False, lost=()):
    state = State("state/1", journal.boot_id, NOW, "running", None)
    takers = []

    def make(setup):
        takers.append(Taker(setup))
        takers[0].refuses = refuses
        return takers[0]

    sender = Sender(
        journal, Topics("lab", "b"), info=state, state=state, make_publisher=make, client_id="nanotox-b",
        health=lambda n: health(journal, n), health_s=10.0, valid_s=120.0, clock=clock,
        note_fault=lambda *told: (refusals if refusals is not None else []).append(told),
    )  # fmt: skip
    journal.append(verdict)
    for event in lost:
        takers[0].notify(event)
    sender.start()
    sender.end(0.5)
    return takers[0]


def health(journal, n_reconnects):
    return Health("health/1", journal.boot_id, NOW, "synced", (), 0, None, 1, 1, 0, 0, 0, n_reconnects, *WELL)


def clock(hours=0.0):
    return lambda: datetime.now(UTC) + timedelta(hours=hours)


@pytest.fixture
def verdict(judged_plate):
    from device.messages.recompute import recompute

    return recompute(judged_plate()[1][0])


def test_the_newest_verdict_stays_for_two_periods_as_it_was_published(journal, verdict):
    taker = send_all(journal, verdict, clock=clock())
    (published,), (latest,) = taker.of("verdict"), taker.of("latest")
    values = json.loads(latest.payload)
    assert values["verdict"] == json.loads(published.payload)
    assert (published.retain, latest.retain) == (False, True)
    assert 110 <= latest.expiry_s <= 120
    until = datetime.fromisoformat(values["valid_until"])
    assert 110 <= (until - datetime.fromisoformat(values["verdict"]["ts"])).total_seconds() <= 121


def test_a_verdict_that_came_too_late_is_no_latest(journal, verdict):
    assert send_all(journal, verdict, clock=clock(hours=1)).of("latest") == []


def test_a_clock_that_was_set_back_makes_no_verdict_last_longer(journal, verdict):
    (latest,) = send_all(journal, verdict, clock=clock(hours=-24 * 3650)).of("latest")
    assert latest.expiry_s == 120


def test_a_refused_verdict_is_no_latest_and_the_refusal_is_noted(journal, verdict):
    refusals = []
    taker = send_all(journal, verdict, clock=clock(), refuses=True, refusals=refusals)
    assert taker.of("latest") == []
    assert set(refusals) == {("BROKER_REFUSED", True)}


def test_a_broker_that_refuses_the_station_is_noted_and_its_return_once(journal, verdict):
    refusals = []
    lost = [Lost("no", "BROKER_REFUSED"), Lost("gone"), Lost("no", "TLS_ERROR"), Lost("no", "TLS_ERROR")]
    send_all(journal, verdict, clock=clock(), refusals=refusals, lost=lost)
    assert refusals == [
        *(("BROKER_REFUSED", True), ("TLS_ERROR", True)),
        *(("TLS_ERROR", False), ("BROKER_REFUSED", False)),
    ]


def test_health_is_kept_for_three_intervals(journal, verdict):
    told = send_all(journal, verdict, clock=clock()).of("health")
    assert {(message.retain, message.expiry_s) for message in told} == {(True, 30)}
    assert json.loads(told[0].payload)["n_reconnects"] == 0
