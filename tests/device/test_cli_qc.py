"""`nanotox qc run`: learning, comparing, exit codes, and the station that uses what was learned."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.analysis.phantom import render_field
from device.cli import main
from device.station.instruments import load_config, open_instruments

TINY = Path(__file__).parent / "data" / "tiny-cell"
CONFIG = f"""
[station]
site = "lab"
name = "bench-1"
assay = "{{assay}}"
modality = "{{modality}}"
[scale]
um_per_px = 0.65
[camera]
kind = "folder"
path = "control"
[model]
cell_model = "{TINY}"
"""


@pytest.fixture(scope="module")
def images():
    return [
        render_field(modality="phase", seed=seed, size=(200, 280), n_cells=25).image for seed in range(10)
    ]


@pytest.fixture
def lab(tmp_path, monkeypatch, images):
    """A folder with a station.toml whose camera shows forty control fields."""
    card = json.loads((TINY / "card.json").read_text())
    (tmp_path / "station.toml").write_text(CONFIG.format(**card))
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "control", images * 4)
    return tmp_path


def draw(folder, images, change=lambda image: image):
    folder.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number:02}.png"), change(image))


def qc(capsys, *options):
    code = main(["qc", "run", *options])
    return code, capsys.readouterr()


def test_the_baseline_is_learned_then_compared_and_used_by_the_station(lab, capsys, images):
    before = open_instruments(load_config(Path("station.toml"))).settings.limits
    code, said = qc(capsys, "--fields", "20")
    assert code == 0
    assert "learning: 20 of 30 accepted fields" in said.out
    assert not Path("journal.qc.png").exists()
    code, said = qc(capsys, "--fields", "12")
    assert code == 0
    assert "the baseline is learned" in said.out
    after = open_instruments(load_config(Path("station.toml"))).settings.limits
    assert after.focus is not None
    assert after.focus != before.focus
    code, said = qc(capsys, "--json")
    line = json.loads(said.out)
    assert code == 0
    assert (line["n_fields"], line["n_refused"], line["comparison"]["out"]) == (10, 0, [])
    assert line["chart"] == "journal.qc.png"
    assert cv2.imread(line["chart"]) is not None


def test_a_changed_microscope_is_out_of_control_and_exits_3(lab, capsys, images):
    assert qc(capsys, "--fields", "30")[0] == 0
    folder = ["--um-per-px", "0.65", "--model", str(TINY), "--state", "journal.qc.json"]
    draw(lab / "bright", images, lambda image: np.clip(image * 1.3, 0, 255).astype(np.uint8))
    code, said = qc(capsys, "bright", *folder)
    assert code == 3
    assert [row.split()[0] for row in said.out.splitlines() if row.endswith("OUT")] == ["level"]
    draw(lab / "soft", images, lambda image: cv2.GaussianBlur(image, (0, 0), 6))
    code, said = qc(capsys, "soft", *folder)
    assert code == 3
    assert "10 fields, 10 refused: BLUR 10" in said.out
    assert "no accepted field to compare" in said.out


def test_relearning_forgets_the_baseline_and_what_was_refused_by_it(lab, capsys, images):
    assert qc(capsys, "--fields", "30")[0] == 0
    draw(lab / "soft", images * 3, lambda image: cv2.GaussianBlur(image, (0, 0), 1.3))
    options = ["soft", "--um-per-px", "0.65", "--model", str(TINY), "--state", "journal.qc.json"]
    code, said = qc(capsys, *options, "--relearn", "--json")
    assert code == 0
    assert json.loads(said.out)["n_refused"] == 0
    assert json.loads(said.out)["learned_at"] is not None
    assert len(json.loads(Path("journal.qc.json").read_text())["runs"]) == 1


def test_a_folder_keeps_its_state_here_and_says_what_is_missing(lab, capsys):
    code, said = qc(capsys, "control", "--um-per-px", "0.65", "--model", str(TINY), "--fields", "3")
    assert code == 0
    assert "learning: 3 of 30" in said.out
    assert Path("qc.json").is_file()
    (lab / "empty").mkdir()
    code, said = qc(capsys, "empty", "--um-per-px", "0.65")
    assert code == 2
    assert "empty holds no images; expected fields of a control well" in said.err
    code, said = qc(capsys, "nowhere", "--um-per-px", "0.65")
    assert (code, said.err.count("\n")) == (2, 1)


def test_a_damaged_baseline_stops_the_station_with_advice(lab, capsys):
    Path("journal.qc.json").write_text("{}")
    code, said = qc(capsys)
    assert code == 2
    assert "--relearn" in said.err
    assert main(["run"]) == 2
    assert "--relearn" in capsys.readouterr().err
