"""What commands do on a running station: plates from start to finish, and all that concerns the bench."""

import hashlib
import json
import queue
import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

import device.station as station_module
import device.station.analysis as analysis_module
from device import baseline
from device.analysis import control
from device.analysis.assess import AnalysisSettings
from device.analysis.grading import RULES
from device.calibration import read_calibrations
from device.config import to_toml
from device.errors import CameraError, JournalError
from device.journal import Journal
from device.journal.reviews import read_reviews
from device.messages.sealing import rfc3339
from device.plates import parse_plate
from device.publishers import Connected, Received, Settled
from device.records import Frame, ModelId, Outcome, Quality, Reading, Reason, Tally
from device.station import Instruments, Station, activation, bench_commands, load_config
from device.tables import read_rule

CONFIG = """
[station]
site = "lab"
name = "bench-1"
assay = "adherent"
modality = "phase"
[scale]
um_per_px = 0.65
[camera]
kind = "{kind}"
path = "images"
"""
PLATE = """well,sample,role,dose,dose_unit,fields
A1,medium,negative,,,5
A2,zinc,positive,,,5
B1,silver,test,10,ug/mL,5
"""
FILES = """file,well,sample,role,dose,dose_unit
n/*.png,A1,medium,negative,,
p/*.png,A2,zinc,positive,,
"""
BLURRED, BROKEN = 251, 252


class Model:
    """Stands where a classifier would; nothing here asks it for more than its name."""

    id = ModelId("toy", "0" * 64, trusted=True)
    classes = ()


def read(frame, _classify, settings, *, classify_field=None):
    """Stand in for `assess`: the gray level of the picture is the share of dead cells in percent."""
    n_dead = round(float(frame.image[0, 0]))
    if n_dead == BROKEN:
        raise RuntimeError("a defect in the analysis")
    refused = (Reason.BLUR,) if n_dead == BLURRED else ()
    n_dead = min(n_dead, 100)
    quality = Quality(
        not refused, refused, (), 0.1, 0.1, -1.0, 0.0, 0.0, 0.5, 0.1, 0.65, "measured", noise=0.01
    )
    return Reading(
        source=frame.source, sequence=frame.sequence, taken_at=frame.taken_at, well=frame.well,
        field=frame.field, simulated=frame.simulated,
        outcome=Outcome.INVALID if refused else Outcome.INCONCLUSIVE, reasons=refused,
        n_live=100 - n_dead, n_dead=n_dead, n_other=0, affected=n_dead / 100, p_toxic=None,
        tally=Tally(100 - n_dead, n_dead, 0, 0.13, 0.5), quality=quality, cells=(), height_px=480,
        width_px=640, assay=settings.assay, modality=settings.modality, method=settings.method,
        cell_model=Model.id, field_model=None,
    )  # fmt: skip


class Microscope:
    """A live camera that shows what a test lays under it."""

    live = True

    def __init__(self):
        self.shutter = queue.SimpleQueue()
        self.n_shown = 0

    def frames(self):
        while (level := self.shutter.get()) is not None:
            self.n_shown += 1
            image = level
            if not isinstance(level, np.ndarray):
                image = np.full((4, 4), level, np.uint8)
                image[1, :] = np.arange(4) + self.n_shown - 1
            yield Frame(image, datetime.now(UTC), "microscope", self.n_shown)

    def close(self):
        self.shutter.put(None)


