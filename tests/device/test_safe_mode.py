"""A station that crashes again and again starts with what it last ran well with, says so, and finds back."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from device import cli
from device.errors import JournalError, ModelError, StationError
from device.journal import Journal
from device.model_card.strict import write_record
from device.station import begun, load_config
from device.station.activation import Activation, Switch
from device.station.safe_mode import HEALTHY_S, read_starts, starts_file

DATA = Path(__file__).parent / "data"
CONFIG = """
[station]
site = "lab"
name = "bench-1"
assay = "suspension"
modality = "brightfield"
[scale]
um_per_px = 0.65
[camera]
kind = "folder"
path = "images"
loop = true
[publisher]
kind = "jsonl"
"""
OLD, NEW = (Activation("cell", name, name[0] * 64, "Ada", "2026-01-01T00:00:00Z") for name in ("old", "new"))


class Crash(BaseException):
    """The end of a process that nobody saw coming."""


def crash():
    raise Crash


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A station folder with two activated models, and a clock that only the test moves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("device.station.safe_mode._machine", lambda: tmp_path.name)
    (tmp_path / "station.toml").write_text(CONFIG)
    for item in (OLD, NEW):
        (tmp_path / "journal.models" / item.sha256).mkdir(parents=True)
    write_record(tmp_path / "journal.models.json", Switch("models/1", (OLD, NEW)))
    return tmp_path


class Clock:
    now_s = 1000.0


def start(*, crashes=False, after_s=10.0, does=lambda _: None):
    """Start with what station.toml says now, `does` something, and end in order or not; return the start."""
    Clock.now_s += after_s
    try:
        with begun(load_config(Path("station.toml")), clock=lambda: Clock.now_s) as found:
            does(found)
            if crashes:
                crash()
    except Crash:
        path = starts_file(found.config)  # as a process that is gone has left it
        assert json.loads(path.read_text())["is_running"] is True
    return found


def test_after_three_crashes_the_model_of_before_is_taken_and_an_ordered_end_forgets_them(lab):
    for _ in range(3):
        assert start(crashes=True).safe_mode is None
    found = start(crashes=True)
    assert found.safe_mode == "3 crashes within 10 min; it runs with model old"
    assert found.activations == (OLD,)
    assert read_starts(found.config).safe_mode == found.safe_mode
    assert start().activations == (OLD,), "a fourth crash changes nothing"
    found = start()
    assert (found.safe_mode, found.activations) == (None, (OLD, NEW))
    assert read_starts(found.config).crashes_s == ()


def test_crashes_far_apart_or_before_the_machine_was_started_do_not_count(lab, monkeypatch):
    for _ in range(4):
        assert start(crashes=True, after_s=HEALTHY_S / 2).safe_mode is None
    for number in range(4):
        monkeypatch.setattr("device.station.safe_mode._machine", lambda number=number: f"power cut {number}")
        assert start(crashes=True).safe_mode is None


def test_an_error_that_says_what_to_mend_is_no_crash_and_a_defect_is_one(lab):
    def fails(kind):
        def does(_):
            raise kind("found; expected")

        return does

    for _ in range(3):
        with pytest.raises(ModelError):
            start(does=fails(ModelError))
    assert start().safe_mode is None
    for _ in range(3):
        with pytest.raises(StationError):
            start(does=fails(StationError))
    assert start().safe_mode is not None


def test_what_ran_for_ten_minutes_is_what_safe_mode_goes_back_to(lab):
    assert start(does=lambda found: found.prove()).safe_mode is None
    (lab / "station.toml").write_text(CONFIG.replace("0.65", "0.325"))
    write_record(lab / "journal.models.json", Switch("models/1", (OLD, NEW, OLD)))
    for _ in range(3):
        assert start(crashes=True).config.scale.um_per_px == 0.325
    seen = []
    found = start(does=lambda found: seen.append(found.prove()))
    assert found.config.scale.um_per_px == 0.65
    assert found.activations == (OLD, NEW)
    assert found.safe_mode == "3 crashes within 10 min; it runs with the station.toml of before and model new"
    assert seen == [False], "it runs well, but not with what it was told"


def test_with_nothing_to_go_back_to_it_says_so_until_it_runs_well(lab):
    start(does=lambda found: found.prove())
    for _ in range(3):
        start(crashes=True)
    told = []

    def runs_well(found):
        told.append(read_starts(found.config).safe_mode)
        assert found.prove() is True
        told.append(read_starts(found.config).safe_mode)

    found = start(does=runs_well)
    assert found.activations == (OLD, NEW)
    assert told == [found.safe_mode, None]
    assert "nothing has changed since it ran well" in found.safe_mode


def test_a_model_whose_copy_is_gone_and_a_file_that_is_damaged_stop_no_start(lab, caplog):
    start(does=lambda found: found.prove())
    write_record(lab / "journal.models.json", Switch("models/1", (OLD,)))
    shutil.rmtree(lab / "journal.models" / NEW.sha256)
    for _ in range(3):
        start(crashes=True)
    assert start(crashes=True).activations == (OLD,)
    starts_file(load_config(Path("station.toml"))).write_text("{")
    assert start().safe_mode is None
    assert "starts.json cannot be read" in caplog.text


def test_a_second_station_on_a_journal_is_no_crash_of_the_first(lab):
    before = read_starts(start(crashes=True).config)
    journal = Journal(lab / "journal.db", site="lab", station="bench-1")
    try:
        with pytest.raises(JournalError, match="in use by another process"):
            start()
    finally:
        journal.close()
    assert read_starts(load_config(Path("station.toml"))) == before


def test_a_station_that_is_killed_three_times_runs_with_the_model_of_before(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "station.toml").write_text(CONFIG)
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(7).integers(60, 200, (64, 64), np.uint8)
    cv2.imwrite("images/f.png", noise)
    assert cli.main(["model", "activate", str(DATA / "tiny-cell"), "--operator", "Ada"]) == 0

    def run(number):
        heard = tmp_path / "messages.jsonl"
        heard.unlink(missing_ok=True)
        command = [sys.executable, "-m", "device.cli", "run"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as station:
            deadline = time.monotonic() + 60
            while not (heard.exists() and '"reading/1"' in heard.read_text()):
                assert station.poll() is None, station.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            station.send_signal(number)
            said = station.stderr.read()
        lines = [json.loads(line) for line in heard.read_text().split("\n")[:-1]]
        records = [(line["topic"].rpartition("/")[2], line["payload"]) for line in lines]
        return station.returncode, said, records

    for _ in range(3):
        code, said, records = run(signal.SIGKILL)
        assert (code, "SAFE_MODE" in said) == (-signal.SIGKILL, False)
        assert next(body for leaf, body in records if leaf == "info")["cell_model"]["name"] == "tiny-cell"
    code, said, records = run(signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False), said
    assert "SAFE_MODE: 3 crashes within 10 min; it runs with the models without any activation" in said
    assert next(body for leaf, body in records if leaf == "info")["cell_model"]["name"] == "chamber-cell"
    assert ("SAFE_MODE", True) in [(b["code"], b["raised"]) for leaf, b in records if leaf == "alert"]
    assert "SAFE_MODE" in [body["fault"] for leaf, body in records if leaf == "state"]
    assert read_starts(load_config(Path("station.toml"))).crashes_s == (), "an ordered end leaves it"
