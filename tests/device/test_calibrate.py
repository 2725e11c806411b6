"""The pixel size comes out of a ruling of known period, and what was measured is what a station uses."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from device import cli
from device.analysis.phantom import render_field
from device.analysis.rulings import join_periods, measure_period
from device.calibration import Measurement, add_calibration, outdated, read_calibrations, station_scale
from device.errors import ConfigError
from device.station import Station, load_config

CONFIG = (Path(__file__).parent / "data" / "bench.toml").read_text()


def ruling(period, angle=0.0, *, size=(480, 640), pattern="lines", width=0.25, noise=3.0, seed=0):
    """Draw dark lines on uneven light; `width` is that of a line, in periods."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[: size[0], : size[1]] + 0.5
    turn, shift = np.radians(angle), rng.uniform(0, period)
    ways = [col * np.cos(turn) + row * np.sin(turn)]
    ways += [row * np.cos(turn) - col * np.sin(turn)] * (pattern == "grid")
    dark = np.zeros(size)
    for way in ways:
        off = np.abs((way + shift) % period - period / 2)
        dark = np.maximum(dark, np.clip(width * period / 2 - off + 0.5, 0, 1))  # a soft edge of a pixel
    light = (170 - 110 * dark) * (1 + 0.2 * (col / size[1] - 0.5) + 0.1 * (row / size[0] - 0.5))
    return np.clip(light + rng.normal(0, noise, size), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("period", "angle", "width", "noise", "pattern", "allowed"),
    [
        (5.3, 3.3, 0.5, 15, "lines", 3e-4), (8.0, 0, 0.5, 2, "lines", 1e-4),
        (13.37, 45, 0.3, 15, "lines", 2e-4),
        (23.1, 88, 0.2, 10, "lines", 4e-4), (41.7, -30, 0.1, 5, "lines", 8e-4),
        (75.0, 5, 0.3, 10, "lines", 4e-3),
        (8.0, 17, 0.3, 10, "grid", 2e-4), (23.1, -60, 0.2, 5, "grid", 4e-4), (41.7, 0, 0.2, 10, "grid", 8e-4),
    ],
)  # fmt: skip
def test_the_period_of_a_ruling_comes_out(period, angle, width, noise, pattern, allowed):
    found = measure_period(ruling(period, angle, width=width, noise=noise, pattern=pattern), pattern)
    error = abs(found.period_px / period - 1)
    assert error < allowed
    assert error < 3 * found.uncertainty_px / period
    turned = found.angle_deg - angle
    assert abs((turned + 45) % 90 - 45 if pattern == "grid" else (turned + 90) % 180 - 90) < 0.5


def test_thin_lines_are_not_taken_for_a_harmonic():
    assert measure_period(ruling(40.0, width=0.06)).period_px == pytest.approx(40.0, rel=1e-3)


def test_a_large_image_is_measured_as_a_whole():
    found = measure_period(ruling(50.0, 12.0, size=(1200, 1600)))
    assert found.period_px == pytest.approx(50.0, rel=2e-4)
    assert found.n_periods > 30


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((200, 200), 128, np.uint8), "no regular lines stand out anywhere"),
        (np.random.default_rng(0).integers(0, 255, (300, 400), dtype=np.uint8), "no regular lines stand out"),
        (np.zeros((20, 20), np.uint8), "expected gray, 64 px or more"),
        (ruling(170.0), "in view; expected 5 or more|finer lines"),
    ],
)
def test_what_is_no_ruling_is_refused(image, expected):
    with pytest.raises(ValueError, match=expected):
        measure_period(image)


def test_cells_that_lie_like_lines_are_no_ruling():
    cells = render_field(modality="phase", seed=57, size=(240, 320), n_cells=20, dead_fraction=0.3).image
    with pytest.raises(ValueError, match=r"known to 2\.3% only; expected 1% or better"):
        measure_period(cells)


def test_lines_are_no_grid():
    with pytest.raises(ValueError, match=r"no regular lines stand out the other way|expected a square grid"):
        measure_period(ruling(20.0, 5.0), "grid")


def test_several_images_are_unsure_of_what_they_differ_by():
    periods = [measure_period(ruling(p, seed=i)) for i, p in enumerate((20.0, 20.2, 19.8))]
    joined = join_periods(periods)
    assert joined.period_px == pytest.approx(20.0, rel=1e-3)
    assert joined.uncertainty_px == pytest.approx(0.2 / 3**0.5, rel=0.05)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "station.toml").write_text(CONFIG)
    (tmp_path / "images").mkdir()
    for i in range(3):
        cv2.imwrite(f"images/{i}.png", ruling(15.5, 10.0, seed=i))
    return tmp_path