class Lab:
    """A station in a thread of its own, the broker's end of its publisher, and what lies under its camera."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.messages, self._news = [], threading.Condition()
        self.stop, self.thread, self.failure, self.restarts = threading.Event(), None, None, None
        self.is_live, self.camera, self.rule = True, None, RULES["iso10993-5-extract/1"]
        monkeypatch.setattr("device.station.newest._QUIET_S", 0.0)
        monkeypatch.setattr(analysis_module, "assess", read)
        monkeypatch.setattr(station_module, "open_publisher", lambda *args: self.connect(args[-1]))
        monkeypatch.setattr(station_module, "ProcessCamera", lambda *_, **__: self.mount())

    def mount(self):
        with self._news:
            self.camera = Microscope()
            self._news.notify_all()
        return self.camera

    # The publisher's protocol

    def connect(self, setup):
        self.setup, self.messages = setup, []
        return self

    def start(self):
        self.setup.notify(Connected(16))

    def send(self, message):
        with self._news:
            self.messages.append(message)
            self._news.notify_all()
            token = len(self.messages)
        self.setup.notify(Settled(token, None))
        return token

    def close(self):
        pass

    # The station

    def run(self, more="", *, planned=None):
        text = CONFIG.format(kind="usb" if self.is_live else "folder")
        text = text.replace('path = "images"\n', "") if self.is_live else text
        (self.folder / "station.toml").write_text(text + more)
        plate = None if planned is None else parse_plate(planned, name="planned")
        tools = Instruments(AnalysisSettings("adherent", "phase"), Model(), None, self.rule, plate)
        self.station = Station(load_config(self.folder / "station.toml"), version="0.1.0", instruments=tools)
        self.stop.clear()
        self.camera = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        if self.is_live:
            self.wait(lambda: self.camera is not None)
        return self

    def _run(self):
        try:
            self.restarts = self.station.run(self.stop)
        except Exception as error:  # noqa: BLE001 - the test asks for it
            self.failure = error

    def end(self):
        self.stop.set()
        self.join()

    def join(self):
        self.thread.join(20)
        assert not self.thread.is_alive()

    def wait(self, is_met):
        with self._news:
            assert self._news.wait_for(is_met, 20), [message.topic for message in self.messages]

    def sent(self, leaf):
        found = [m for m in self.messages if m.topic == f"nanotox/v1/lab/bench-1/{leaf}"]
        return [json.loads(m.payload) for m in found]

    def show(self, *levels):
        """Lay fields under the camera, one after the other is read; the queue of frames drops none."""
        for level in levels:
            n = len(self.sent("reading"))
            self.camera.shutter.put(level)
            self.wait(lambda n=n: len(self.sent("reading")) > n)

    def tell(self, name, /, *, transaction=None, **args):
        """Send a command; return its transaction."""
        asked = transaction or uuid.uuid4().hex
        body = {
            "transaction": asked,
            "issued_at": rfc3339(datetime.now(UTC)),
            "operator": "Ada",
            "args": args,
        }
        topic = f"nanotox/v1/lab/bench-1/cmd/{name}"
        self.setup.notify(Received(topic, json.dumps(body).encode()))
        return asked

    def answer(self, asked, *, n=0):
        """What the station answers to a transaction beyond its first `n` answers."""
        self.wait(lambda: len(self.sent(f"reply/{asked}")) > n)
        return self.sent(f"reply/{asked}")[-1]

    def ask(self, name, /, *, transaction=None, **args):
        """What the station answers to a command."""
        n = 0 if transaction is None else len(self.sent(f"reply/{transaction}"))
        return self.answer(self.tell(name, transaction=transaction, **args), n=n)

    def do(self, name, /, **args):
        reply = self.ask(name, **args)
        assert reply["ok"], reply
        return reply["result"]

    def refusal(self, name, /, **args):
        reply = self.ask(name, **args)
        assert not reply["ok"]
        return reply["error"]["code"], reply["error"]["message"]

    def notes(self, *kinds):
        journal = Journal(self.folder / "journal.db", site="lab", station="bench-1")
        try:
            assert journal.verify() >= 0
            return [body for _, body in reversed(journal.notes(*kinds, limit=100))]
        finally:
            journal.close()

    def draw(self, **wells):
        for well, levels in wells.items():
            (self.folder / "images" / well).mkdir(parents=True, exist_ok=True)
            for i, level in enumerate(levels):
                image = np.full((8, 8), level, np.uint8)
                cv2.imwrite(str(self.folder / "images" / well / f"{i}.png"), image)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    made = Lab(tmp_path, monkeypatch)
    yield made
    if made.thread is not None and made.thread.is_alive():
        made.end()


# A live camera


def test_a_live_plate_goes_from_start_over_its_wells_to_the_report(lab):
    lab.run().show(2)
    assert lab.do("plate_start", plate="p", csv=PLATE) == {
        "plate": "p", "operator": "Ada", "well": None, "wells": [], "n_left_out": 0,
    }  # fmt: skip
    lab.show(2)
    for well, level in (("A1", 2), ("A2", 90), ("B1", 85)):
        assert lab.do("plate_well", well=well)["well"] == well
        lab.show(level, BLURRED, level, BROKEN, level, level, level)
    assert lab.do("plate_status")["well"] is None, "a well that is full takes no more"
    lab.show(50)
    lab.do("plate_finish")
    lab.show(2)
    lab.end()
    readings = lab.sent("reading")
    assert [r["well"] for r in readings] == [None] * 2 + ["A1"] * 7 + ["A2"] * 7 + ["B1"] * 7 + [None] * 2
    assert [r["field"] for r in readings[2:9]] == [0, 1, 1, 2, 2, 3, 4], "a refused field uses up no number"
    assert {r["plate"] for r in readings if r["well"]} == {"p"}
    assert {r["plate"] for r in readings if not r["well"]} == {None}
    verdicts = lab.sent("verdict")
    final = {v["well"]: v["outcome"] for v in verdicts if v["stage"] == "final"}
    assert final == {"A1": "non_toxic", "A2": "toxic", "B1": "toxic"}
    rolling = [v for v in verdicts if v["well"] == "live"]
    assert (verdicts[0], verdicts[-1]) == (rolling[0], rolling[-1]), (
        "before and after the plate the view rolls"
    )
    assert len(rolling) == 2
    report = lab.sent("plate")[0]
    assert (report["plate"], report["operator"], report["controls_valid"]) == ("p", "Ada", True)
    asked = [body["name"] for body in lab.notes("command")]
    assert asked == ["plate_start", "plate_well", "plate_well", "plate_well", "plate_status", "plate_finish"]
    states = lab.sent("state")
    assert {"p", None} == {state["plate"] for state in states}


def test_the_status_tells_how_far_each_well_is(lab):
    lab.run()
    assert lab.do("plate_status")["plate"] is None
    lab.do("plate_start", plate="p", csv=PLATE)
    lab.do("plate_well", well="B1")
    lab.show(85, 85)
    wells = {well["well"]: well for well in lab.do("plate_status")["wells"]}
    row = wells["B1"]
    told = [row[key] for key in ("sample", "dose", "dose_unit", "n_fields", "n_fields_planned", "outcome")]
    assert told == ["silver", 10, "ug/mL", 2, 5, "inconclusive"]
    assert row["affected_corrected"] == 0.85
    assert (wells["A1"]["n_fields"], wells["A1"]["outcome"]) == (0, None)
    assert lab.ask("ping")["result"]["wells"] == []


def test_a_large_plate_leaves_out_wells_of_its_status_and_says_how_many(lab):
    wells = [f"{row}{col},medium {row},negative,5" for row in "ABCDEFGHIJKLMNOP" for col in range(24)]
    lab.run().do("plate_start", plate="p", csv="\n".join(["well,sample,role,fields", *wells]))
    lab.do("plate_well", well="P23")
    lab.show(2)
    status = lab.do("plate_status")
    assert len(status["wells"]) + status["n_left_out"] == 384
    assert 0 < status["n_left_out"] < 384
    assert status["wells"][-1]["well"] == "P23", "wells without a field go first"


@pytest.mark.parametrize("name", ["plate_well", "plate_finish"])
def test_without_a_plate_there_is_nothing_to_tell(lab, name):
    code, text = lab.run().refusal(name, **({"well": "A1"} if name == "plate_well" else {}))
    assert (code, text) == ("NO_PLATE", "no plate runs; expected one; start it with plate_start")


def test_what_cannot_be_is_refused_and_changes_nothing(lab):
    code, text = lab.run().refusal("plate_start", plate="p", csv="well,sample,role\nA 1,x,test\nA2,,tset\n")
    assert code == "PLATE_CSV"
    lines = text.split("\n")
    assert [line.partition(" is ")[0] for line in lines] == [
        "plate.csv line 2: well", "plate.csv line 3: sample", "plate.csv line 3: role",
    ]  # fmt: skip
    lab.do("plate_start", plate="p", csv=PLATE)
    assert lab.refusal("plate_start", plate="q", csv=PLATE) == (
        "PLATE_RUNS",
        "plate p runs; expected none; finish it first, with plate_finish",
    )
    code, text = lab.refusal("plate_well", well="C7")
    assert (code, text) == ("UNKNOWN_WELL", "well 'C7' is not on the plate; expected one of A1, A2, B1")
    lab.do("plate_well", well="A1")
    lab.show(*[2] * 5)
    code, text = lab.refusal("plate_well", well="A1")
    assert (code, text) == ("WELL_DONE", "well A1 has all its planned fields; expected one that has not")
    code, text = lab.refusal("plate_finish")
    assert code == "NOT_DONE"
    assert "fields are missing in A2, B1; expected as many as planned" in text
    assert lab.do("plate_finish", force=True)["plate"] == "p"
    lab.end()
    final = {v["well"]: v["outcome"] for v in lab.sent("verdict") if v["stage"] == "final"}
    assert set(final.values()) == {"invalid"}, "nothing is said where a control is missing"


def test_a_repeated_command_is_refused_even_after_a_restart(lab):
    lab.run()
    assert lab.ask("plate_start", transaction="t1", plate="p", csv=PLATE)["ok"]
    assert lab.ask("ping", transaction="t1")["error"]["code"] == "REPEATED"
    lab.end()
    assert lab.run().ask("ping", transaction="t1")["error"]["code"] == "REPEATED"


def test_a_well_without_a_plan_takes_fields_until_told_otherwise(lab):
    lab.run().do("plate_start", plate="p", csv=PLATE.replace(",5\n", ",\n"))
    lab.do("plate_well", well="A1")
    lab.show(*[2] * 7)
    lab.do("plate_well", well=None)
    lab.show(2)
    assert [r["field"] for r in lab.sent("reading")] == [*range(7), None]
    assert lab.sent("verdict")[-1]["looks"] != []


def test_a_view_that_stays_where_it_is_is_no_field_of_the_plate(lab, monkeypatch):
    def again(reading, before, *, live):
        refused = (
            (Reason.DUPLICATE_FIELD,) if before is not None and before.affected == reading.affected else ()
        )
        quality = Quality(not refused, refused, (), 0.1, 0.1, -1.0, 0, 0, 0.5, 0.1, 0.65, "measured")
        return replace(reading, quality=quality)

    monkeypatch.setattr("device.station.store.refuse_repeat", again)
    lab.run().do("plate_start", plate="p", csv=PLATE)
    lab.do("plate_well", well="A1")
    lab.show(2, 2, 2, 3)
    verdict = lab.sent("verdict")[-1]
    assert (verdict["n_fields"], verdict["n_fields_refused"]) == (2, 0)


# Restarts


def test_a_live_plate_goes_on_after_a_restart_as_if_there_had_been_none(lab):
    lab.run().do("plate_start", plate="p", csv=PLATE)
    lab.do("plate_well", well="A1")
    lab.show(2, 3, BLURRED, 2)
    lab.end()
    lab.run()
    lab.wait(lambda: lab.sent("state"))
    state = lab.sent("state")[0]
    assert (state["plate"], state["well"]) == ("p", None), "the stage may have moved"
    lab.show(50)
    assert lab.do("plate_status")["wells"][0]["n_fields"] == 3
    lab.do("plate_well", well="A1")
    lab.show(4, 2)
    verdict = lab.sent("verdict")[-1]
    assert [count["field"] for count in verdict["fields"]] == [0, 1, 2, 3, 4]
    assert [count["n_rounded"] for count in verdict["fields"]] == [2, 3, 2, 4, 2]
    assert verdict["n_fields_refused"] == 1
    lab.do("plate_finish", force=True)
    assert lab.sent("plate")[0]["operator"] == "Ada"
    lab.end()
    lab.run()
    assert lab.do("plate_status")["plate"] is None


def test_a_plate_whose_end_was_not_noted_is_not_begun_anew(lab, monkeypatch):
    lab.run().do("plate_start", plate="p", csv=PLATE)
    note = Journal.note

    def die(journal, kind, **body):
        if kind == "plate_end":
            raise JournalError("the power fails")
        note(journal, kind, **body)

    monkeypatch.setattr(Journal, "note", die)
    topic = "nanotox/v1/lab/bench-1/cmd/plate_finish"
    asked = {
        "transaction": "t9",
        "issued_at": rfc3339(datetime.now(UTC)),
        "operator": "Ada",
        "args": {"force": True},
    }
    lab.setup.notify(Received(topic, json.dumps(asked).encode()))
    lab.join()
    assert isinstance(lab.failure, JournalError)
    monkeypatch.setattr(Journal, "note", note)
    assert lab.run().do("plate_status")["plate"] is None
    lab.end()
    assert lab.notes("plate_end") == [{"plate": "p", "how": "finished"}]


def test_a_plate_is_not_gone_on_with_under_another_rule(lab, tmp_path, caplog):
    lab.run().do("plate_start", plate="p", csv=PLATE)
    lab.end()
    own = tmp_path / "own.toml"
    own.write_text('id = "our-lab/1"\nbased_on = "iso10993-5-extract/1"\nfields_min = 4\n')
    lab.rule = read_rule(own)
    assert lab.run().do("plate_status")["plate"] is None
    lab.end()
    assert lab.notes("plate_end")[0]["how"] == "broken off: station.toml names another rule or plate now"
    assert "plate p is not gone on with" in caplog.text


def test_a_plate_that_another_version_wrote_is_broken_off_and_stops_no_station(lab, monkeypatch):
    lab.run().do("plate_start", plate="p", csv=PLATE)
    lab.do("plate_well", well="A1")
    lab.show(2)
    lab.end()
    rows = Journal.rows

    def older(journal, *limits):
        return [
            replace(row, message=row.message.replace(b'"tally"', b'"sums"')) for row in rows(journal, *limits)
        ]

    monkeypatch.setattr(Journal, "rows", older)
    assert lab.run().do("plate_status")["plate"] is None
    lab.end()
    monkeypatch.setattr(Journal, "rows", rows)
    how = "broken off: another version of nanotox wrote it (tally is missing; expected a payload of Reading)"
    assert lab.notes("plate_end")[0]["how"] == how


def test_a_configured_plate_on_a_live_camera_goes_on_too(lab):
    lab.run(planned=PLATE).do("plate_well", well="B1")
    lab.show(85)
    lab.end()
    lab.run(planned=PLATE)
    status = lab.do("plate_status")
    assert (status["plate"], status["wells"][2]["n_fields"]) == ("planned", 1)
    lab.end()
    lab.run(planned=PLATE.replace("silver", "gold"))
    assert lab.do("plate_status")["wells"][2]["n_fields"] == 0


# A camera that ends


def test_a_station_that_waits_opens_its_camera_for_each_plate_and_stays(lab, monkeypatch):
    befores = []

    def note(reading, before, *, live):
        befores.append(before if before is None else before.sequence)
        return reading

    monkeypatch.setattr("device.station.store.refuse_repeat", note)
    lab.is_live = False
    lab.draw(n=[2] * 5, p=[90] * 5)
    lab.run("[plate]\nwait = true\n")
    lab.wait(lambda: lab.sent("state"))
    assert (lab.sent("state")[0]["mode"], lab.sent("reading")) == ("idle", [])
    for n, name in enumerate("pq", 1):
        lab.do("plate_start", plate=name, csv=FILES)
        lab.wait(lambda n=n: len(lab.sent("plate")) == n)
    lab.end()
    assert lab.failure is None
    assert [report["plate"] for report in lab.sent("plate")] == ["p", "q"]
    assert [(r["plate"], r["well"], r["field"]) for r in lab.sent("reading")] == [
        (name, well, i) for name in "pq" for well in ("A1", "A2") for i in range(5)
    ]
    final = [v for v in lab.sent("verdict") if v["stage"] == "final"]
    assert len({json.dumps(v["fields"]) for v in final}) == 2, "a plate twice is no field twice"
    assert [body["how"] for body in lab.notes("plate_end")] == ["finished", "finished"]
    assert befores == [None, *range(9)] * 2, "no field of a plate was seen before it"


def test_a_plate_on_a_camera_that_runs_without_one_reopens_it_and_ends_the_station(lab):
    lab.is_live = False
    lab.draw(**{".": [1, 2, 3]}, n=[2] * 5, p=[90] * 5)
    lab.run("loop = true\n").wait(lambda: lab.sent("reading"))
    text = FILES.replace("n/*.png", "n/0.png").replace("p/*.png", "p/0.png")
    lab.do("plate_start", plate="p", csv=text)
    assert lab.refusal("plate_well", well="A1")[0] in {"NOT_LIVE", "NO_PLATE"}
    lab.do("plate_finish", force=True)
    lab.join()
    assert lab.failure is None
    readings = lab.sent("reading")
    assert {(r["plate"], r["well"]) for r in readings} <= {(None, None), ("p", "A1"), ("p", "A2")}
    assert lab.sent("plate")[0]["n_wells"] == 2


def test_a_plate_of_a_camera_that_ends_finishes_by_itself_and_so_does_the_station(lab):
    lab.is_live = False
    lab.draw(n=[2] * 5, p=[90] * 5)
    lab.run(planned=FILES).join()
    assert lab.failure is None
    assert [v["outcome"] for v in lab.sent("verdict") if v["stage"] == "final"] == ["non_toxic", "toxic"]
    assert (lab.sent("plate")[0]["plate"], lab.sent("plate")[0]["operator"]) == ("planned", None)


def test_what_the_camera_cannot_show_is_no_plate(lab):
    lab.is_live = False
    lab.draw(n=[2])
    lab.run("[plate]\nwait = true\n")
    code, text = lab.refusal("plate_start", plate="p", csv=FILES)
    assert (code, text.partition(" in ")[0]) == ("PLATE_CSV", "no file p/*.png")
    assert lab.do("plate_status")["plate"] is None


def test_a_plate_that_a_restart_broke_off_is_noted_where_the_camera_ends(lab, monkeypatch):
    lab.is_live = False
    lab.draw(n=[2] * 5, p=[90] * 5)
    held = threading.Event()

    def hold(frame, *arguments, **options):
        held.wait(20)
        return read(frame, *arguments, **options)

    monkeypatch.setattr(analysis_module, "assess", hold)
    lab.run("[plate]\nwait = true\n").do("plate_start", plate="p", csv=FILES)
    code, text = lab.refusal("plate_finish")
    assert (code, "finishes by itself" in text) == ("NOT_DONE", True)
    assert lab.refusal("plate_well", well="A1")[0] == "NOT_LIVE"
    lab.stop.set()
    assert lab.station._stopping.wait(20)  # else the fields behind the held one would be read as well
    held.set()
    lab.join()
    assert (lab.sent("plate"), lab.notes("plate_end")) == ([], [])
    lab.run("[plate]\nwait = true\n").end()
    assert lab.notes("plate_end") == [{"plate": "p", "how": "broken off"}]


def test_frames_of_before_a_plate_are_not_of_it(lab):
    lab.run().do("plate_start", plate="p", csv=PLATE)
    lab.do("plate_well", well="A1")
    records = lab.station._records
    late = Frame(np.full((4, 4), 2, np.uint8), datetime.now(UTC), "microscope", 99, well="A1")
    stored = records.take(records.aim.run - 1, late, read(late, None, AnalysisSettings("adherent", "phase")))
    assert (stored.plate, stored.well) == (None, None)
    assert lab.do("plate_status")["wells"][0]["n_fields"] == 0


# Commands, frames


def test_a_station_that_takes_no_commands_asks_for_none(lab):
    lab.run("[commands]\naccept = false\n")
    assert lab.setup.subscribe == ()
    lab.end()
    lab.run()
    assert lab.setup.subscribe == ("nanotox/v1/lab/bench-1/cmd/#",)


def test_frames_are_kept_as_they_were_assessed(lab):
    lab.run("[frames]\nkeep = true\n").show(2, 2, BROKEN)
    lab.end()
    readings = lab.sent("reading")
    for i, reading in enumerate(readings):
        file = lab.folder / "frames" / reading["taken_at"][:10] / f"{reading['frame_sha256']}.png"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == reading["frame_sha256"]
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        expected = np.full((4, 4), [2, 2, BROKEN][i], np.uint8)
        expected[1] = np.arange(4) + i
        np.testing.assert_array_equal(image, expected)
    assert len(list((lab.folder / "frames").rglob("*"))) == 1 + 3
    assert len({reading["frame_sha256"] for reading in readings}) == 3


def test_frames_are_not_kept_unless_asked_for(lab):
    lab.run().show(2)
    assert lab.sent("reading")[0]["frame_sha256"] is None
    assert not (lab.folder / "frames").exists()


def test_a_folder_that_cannot_be_written_is_told_once_and_costs_no_verdict(lab, caplog):
    (lab.folder / "frames").write_text("no folder")
    lab.run("[frames]\nkeep = true\n").show(2, 2)
    lab.wait(lambda: any(state["fault"] == "FRAMES_NOT_KEPT" for state in lab.sent("state")))
    assert {reading["frame_sha256"] for reading in lab.sent("reading")} == {None}
    assert len(lab.sent("verdict")) == 2
    assert caplog.text.count("frames are not kept") == 1
    (lab.folder / "frames").unlink()
    lab.show(2)
    lab.wait(lambda: lab.sent("state")[-1]["fault"] is None)
    assert lab.sent("reading")[-1]["frame_sha256"]


# The bench


def ruled(period):
    """A frame that shows a ruling whose lines are `period` px apart."""
    col = np.arange(640) + 0.5
    dark = np.clip(0.15 * period + 0.5 - np.abs((col + 3) % period - period / 2), 0, 1)
    noise = np.random.default_rng(0).normal(0, 3, (480, 640))
    return np.clip(170 - 110 * dark + noise, 0, 255).astype(np.uint8)


def test_capture_answers_with_the_readings_of_the_next_frames(lab):
    lab.run().show(2)
    asked = lab.tell("capture", n=2)
    lab.do("ping")
    lab.show(BLURRED, 3)
    reply = lab.answer(asked)
    readings = lab.sent("reading")
    assert reply["result"] == {
        "ledger_id": readings[0]["ledger_id"],
        "seqs": [reading["seq"] for reading in readings[-2:]],
    }
    assert {reading["plate"] for reading in readings} == {None}
    lab.do("plate_start", plate="p", csv=PLATE)
    lab.do("plate_well", well="A1")
    asked = lab.tell("capture")
    lab.do("ping")
    lab.show(4)
    assert lab.answer(asked)["result"]["seqs"] == [lab.sent("reading")[-1]["seq"]]
    assert lab.sent("reading")[-1]["well"] == "A1"


def test_what_takes_longer_comes_alone_and_holds_up_nothing(lab):
    lab.run().show(2)
    asked = lab.tell("qc_run", fields=2)
    assert lab.refusal("capture") == (
        "BUSY",
        "qc_run is under way; expected one thing at a time; ask again when it is answered",
    )
    assert lab.refusal("model_rollback")[0] == "BUSY"
    assert lab.refusal("plate_start", plate="p", csv=PLATE)[0] == "BUSY"
    lab.show(2, 2)
    assert lab.answer(asked)["ok"]
    asked = lab.tell("capture", n=20)
    lab.do("ping")
    lab.end()
    assert lab.answer(asked)["error"]["code"] == "BUSY", "who waits when the station ends is told"


def test_a_command_that_wants_frames_is_refused_without_a_camera(lab, monkeypatch):
    lab.run().show(2)
    asked = lab.tell("capture", n=2)
    lab.do("ping")
    lab.show(2)

    def fail(*_, **__):
        raise CameraError("no such device")

    monkeypatch.setattr(station_module, "ProcessCamera", fail)
    lab.camera.close()
    error = lab.answer(asked)["error"]
    assert error["code"] == "CAMERA"
    assert "is lost (CAMERA_LOST) after 1 of 2 fields" in error["message"]
    for name, args in (("capture", {}), ("qc_run", {}), ("calibrate", {"kind": "flat_field"})):
        assert lab.refusal(name, **args) == (
            "CAMERA",
            "the camera is away (CAMERA_LOST); expected frames; see nanotox doctor",
        )


def test_a_camera_that_waits_for_a_plate_gives_no_frame_of_its_own(lab):
    lab.is_live = False
    lab.draw(n=[2])
    lab.run("[plate]\nwait = true\n")
    assert lab.refusal("capture")[0] == "CAMERA"


def test_a_control_run_learns_compares_and_is_noted(lab, monkeypatch):
    for module in (baseline, control):
        monkeypatch.setattr(module, "FIELDS_MIN", 4)
    lab.run()
    asked = lab.tell("qc_run", fields=3)
    lab.do("ping")
    lab.show(2, BLURRED, 2)
    result = lab.answer(asked)["result"]
    told = {key: result[key] for key in ("n_fields", "n_refused", "state", "n_pending", "restarts")}
    assert told == {"n_fields": 3, "n_refused": 1, "state": "learning", "n_pending": 2, "restarts": False}
    asked = lab.tell("qc_run", fields=2)
    lab.do("ping")
    lab.show(3, 2)
    result = lab.answer(asked)["result"]
    assert (result["state"], result["restarts"]) == ("learned", True)
    lab.join()
    assert lab.restarts is True, "its gate uses what was learned from the next start on"
    state = baseline.read_qc(lab.folder / "journal.qc.json", "adherent", "phase")
    assert (len(state.runs), state.baseline.learned_at) == (2, result["at"])
    notes = lab.notes("command")
    assert [note["result"]["state"] for note in notes if note["name"] == "qc_run"] == ["learning", "learned"]
    assert {note["operator"] for note in notes} == {"Ada"}
    lab.run()
    asked = lab.tell("qc_run", fields=1)
    lab.do("ping")
    lab.show(2)
    assert lab.answer(asked)["result"]["state"] == "in_control"


def test_a_calibration_is_kept_and_the_station_starts_anew_with_it(lab):
    lab.run()
    asked = lab.tell("calibrate", kind="pixel_size", period_um=10)
    lab.do("ping")
    lab.show(ruled(20.0))
    error = lab.answer(asked)["error"]
    assert error["code"] == "CONFIG"
    assert "scale.um_per_px is 0.65, but the present frame measured 0.5" in error["message"]
    asked = lab.tell("calibrate", kind="pixel_size", period_um=10)
    lab.do("ping")
    lab.show(90)
    error = lab.answer(asked)["error"]
    assert error["code"] == "IMAGE"
    config = load_config(lab.folder / "station.toml")
    assert not read_calibrations(config).records
    asked = lab.tell("calibrate", kind="pixel_size", period_um=10, frames=2)
    lab.do("ping")
    lab.show(ruled(10 / 0.65), ruled(10 / 0.65))
    result = lab.answer(asked)["result"]
    lab.join()
    assert lab.restarts is True
    kept = read_calibrations(config).newest("pixel_size")
    assert (kept.id, kept.operator, len(kept.images_sha256)) == (result["id"], "Ada", 2)
    assert kept.value == result["value"] == pytest.approx(0.65, rel=1e-3)
    lab.run()
    lab.wait(lambda: lab.sent("info"))
    assert lab.sent("info")[0]["calibrations"][0]["id"] == kept.id


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("qc_run", {}),
        ("calibrate", {"kind": "flat_field"}),
        ("model_activate", {"name": "phase-cell"}),
        ("model_rollback", {}),
    ],
)
def test_what_would_change_a_plate_waits_for_its_end(lab, name, args):
    lab.run()
    lab.do("plate_start", plate="p7", csv=PLATE)
    code, message = lab.refusal(name, **args)
    assert code == "PLATE_RUNS"
    assert message.startswith("plate p7 runs; expected none, because its ")


def test_a_review_is_kept_beside_its_record(lab):
    lab.run().show(2, 3)
    reading, verdict = lab.sent("reading")[0], lab.sent("verdict")[0]
    cells = [{"row": 7.5, "col": 8, "label": "dead"}]
    result = lab.do(
        "annotate", seq=reading["seq"], decision="correct", cells=cells, reason="debris", hash=reading["hash"]
    )
    identity = {key: reading[key] for key in ("ledger_id", "seq", "hash")}
    assert result == identity | {"reviewed": "reading/1"}
    assert lab.do("annotate", seq=verdict["seq"], decision="accept")["hash"] == verdict["hash"]
    assert lab.refusal("annotate", seq=99, decision="accept") == (
        "UNKNOWN_RECORD",
        f"seq is 99; expected a record that the journal keeps, {lab.sent('head')[-1]['seq']} at most",
    )
    assert lab.refusal("annotate", seq=1, decision="accept", hash="0" * 64)[0] == "OTHER_RECORD"
    wrong = {"decision": "correct", "reason": "x"}
    assert lab.refusal("annotate", seq=verdict["seq"], **wrong, cells=cells)[0] == "UNKNOWN_RECORD"
    outside = [{"row": 480.0, "col": 8, "label": "dead"}]
    _, message = lab.refusal("annotate", seq=reading["seq"], **wrong, cells=outside)
    assert message == "cell 0 is at row 480, column 8; expected it within 480 x 640"
    lab.end()
    review, accepted = lab.notes("review")
    assert (review["operator"], review["args"]["reason"], review["args"]["cells"]) == ("Ada", "debris", cells)
    assert (review["result"], accepted["result"]["seq"]) == (result, verdict["seq"])
    read = [(r.seq, r.hash, r.decision, len(r.cells)) for r in read_reviews(lab.folder / "journal.db")]
    assert read == [
        (reading["seq"], reading["hash"], "correct", 1),
        (verdict["seq"], verdict["hash"], "accept", 0),
    ]
    lab.run()
    assert (
        lab.refusal("annotate", transaction=review["transaction"], seq=1, decision="accept")[0] == "REPEATED"
    )


def test_the_configuration_is_told_with_every_default(lab):
    lab.run()
    result = lab.do("config_get")
    lab.wait(lambda: lab.sent("info"))
    assert result["toml"] == to_toml(load_config(lab.folder / "station.toml"))
    sha256 = hashlib.sha256((lab.folder / "station.toml").read_bytes()).hexdigest()
    assert result["config_sha256"] == lab.sent("info")[0]["config_sha256"] == sha256
    lab.end()
    assert "result" not in lab.notes("command")[0], "the journal keeps who asked, not the answer"


def test_a_model_is_tried_while_fields_are_read_and_used_after_a_clean_start(lab, monkeypatch):
    trying, tried = threading.Event(), threading.Event()

    def try_bundle(_folder, _sha256):
        trying.set()
        assert tried.wait(20)

    monkeypatch.setattr(activation, "try_bundle", try_bundle)
    lab.run()
    code, message = lab.refusal("model_activate", name="no-such")
    assert code == "MODEL"
    assert "no model 'no-such'; expected the folder of a bundle or a shipped name" in message
    asked = lab.tell("model_activate", name="phase-cell")
    assert trying.wait(20)
    lab.show(2, 3)
    lab.do("ping")
    assert not lab.sent(f"reply/{asked}")
    tried.set()
    result = lab.answer(asked)["result"]
    lab.join()
    assert (result["cell_model"]["name"], result["cell_model"]["trusted"]) == ("phase-cell", True)
    assert lab.restarts is result["restarts"] is True
    (switched,) = lab.notes("model_activate")
    assert (switched["activation"]["operator"], switched["activation"]["name"]) == ("Ada", "phase-cell")
    lab.run()
    assert lab.do("model_rollback")["cell_model"]["name"] == "phase-cell", "the shipped one is the same"
    lab.join()
    lab.run()
    assert lab.refusal("model_rollback") == (
        "MODEL",
        "no model was activated; expected one to go back from; station.toml decides",
    )


def test_a_defect_of_a_command_does_not_end_the_station(lab, monkeypatch, caplog):
    monkeypatch.setattr(bench_commands, "activate", lambda *_, **__: 1 / 0)
    lab.run()
    assert lab.refusal("model_activate", name="phase-cell")[0] == "FAILED"
    assert "ZeroDivisionError" in caplog.text
    lab.show(2)


def test_a_station_says_where_it_is(lab, monkeypatch, caplog):
    lab.run()
    monkeypatch.setattr(bench_commands, "blink", lambda seconds: "ACT")
    found = lab.do("identify")
    assert (found["led"], found["text"]) == ("ACT", "the light ACT blinks for 30 s")

    def refuse(_seconds):
        raise PermissionError("read-only")

    monkeypatch.setattr(bench_commands, "blink", refuse)
    found = lab.do("identify")
    assert (found["led"], found["text"]) == (None, "no light blinks (read-only); the log names the machine")
    assert found["host"] in caplog.text
