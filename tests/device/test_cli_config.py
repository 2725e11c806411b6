from pathlib import Path

import pytest

from device.cli import main
from device.config import read_config
from device.station.instruments import check_files, load_config

SAMPLE = Path(__file__).parents[2] / "systemd" / "station.toml"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "station.toml"
    path.write_text(SAMPLE.read_text())
    return path


def test_the_shipped_sample_is_right(config, capsys):
    assert main(["config", "check", "--config", str(config)]) == 0
    assert capsys.readouterr().out == f"{config} is right\n"


def test_every_fault_has_its_line(config, capsys):
    text = config.read_text().replace("um_per_px = 0.65", "um_per_pixel = 0.65").replace('"localhost"', "7")
    config.write_text(text.replace("interval_s = 1.0", "interval_s = -1\nspeed = 3"))
    assert main(["config", "check", "--config", str(config)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert all(line.startswith("nanotox: error: ") for line in lines)
    keys = "scale.um_per_pixel scale.um_per_px camera.speed camera.interval_s publisher.host"
    for key in keys.split():
        assert sum(f" {key} is " in line for line in lines) == 1, key
    assert len(lines) == 5


def test_rule_and_plate_are_checked_too(config, capsys):
    config.write_text(
        config.read_text()
        .replace('# file = "plate.csv"', 'file = "plate.csv"')
        .replace("[rule]", '[rule]\nid = "iso"')
    )
    assert main(["config", "check", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "rule.id is 'iso'; expected one of iso10993-5-extract/1" in said
    assert "plate.csv" in said


def test_a_rule_of_the_lab_is_a_file_and_excludes_a_named_one(config, capsys):
    own = config.parent / "own.toml"
    text = config.read_text()
    config.write_text(text.replace("[rule]", '[rule]\nfile = "own.toml"'))
    own.write_text('id = "our-lab/1"\nbased_on = "iso10993-5-extract/1"\nfields_min = 0.5\n')
    assert main(["config", "check", "--config", str(config)]) == 2
    assert "rule.fields_min is 0.5; expected " in capsys.readouterr().err
    own.write_text('id = "our-lab/1"\nbased_on = "iso10993-5-extract/1"\nfields_min = 4\n')
    assert main(["config", "check", "--config", str(config)]) == 0
    rule, _ = check_files(load_config(config))
    assert (rule.id, rule.fields_min) == ("our-lab/1", 4)
    both = '[rule]\nfile = "own.toml"\nid = "iso10993-5-extract/1"'
    config.write_text(text.replace("[rule]", both))
    assert main(["config", "check", "--config", str(config)]) == 2
    assert "rule: id and file exclude each other" in capsys.readouterr().err


def test_what_is_shown_is_complete_and_can_be_read_again(config, capsys, tmp_path):
    assert main(["config", "show", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert 'prefix = "nanotox/v1"' in shown
    assert "keepalive_s = 10" in shown
    again = tmp_path / "again.toml"
    again.write_text(shown)
    assert main(["config", "check", "--config", str(again)]) == 0
    assert read_config(again).station == read_config(config).station