def calibrate(*arguments):
    return cli.main(["calibrate", *map(str, arguments)])


def config():
    return load_config(Path("station.toml"))


def sent(leaf):
    found = [json.loads(line) for line in Path("messages.jsonl").read_text().splitlines()]
    return [line["payload"] for line in found if line["topic"].endswith("/" + leaf)]


def test_a_calibration_is_kept_used_and_told(lab, capsys):
    code = calibrate("pixel-size", "images/0.png", "images/1.png", "--period-um", 10, "--operator", "Ada")
    assert code == 0
    assert "0.6451" in capsys.readouterr().out
    record = read_calibrations(config()).newest("pixel_size")
    assert record.value == pytest.approx(10 / 15.5, rel=3e-4)
    assert 0 < record.uncertainty < 1e-3
    assert (record.operator, len(record.images_sha256)) == ("Ada", 2)
    Station(config(), version="0").run(threading.Event())
    reading = sent("reading")[0]
    assert (reading["quality"]["um_per_px"], reading["calibrations"]) == (record.value, [record.id])
    info = sent("info")[0]
    assert info["um_per_px"] == record.value
    assert [(c["id"], c["value"]) for c in info["calibrations"]] == [(record.id, record.value)]


def test_frames_of_the_camera_do_as_well_as_files(lab):
    assert calibrate("pixel-size", "--camera", 2, "--period-um", 10) == 0
    assert read_calibrations(config()).newest("pixel_size").value == pytest.approx(10 / 15.5, rel=3e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONFIG.replace("0.65", "0.325"), "scale.um_per_px is 0.325, but calibration pixel_size-"),
        (CONFIG.replace("0.65", '0.65\nsource = "assumed"'), "scale.source is 'assumed', but calibration"),
    ],
)
def test_station_toml_and_the_record_must_not_contradict(lab, capsys, text, expected):
    assert calibrate("pixel-size", "images/0.png", "--period-um", 10) == 0
    (lab / "station.toml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        station_scale(config())
    assert cli.main(["run"]) == 2
    assert 'write um_per_px = 0.6452 and source = "measured"' in capsys.readouterr().err


def test_a_calibration_that_is_far_off_says_what_to_write(lab, capsys):
    assert calibrate("pixel-size", "images/0.png", "--period-um", 20) == 0
    assert "station.toml says 0.65; write um_per_px = 1.29" in capsys.readouterr().out


def test_flat_fields_say_how_even_the_light_is(lab, capsys):
    for i in range(3):
        row = np.linspace(90, 150, 640) + np.random.default_rng(i).normal(0, 2, (480, 640))
        cv2.imwrite(f"empty{i}.png", row.astype(np.uint8))
    assert calibrate("flat-field", "empty0.png", "empty1.png", "empty2.png") == 0
    assert read_calibrations(config()).newest("flat_field").value == pytest.approx(0.9 * 60 / 120, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("pixel-size", "--period-um", 10), 2, "exclude each other; expected one of them"),
        (("pixel-size", "images/0.png", "--camera", 1, "--period-um", 10), 2, "expected one of them"),
        (("pixel-size", "absent.png", "--period-um", 10), 1, "absent.png"),
        (("pixel-size", "flat.png", "--period-um", 10), 1, "flat.png: no regular lines"),
        (("flat-field", "black.png"), 1, "the fields are black"),
        (("flat-field", "black.png", "images/0.png"), 1, "expected all of one size"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_kept(lab, capsys, arguments, code, expected):
    cv2.imwrite("flat.png", np.full((200, 200), 128, np.uint8))
    cv2.imwrite("black.png", np.zeros((200, 200), np.uint8))
    assert calibrate(*arguments) == code
    assert expected in capsys.readouterr().err
    assert read_calibrations(config()).records == ()


def test_an_old_calibration_is_a_fault_of_the_state(lab, caplog):
    new = add_calibration(config(), Measurement("flat_field", 0.1, 0.01, "by hand", ()), operator="Ada")
    then = datetime.now(UTC) + timedelta(days=365.5)
    assert outdated(config(), datetime.now(UTC)) == []
    assert outdated(config(), then) == [f"calibration {new.id} is 366 days old, over 365"]
    path = lab / "journal.calibration.json"
    path.write_text(path.read_text().replace(new.at, "2020-01-01T00:00:00.000Z"))
    Station(config(), version="0").run(threading.Event())
    assert sent("state")[-1]["fault"] == "CALIBRATION_OLD"
    assert "days old, over 365; calibrate again" in caplog.text


def test_damaged_records_stop_the_station_with_advice(lab, capsys):
    (lab / "journal.calibration.json").write_text("{")
    assert cli.main(["run"]) == 2
    assert "move it away and calibrate again" in capsys.readouterr().err
