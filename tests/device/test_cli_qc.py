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
CONFIG = (Path(__file__).parent / "data" / "bench.toml").read_text().replace("images", "control")


@pytest.fixture(scope="module")
def images():
    return [
        render_field(modality="phase", seed=seed, size=(200, 280), n_cells=25).image for seed in range(10)
    ]


@pytest.fixture
def lab(tmp_path, monkeypatch, images):
    """A folder with a station.toml whose camera shows forty control fields."""
    card = json.loads((TINY / "card.json").read_text())
    kind = CONFIG.replace("adherent", card["assay"]).replace("phase", card["modality"])
    (tmp_path / "station.toml").write_text(f'{kind}[model]\ncell_model = "{TINY}"\n')
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "control", images * 4)
    return tmp_path


def show(folder, images, change):
    """Let the camera of station.toml show other images."""
    draw(folder, images, change)
    config = Path("station.toml").read_text()
    Path("station.toml").write_text(config.replace('path = "control"', f'path = "{folder.name}"'))


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
    config = Path("station.toml").read_text()
    show(lab / "bright", images, lambda image: np.clip(image * 1.3, 0, 255).astype(np.uint8))
    code, said = qc(capsys)
    assert code == 3
    assert [row.split()[0] for row in said.out.splitlines() if row.endswith("OUT")] == ["level"]
    Path("station.toml").write_text(config)
    show(lab / "soft", images, lambda image: cv2.GaussianBlur(image, (0, 0), 6))
    code, said = qc(capsys)
    assert code == 3
    assert "10 fields, 10 refused: BLUR 10" in said.out
    assert "no accepted field to compare" in said.out


def test_relearning_forgets_the_baseline_and_what_was_refused_by_it(lab, capsys, images):
    assert qc(capsys, "--fields", "30")[0] == 0
    show(lab / "soft", images * 3, lambda image: cv2.GaussianBlur(image, (0, 0), 1.3))
    code, said = qc(capsys, "--fields", "30", "--relearn", "--json")
    assert code == 0
    assert json.loads(said.out)["n_refused"] == 0
    assert json.loads(said.out)["learned_at"] is not None
    assert len(json.loads(Path("journal.qc.json").read_text())["runs"]) == 1


def test_a_damaged_frame_is_passed_over_and_no_frame_at_all_exits_3(lab, capsys):
    (lab / "control" / "01.png").write_bytes(b"no image")
    code, said = qc(capsys, "--fields", "3")
    assert code == 0
    assert "learning: 2 of 30" in said.out
    for image in (lab / "control").iterdir():
        image.write_bytes(b"no image")
    code, said = qc(capsys)
    assert code == 3
    assert "0 fields, 0 refused" in said.out


def test_a_run_says_in_one_line_what_is_missing(lab, capsys):
    show(lab / "empty", [], None)
    code, said = qc(capsys)
    assert (code, said.err.count("\n")) == (1, 1)
    assert "which holds no images" in said.err
    code, said = qc(capsys, "--config", "nowhere.toml")
    assert (code, said.err.count("\n")) == (2, 1)


def test_a_damaged_baseline_stops_the_station_with_advice(lab, capsys):
    Path("journal.qc.json").write_text("{}")
    code, said = qc(capsys)
    assert code == 2
    assert "--relearn" in said.err
    assert main(["run"]) == 2
    assert "--relearn" in capsys.readouterr().err
