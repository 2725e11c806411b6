"""`nanotox plate` without a station: what it prints of wells, and what it refuses by itself."""

import io
import json
import queue
import sys
from pathlib import Path

import pytest

from device.cli import main
from device.cli.plate import RunningStation, _line, _View, _watch
from device.errors import StationError
from device.publishers import Received

BENCH = (Path(__file__).parent / "data" / "bench.toml").read_text()
CONFIG = BENCH.partition("[camera]")[0] + '[camera]\nkind = "raspberry"\n'
PLATE = "well,sample,role,dose,dose_unit\nB03,item,test,100,ug/mL\n"
WELL = {
    "well": "B03", "sample": "item", "role": "test", "dose": 100.0, "dose_unit": "ug/mL", "n_fields": 4,
    "n_fields_planned": 10, "affected_corrected": 0.52, "ci95": {"low": 0.38, "high": 0.66},
    "outcome": "inconclusive", "fields_more": 3,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "station.toml").write_text(CONFIG)
    (tmp_path / "plate.csv").write_text(PLATE)
    return tmp_path


def words(line):
    return " ".join(line.split())


def test_a_well_is_one_line():
    line = words(_line(WELL))
    expected = "B03 item 100 ug/mL field 4/10 affected 52 % (38-66 %) inconclusive, 3 more fields"
    assert line == expected
    nothing = dict.fromkeys(
        ("dose", "n_fields_planned", "affected_corrected", "ci95", "outcome", "fields_more")
    )
    assert words(_line(WELL | nothing | {"n_fields": 0})) == "B03 item field 0 - waiting"


def test_on_a_pipe_a_line_comes_when_something_changes(capsys):
    view = _View([WELL, WELL | {"well": "B04"}], as_json=False, is_live=False)
    view.show()
    view.show(WELL | {"n_fields": 5, "hash": "not shown"})
    view.show(WELL | {"n_fields": 5})
    lines = capsys.readouterr().out.splitlines()
    assert [words(line)[:29] for line in lines] == [
        "B03 item 100 ug/mL field 4/10", "B04 item 100 ug/mL field 4/10", "B03 item 100 ug/mL field 5/10",
    ]  # fmt: skip


def test_on_a_terminal_the_lines_are_redrawn_in_place(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    view = _View([WELL, WELL | {"well": "B04"}], as_json=False, is_live=True)
    view.show()
    view.show(WELL)
    assert sys.stdout.getvalue().count("\x1b[2A") == 1


def test_json_has_a_line_a_well_and_words_go_to_stderr(capsys):
    view = _View([WELL], as_json=True, is_live=True)
    view.say("plate p")
    view.show()
    told = capsys.readouterr()
    assert (json.loads(told.out), told.err) == (WELL, "plate p\n")


def listening(*events):
    """A station that says some messages, and then nothing."""
    station = object.__new__(RunningStation)
    station._heard = [Received(f"nanotox/v1/lab/b/{leaf}", json.dumps(m).encode()) for leaf, m in events]
    station._events = queue.SimpleQueue()
    return station


def test_the_watch_ends_with_the_report_even_if_the_state_is_quicker(capsys):
    report = {"plate": "p", "controls_valid": False, "reasons": ["NEG_CONTROL_FAILED"]}
    verdict = WELL | {"plate": "p", "n_fields": 10, "outcome": "toxic", "fields_more": None}
    events = [("state", {"plate": None}), ("verdict", verdict | {"plate": "q"}), ("verdict", verdict)]
    _watch(listening(*events, ("plate", report)), "p", _View([WELL], as_json=False, is_live=False))
    first, last = capsys.readouterr().out.splitlines()
    assert words(first) == "B03 item 100 ug/mL field 10/10 affected 52 % (38-66 %) toxic"
    assert last == "plate p is finished; controls not valid: NEG_CONTROL_FAILED"


def test_the_watch_of_a_plate_that_is_broken_off_says_so(monkeypatch):
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 0.0)
    with pytest.raises(StationError, match="plate p runs no more and gave no report"):
        _watch(listening(("state", {"plate": None})), "p", _View([WELL], as_json=False, is_live=False))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            '[publisher]\nkind = "jsonl"\n',
            "publisher.kind is 'jsonl'; expected a station that hears commands",
        ),
        ("[commands]\naccept = false\n", "commands.accept is false; expected a station that hears commands"),
    ],
)
def test_a_station_that_hears_no_commands_is_not_asked(folder, capsys, more, expected):
    (folder / "station.toml").write_text(CONFIG + more)
    assert main(["plate", "status"]) == 2
    assert expected in capsys.readouterr().err


def test_faults_of_a_plate_are_told_all_at_once_before_the_station_hears_of_it(folder, capsys):
    (folder / "plate.csv").write_text(PLATE.replace("test", "tset") + "B 4,item,test,,\n")
    assert main(["plate", "start", "--plate", "plate.csv", "--operator", "Ada"]) == 2
    said = capsys.readouterr().err
    assert "plate.csv line 2: role is 'tset'" in said
    assert "plate.csv line 3: well is 'B 4'" in said


@pytest.mark.parametrize("arguments", [["start", "--plate", "plate.csv"], ["well"], ["end"]])
def test_what_is_left_out_is_a_mistake_of_usage(folder, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(["plate", *arguments])
    assert caught.value.code == 2


def test_each_action_has_an_example(capsys):
    for action in ("start", "well", "status", "finish"):
        with pytest.raises(SystemExit):
            main(["plate", action, "--help"])
        assert f"Example: nanotox plate {action}" in capsys.readouterr().out
