import json
import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

import device.station as station_module
import device.station.analysis as analysis_module
import device.station.store as store_module
from device.analysis.assess import AnalysisSettings
from device.analysis.grading import RULES, default_rule
from device.cameras import LostFrame
from device.errors import CameraError, ConfigError, JournalError, StationError
from device.journal import Journal, StorageFullError
from device.messages import Published, State, Topics
from device.plates import read_plate
from device.publishers import Lost
from device.records import Frame, ModelId, Outcome, PlateReport, Quality, Reading, Reason, Tally, Verdict
from device.station import Instruments, Station, load_config
from device.station.buffer import Buffer
from device.station.capture import Aim, Capture
from device.station.sender import Sender

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CONFIG = (Path(__file__).parent / "data" / "bench.toml").read_text() + "[journal]\ndrain_s = 5.0\n"
PLATE = """file,well,sample,role,dose,dose_unit
images/n/*.png,A1,medium,negative,,
images/p/*.png,A2,zinc,positive,,
images/t/*.png,A3,silver,test,10,ug/mL
"""


class Model:
    """Stands where a classifier would; nothing here asks it for more than its name."""

    id = ModelId("toy", "0" * 64, trusted=True)
    classes = ()


def read(frame, _classify, settings, *, classify_field=None):
    """Stand in for `assess`: the gray level of the picture is the share of dead cells in percent."""
    n_dead = round(float(frame.image[0, 0]))
    if n_dead == 255:
        raise RuntimeError("a defect in the analysis")
    quality = Quality(True, (), (), 0.1, 0.1, -1.0, 0.0, 0.0, 0.5, 0.1, 0.65, "measured")
    return Reading(
        source=frame.source, sequence=frame.sequence, taken_at=frame.taken_at, well=frame.well,
        field=frame.field, simulated=frame.simulated, outcome=Outcome.INCONCLUSIVE, reasons=(),
        n_live=100 - n_dead, n_dead=n_dead, n_other=0,
        affected=float("nan") if n_dead == 254 else n_dead / 100, p_toxic=None,
        tally=Tally(100 - n_dead, n_dead, 0, 0.13, 0.5), quality=quality, cells=(), height_px=480,
        width_px=640, assay=settings.assay, modality=settings.modality, method=settings.method,
        cell_model=Model.id, field_model=None,
    )  # fmt: skip


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A station over a folder of flat pictures whose gray level says how many cells are dead."""
    monkeypatch.setattr(analysis_module, "assess", read)
    return Lab(tmp_path)


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()

    def draw(self, *levels, well=""):
        (self.images / well).mkdir(exist_ok=True)
        for i, level in enumerate(levels):
            cv2.imwrite(str(self.images / well / f"f{i:03}.png"), np.full((8, 8), level, np.uint8))

    def station(self, text=CONFIG, *, plate=None, **options):
        (self.folder / "station.toml").write_text(text)
        config = load_config(self.folder / "station.toml")
        planned = None
        if plate is not None:
            (self.folder / "plate.csv").write_text(plate)
            planned = read_plate(self.folder / "plate.csv")
        settings = AnalysisSettings("adherent", "phase")
        tools = Instruments(settings, Model(), None, default_rule("adherent"), planned)
        return Station(config, version="0.1.0", instruments=tools, **options)

    def run(self, text=CONFIG, *, stop=None, **options):
        self.station(text, **options).run(stop or threading.Event())

    def sent(self, leaf=None):
        lines = [json.loads(line) for line in (self.folder / "messages.jsonl").read_text().splitlines()]
        return [line["payload"] for line in lines if leaf is None or line["topic"].endswith("/" + leaf)]

    def journal(self):
        return Journal(self.folder / "journal.db", site="lab", station="bench-1")

    def kept(self):
        """How many records the journal holds after checking its chain, and how many of them are unsent."""
        journal = self.journal()
        try:
            return journal.verify(), journal.count_unsent()
        finally:
            journal.close()


def test_every_file_gives_one_reading_in_the_journal_and_on_the_way_out(lab):
    lab.draw(*range(30))
    lab.run()
    assert [reading["n_dead"] for reading in lab.sent("reading")] == list(range(30))
    assert [reading["seq"] for reading in lab.sent("reading")] == list(range(1, 31))
    assert lab.kept() == (30, 0)


def test_threads_of_a_station_change_places_often(lab, monkeypatch):
    told = []
    monkeypatch.setattr("sys.setswitchinterval", told.append)
    lab.draw(1)
    lab.run()
    assert told == [station_module.SWITCH_S]
    assert station_module.SWITCH_S < 0.005, "as it is without"


def test_the_sender_has_a_record_before_the_store_loop_goes_on(lab, monkeypatch):
    said = []
    monkeypatch.setattr("device.station.sender.Sender.stored", lambda _: said.append("stored"))
    wait = threading.Event.wait

    def note(event, timeout=None):
        if threading.current_thread().name == "store":
            said.append(timeout)
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", note)
    lab.draw(1)
    lab.run()
    assert said[said.index("stored") + 1] == station_module.GIVE_WAY_S


def test_birth_comes_first_and_the_end_last(lab):
    lab.draw(1)
    lab.run()
    lines = [json.loads(line) for line in (lab.folder / "messages.jsonl").read_text().splitlines()]
    leaves = [line["topic"].removeprefix("nanotox/v1/lab/bench-1/") for line in lines]
    assert leaves[:5] == ["info", "state", "health", "head", "availability"]
    assert leaves[-4:] == ["state", "health", "head", "availability"]
    assert lab.sent("availability") == ["online", "stopped"]
    assert (lab.sent("state")[-1]["mode"], lab.sent("head")[-1]["seq"]) == ("idle", 1)
    assert {line["retain"] for line in lines if line["topic"].endswith("reading")} == {False}
    assert {line["retain"] for line in lines if "/reading" not in line["topic"]} == {True}
    info = lab.sent("info")[0]
    assert (info["camera"], info["um_per_px"], info["rule"]) == ("folder", 0.65, "iso10993-5-extract/1")


def test_a_plate_ends_with_final_verdicts_and_its_report(lab):
    for well, level in (("n", 2), ("p", 90), ("t", 85)):
        lab.draw(*[level] * 6, well=well)
    text = CONFIG.replace('path = "images"', 'path = "."')
    lab.run(text, plate=PLATE)
    assert len(lab.sent("reading")) == 18
    stages = [(verdict["stage"], verdict["well"]) for verdict in lab.sent("verdict")]
    assert stages == [
        *[("provisional", well) for well in ("A1", "A2", "A3") for _ in range(6)],
        *[("final", well) for well in ("A1", "A2", "A3")],
    ]
    assert [verdict["outcome"] for verdict in lab.sent("verdict")[-3:]][1:] == ["toxic", "toxic"]
    assert lab.sent("plate")[0]["n_wells"] == 3
    seqs = sorted(record["seq"] for leaf in ("reading", "verdict", "plate") for record in lab.sent(leaf))
    assert seqs == list(range(1, 18 * 2 + 3 + 1 + 1))


def test_a_damaged_file_is_an_invalid_reading_and_the_next_follows(lab, caplog):
    lab.draw(1, 2, 3)
    (lab.images / "f001.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    lab.run()
    told = [(reading["outcome"], reading["reasons"]) for reading in lab.sent("reading")]
    assert told == [("inconclusive", []), ("invalid", ["UNREADABLE_IMAGE"]), ("inconclusive", [])]
    assert "f001.png" in caplog.text


def test_a_defect_in_the_analysis_is_invalid_and_logged_once(lab, caplog):
    lab.draw(1, 255, 255, 2)
    with caplog.at_level(logging.INFO):
        lab.run()
    told = [(reading["outcome"], reading["reasons"]) for reading in lab.sent("reading")]
    failed = ("invalid", ["ANALYSIS_FAILED"])
    assert told == [("inconclusive", []), failed, failed, ("inconclusive", [])]
    assert caplog.text.count("a defect in the analysis") == 2, "one traceback: its line and its message"


def test_a_number_that_cannot_be_told_is_an_invalid_reading(lab):
    lab.draw(1, 254, 2)
    lab.run()
    outcomes = [reading["outcome"] for reading in lab.sent("reading")]
    assert outcomes == ["inconclusive", "invalid", "inconclusive"]
    assert lab.kept()[0] == 3


def test_an_invalid_field_enters_no_well_and_never_becomes_non_toxic(lab):
    for well in "npt":
        lab.draw(*[255] * 6, well=well)
    lab.run(CONFIG.replace('path = "images"', 'path = "."'), plate=PLATE)
    assert {verdict["outcome"] for verdict in lab.sent("verdict")} == {"invalid"}
    assert {verdict["n_fields"] for verdict in lab.sent("verdict")} == {0}


def test_a_stop_finishes_the_frame_and_leaves_in_order(lab, monkeypatch):
    lab.draw(*range(100))
    stop = threading.Event()

    def read_and_stop(frame, *arguments, **options):
        if frame.sequence == 4:
            stop.set()
        return read(frame, *arguments, **options)

    monkeypatch.setattr(analysis_module, "assess", read_and_stop)
    lab.run(CONFIG.replace('path = "images"', 'path = "images"\nloop = true'), stop=stop)
    n_read = len(lab.sent("reading"))
    assert n_read >= 5
    assert lab.sent("availability") == ["online", "stopped"]
    assert lab.kept() == (n_read, 0)


def test_a_stopped_plate_has_no_final_verdict(lab, monkeypatch):
    for well in "npt":
        lab.draw(*[2] * 6, well=well)
    stop = threading.Event()

    def read_and_stop(frame, *arguments, **options):
        stop.set()
        return read(frame, *arguments, **options)

    monkeypatch.setattr(analysis_module, "assess", read_and_stop)
    monkeypatch.setattr(station_module, "_FRAMES", 1)
    text = CONFIG.replace('path = "images"', 'path = "."\nloop = true')
    lab.run(text, plate=PLATE, stop=stop)
    assert {verdict["stage"] for verdict in lab.sent("verdict")} == {"provisional"}
    assert lab.sent("plate") == []


def test_without_a_broker_records_are_kept_and_counted(lab, caplog):
    lab.draw(1, 2, 3)
    text = CONFIG.replace('kind = "jsonl"', 'kind = "mqtt"\nhost = "127.0.0.1"\nport = 9')
    with pytest.raises(JournalError, match=r"3 records unsent, kept in .*journal\.db"):
        lab.run(text.replace("5.0", "0.5"))
    assert caplog.text.count("no broker") == 1, "warned once"
    assert lab.kept() == (3, 3)
    lab.run()
    assert [reading["seq"] for reading in lab.sent("reading")] == [1, 2, 3, 4, 5, 6]


def test_an_outage_is_told_once_and_each_new_trouble_in_it_once(lab, caplog):
    class Absent:
        def __init__(self, setup):
            self.notify = setup.notify

        def start(self):
            for detail in ("connection lost", "refused", "connection lost", "refused"):
                self.notify(Lost(detail))

        def close(self):
            pass

    journal = lab.journal()
    state = State("state/1", journal.boot_id, NOW, "running", None)
    sender = Sender(
        journal, Topics("lab", "b"), info=state, state=state, make_publisher=Absent, client_id="nanotox-b"
    )
    sender.start()
    sender.end(0.0)
    journal.close()
    told = [record.message for record in caplog.records]
    first = "no broker: connection lost; records are kept and sent when it is back"
    assert told == [first, "broker still away: refused"]


def test_a_full_disk_is_waited_for_and_nothing_is_published_meanwhile(lab, monkeypatch, caplog):
    lab.draw(1, 2, 3)
    append = Journal.append
    refusals = iter([True, True])

    def refuse(journal, *records):
        if next(refusals, False):
            raise StorageFullError("the disk is full; make room")
        return append(journal, *records)

    monkeypatch.setattr(Journal, "append", refuse)
    monkeypatch.setattr("device.station.store._FULL_S", 0.01)
    lab.run()
    assert len(lab.sent("reading")) == 3
    assert caplog.text.count("the disk is full; make room") == 1


def test_a_journal_that_cannot_be_trusted_ends_the_station(lab, monkeypatch):
    lab.draw(1, 2, 3)

    def fail(*_):
        raise JournalError("the disk does not answer")

    monkeypatch.setattr(Journal, "append", fail)
    with pytest.raises(JournalError, match="does not answer"):
        lab.run()
    assert lab.sent("reading") == []


def test_a_plate_that_was_broken_off_has_no_final_verdict(lab, monkeypatch):
    for well in "npt":
        lab.draw(*[2] * 6, well=well)

    def fail(_):
        raise CameraError("the disk with the images is gone")
        yield

    monkeypatch.setattr("device.cameras.folder.FolderCamera.frames", fail)
    with pytest.raises(CameraError, match="is gone"):
        lab.run(CONFIG.replace('path = "images"', 'path = "."'), plate=PLATE)
    assert lab.sent("verdict") == lab.sent("plate") == []


def test_a_defect_in_a_loop_ends_the_station_with_all_stored(lab, monkeypatch, caplog):
    lab.draw(*range(10))
    count = iter(range(100))

    def fail(state, reading):
        if next(count) == 3:
            raise RuntimeError("a defect in the verdicts")
        return state, None

    monkeypatch.setattr(store_module.plate_state, "add", fail)
    for well in "npt":
        lab.draw(*[2] * 6, well=well)
    with pytest.raises(StationError, match="had to end, see the log; all that it stored is kept"):
        lab.run(CONFIG.replace('path = "images"', 'path = "."'), plate=PLATE)
    assert "a defect in the verdicts" in caplog.text
    assert lab.kept()[0] == 3


def test_the_first_reading_is_stored_before_its_verdict_is_thought_of(lab, monkeypatch):
    for well in "npt":
        lab.draw(*[2] * 6, well=well)
    heads = []
    add = store_module.plate_state.add
    made = lab.station(CONFIG.replace('path = "images"', 'path = "."'), plate=PLATE)

    def note(state, reading):
        heads.append(made._journal.head.seq)
        return add(state, reading)

    monkeypatch.setattr(store_module.plate_state, "add", note)
    made.run(threading.Event())
    assert heads[:3] == [1, 2, 4]


def test_a_second_station_on_one_journal_is_refused(lab):
    lab.draw(1)
    journal = lab.journal()
    with pytest.raises(JournalError, match="in use by another process"):
        lab.station()
    journal.close()


def test_what_cannot_start_leaves_the_journal_free(lab):
    with pytest.raises(CameraError, match="holds no images"):
        lab.station()
    lab.journal().close()


def test_an_unknown_rule_and_a_bad_plate_are_told_together(lab):
    (lab.folder / "plate.csv").write_text("well,sample\n")
    (lab.folder / "station.toml").write_text(CONFIG + '[rule]\nid = "iso"\n[plate]\nfile = "plate.csv"')
    config = load_config(lab.folder / "station.toml")
    with pytest.raises(ConfigError) as caught:
        Station(config, version="0.1.0")
    assert f"rule.id is 'iso'; expected one of {', '.join(RULES)} (station.toml)" in caught.value.faults
    assert len(caught.value.faults) > 1


# The loops' parts


def test_a_full_buffer_waits_or_lets_the_newest_win():
    buffer = Buffer(2)
    assert all(buffer.put_newest(i) for i in range(5))
    assert buffer.flow == (5, 0, 3, 2)
    assert [buffer.get(), buffer.get()] == [3, 4]
    buffer.done()
    buffer.done(dropped=True)
    assert buffer.flow == (5, 1, 4, 0)
    buffer.put(5)
    buffer.put(6)
    put = []
    waiter = threading.Thread(target=lambda: put.append(buffer.put(7)))
    waiter.start()
    assert buffer.get() == 5
    waiter.join(5)
    assert put == [True]
    buffer.end()
    assert not buffer.put(8)
    assert [buffer.get(), buffer.get(), buffer.get()] == [6, 7, None]


def test_an_ended_buffer_lets_waiters_go():
    buffer = Buffer(1)
    buffer.put(1)
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(buffer.put(2)))
    waiter.start()
    buffer.end(discard=True)
    waiter.join(5)
    assert answers == [False]
    assert buffer.get() is None


class LiveCamera:
    live = True

    def __init__(self, n_frames, error):
        self.n_frames, self.error, self.closed = n_frames, error, False

    def frames(self):
        for i in range(self.n_frames):
            yield Frame(np.zeros((2, 2), np.uint8), NOW, "cam", i)
        if self.error:
            raise CameraError(self.error)

    def close(self):
        self.closed = True


def test_a_lost_live_camera_is_opened_again_and_tells_its_loss_once(monkeypatch, caplog):
    monkeypatch.setattr("device.station.capture._REOPEN_S", (0.001, 0.01))
    lost_at = [(2, "cable"), None, (0, "cable"), (1, "cable"), (1, None)]
    cameras = [at and LiveCamera(*at) for at in lost_at]
    opened = []

    def open_next():
        if not cameras:
            capture.close()
            raise CameraError("nothing left")
        camera = cameras.pop(0)
        if camera is None:
            raise CameraError("still gone")
        opened.append(camera)
        return camera

    frames, losses = Buffer(100), []
    capture = Capture(
        "cam", open_next, frames, lambda *fault: losses.append(fault), lambda: Aim(0), live=True
    )
    capture.run()
    got = []
    while (shot := frames.get()) is not None:
        got.append(shot.frame.reason if isinstance(shot.frame, LostFrame) else "frame")
    lost = Reason.CAMERA_LOST
    assert got == ["frame", "frame", lost, "frame", lost, "frame", lost]
    assert losses == [(lost, is_there) for is_there in (True, False, True, False, True)]
    assert all(camera.closed for camera in opened)
    assert caplog.text.count("CAMERA_LOST") == 3


def test_a_live_view_without_a_plate_gives_provisional_verdicts_that_roll(lab, monkeypatch):
    lab.draw(1)
    stop = threading.Event()

    class Rolling(LiveCamera):
        def frames(self):
            for i in range(12):
                yield Frame(np.full((2, 2), 90, np.uint8), NOW, "cam", i)
                waiting.wait(0.02)
            stop.set()
            waiting.wait(10)

        def close(self):
            waiting.set()

    waiting = threading.Event()
    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", lambda *_, **__: Rolling(12, None))
    lab.run(stop=stop)
    verdicts = lab.sent("verdict")
    assert len(verdicts) == len(lab.sent("reading")) > 0
    assert {(verdict["stage"], verdict["well"]) for verdict in verdicts} == {("provisional", "live")}
    assert "non_toxic" not in {verdict["outcome"] for verdict in verdicts}


def test_captured_is_analyzed_and_dropped_and_waiting_at_every_moment_of_an_overload(lab, monkeypatch):
    stop, closed, told = threading.Event(), threading.Event(), []
    batch, turn = threading.Semaphore(0), threading.Semaphore(0)

    class Fast(LiveCamera):
        n_given = 0

        def frames(self):  # twenty while one is analyzed
            for i in range(600):
                self.n_given += 1
                yield Frame(np.full((2, 2), i % 90, np.uint8), NOW, "cam", i)
                if i % 20 == 19:
                    batch.release()
                    turn.acquire(timeout=20)
            stop.set()
            batch.release(5)
            closed.wait(20)

        def close(self):
            closed.set()

    def read_slowly(frame, *arguments, **options):
        batch.acquire(timeout=20)
        told.append((made._watch.health(0), camera.n_given, frame.sequence))
        turn.release()
        return read(frame, *arguments, **options)

    camera = Fast(0, None)
    monkeypatch.setattr(analysis_module, "assess", read_slowly)
    monkeypatch.setattr(station_module, "is_live", lambda _: True)
    monkeypatch.setattr(station_module, "ProcessCamera", lambda *_, **__: camera)
    lab.draw(1)
    made = lab.station()
    made.run(stop)
    assert len(told) >= 10
    for health, n_given, sequence in told:
        assert health.n_captured == health.n_analyzed + health.n_dropped + health.n_waiting
        assert health.n_waiting <= 3, "two in the queue and one in work"
        assert 0 <= n_given - health.n_captured <= 1
        assert n_given - 20 - 3 <= sequence or sequence == 0, "the newest wins"
    assert told[-1][0].n_dropped > 500
    end = lab.sent("health")[-1]
    assert end["n_captured"] == camera.n_given == 600
    assert end["n_analyzed"] == len(lab.sent("reading")) == len(told)
    assert (end["n_captured"], end["n_waiting"]) == (end["n_analyzed"] + end["n_dropped"], 0)


def test_frames_given_up_at_a_stop_are_counted_too(lab, monkeypatch):
    lab.draw(*range(50))
    stop = threading.Event()

    def read_and_stop(frame, *arguments, **options):
        stop.set()
        return read(frame, *arguments, **options)

    monkeypatch.setattr(analysis_module, "assess", read_and_stop)
    lab.run(CONFIG.replace('path = "images"', 'path = "images"\nloop = true'), stop=stop)
    end = lab.sent("health")[-1]
    assert (end["n_captured"], end["n_waiting"]) == (end["n_analyzed"] + end["n_dropped"], 0)
    assert end["n_analyzed"] == len(lab.sent("reading"))


def test_a_picture_that_cannot_be_drawn_ends_no_station(lab, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("a defect in the drawing")

    lab.draw(1, 2, 3)
    monkeypatch.setattr(analysis_module, "overlay_jpeg", fail)
    lab.run(CONFIG.replace("[scale]", "overlay = true\n[scale]"))
    assert len(lab.sent("reading")) == 3
    assert caplog.text.count("cannot be drawn") == 1


def test_the_records_of_a_station_are_those_that_have_a_form():
    assert {Reading, Verdict, PlateReport} <= set(Published.__args__)
    assert replace(Model.id, trusted=False).trusted is False
