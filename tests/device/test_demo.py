"""The demo compares what came back with the truth, and says what did not come out right."""

import io
import sys

import pytest

from device import cameras, demo, publishers
from device.config import read_config
from device.demo.table import Row, Table
from device.plates import read_plate, write_plate
from device.records import Outcome


def final(outcome, **changes):
    found = {"stage": "final", "outcome": outcome, "reasons": [], "affected": 0.31, "grade": 2}
    return {**found, "bounds": {"low": 0.25, "high": 0.37}, **changes}


def test_the_plate_has_controls_and_three_doses_and_can_be_written(tmp_path):
    plate = demo.make_plate(10, 3)
    assert [well.role for well in plate.wells] == ["blank", "negative", "positive", *["test"] * 9]
    assert {well.dose for well in plate.wells if well.role == "test"} == {10, 30, 100}
    assert all(well.fields == 10 for well in plate.wells)
    write_plate(tmp_path / "plate.csv", plate)
    assert read_plate(tmp_path / "plate.csv", name="demo") == plate


def test_the_station_of_the_demo_is_configured_without_fault(tmp_path):
    (tmp_path / "station.toml").write_text(demo.station_toml(port=1883))
    config = read_config(
        tmp_path / "station.toml",
        camera_settings=cameras.camera_settings,
        publisher_settings=publishers.publisher_settings,
    )
    assert config.camera.kind == "phantom"
    assert config.publisher.settings.port == 1883


@pytest.mark.parametrize(("dead_fraction", "expected"), [(0.3, Outcome.NON_TOXIC), (0.85, Outcome.TOXIC)])
def test_a_right_verdict_is_no_fault_and_every_other_is(dead_fraction, expected):
    plan = next(w for w in demo.make_plate(5, 1).wells if w.dead_fraction == dead_fraction)
    assert Row(plan, 5, final(expected)).fault is None
    for outcome in set(Outcome) - {expected}:
        assert f"{outcome} (BLUR); expected {expected}" in str(
            Row(plan, 5, final(outcome, reasons=["BLUR"])).fault
        )
    assert "no final verdict" in str(Row(plan, 5, final(expected, stage="provisional")).fault)
    assert "no final verdict" in str(Row(plan).fault)
    assert "4 readings came back; expected 5" in str(Row(plan, 4, final(expected)).fault)


def test_without_a_terminal_the_table_is_plain_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    row = Row(demo.make_plate(5, 1).wells[4], 3, final("inconclusive", stage="provisional", bounds=None))
    table = Table([row])
    table.show(row)
    row.n_readings, row.verdict = 5, final("non_toxic")
    table.show(row)
    table.end()
    lines = sys.stdout.getvalue().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in "".join(lines)
    assert lines[1].split()[:4] == ["C01", "item", "30", "ug/mL"]
    assert lines[1].endswith("final: non_toxic (as true)")


def test_on_a_terminal_the_table_is_redrawn_in_place(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    rows = [Row(well) for well in demo.make_plate(5, 1).wells]
    table = Table(rows)
    table.show(rows[0])
    table.show(rows[0])
    assert terminal.getvalue().count("\x1b[7A") == 1
