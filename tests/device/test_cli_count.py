"""`nanotox count`: every file gets its line, and the exit code says what became of them."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from device import cli, fields
from device.analysis.overlay import stage_picture
from device.cli.counts import CSV_COLUMNS
from device.images import read_gray, write_png
from device.records import ModelId

TINY = str(Path(__file__).parent / "data" / "tiny-cell")
SCALE = ["--um-per-px", "0.65"]


def draw_field(seed=1, *, shape=(240, 300)):
    """Return a noisy field with bright disks (dead) and dark spindles (live)."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, 128.0)
    for row in range(25, shape[0] - 20, 45):
        for col in range(25, shape[1] - 20, 45):
            if rng.random() < 0.5:
                cv2.circle(image, (col, row), 7, 190, -1)
            else:
                cv2.ellipse(image, (col, row), (10, 4), float(rng.uniform(0, 180)), 0, 360, 90, -1)
    return np.clip(image + rng.normal(0, 6, shape), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for seed in (1, 2):
        write_png(folder / f"f{seed}.png", draw_field(seed))
    return folder


def count(capsys, *argv):
    code = cli.main(["count", "--model", TINY, "--json", *map(str, argv)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, lines


def write_info(folder, source, modality):
    info = {
        "um_per_px": 0.65,
        "um_per_px_source": source,
        "modality": modality,
        "origin": "o",
        "licence": "l",
    }
    (folder / "dataset.json").write_text(json.dumps(info))


def test_each_image_of_a_folder_gets_a_json_line(folder, capsys):
    code, lines = count(capsys, folder, *SCALE)
    assert code == 0
    assert [line["file"] for line in lines] == [str(folder / "f1.png"), str(folder / "f2.png")]
    for line in lines:
        assert line["error"] is None
        assert line["outcome"] == "inconclusive"
        assert len(line["cells"]) == line["n_live"] + line["n_dead"] > 0
        assert {"row", "col", "label", "p_dead", "area_um2", "touches_edge", "region", "cell_class"} <= set(
            line["cells"][0]
        )
        assert line["quality"]["um_per_px"] == 0.65
        assert line["timing_ms"]["total"] >= line["timing_ms"]["read"] > 0


def test_workers_change_nothing_but_the_time(folder, capsys):
    paths = [folder] * 4
    alone, together = (count(capsys, *paths, *SCALE, "--workers", n)[1] for n in (1, 3))
    for line in (*alone, *together):
        del line["timing_ms"]
    assert alone == together


def test_a_fine_jpeg_is_decoded_in_part_and_written_in_pixels_of_the_file(tmp_path, capsys):
    file, out = tmp_path / "fine.jpg", tmp_path / "seen"
    image = cv2.resize(draw_field(), (1203, 961), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    options = ["--um-per-px", "0.1625", "--overlay", out, "--masks", tmp_path / "masks"]
    _, (quick,) = count(capsys, file, *options)
    _, (exact,) = count(capsys, file, *options, "--exact")
    assert (quick["height_px"], quick["width_px"]) == (961, 1203)
    assert len(quick["cells"]) == pytest.approx(len(exact["cells"]), abs=1)
    for written in (out, tmp_path / "masks"):
        assert read_gray(written / "fine.png").shape == (961, 1203)
    places = [np.array([(cell["row"], cell["col"]) for cell in line["cells"]]) for line in (quick, exact)]
    nearest = np.linalg.norm(places[0][:, None] - places[1][None], axis=2).min(axis=1)
    assert np.median(nearest) < 8


def test_a_file_that_cannot_be_read_gets_its_line_and_exit_1(folder, capsys):
    (folder / "cut.png").write_bytes((folder / "f1.png").read_bytes()[:500])
    code, lines = count(capsys, folder, folder / "missing.png", *SCALE)
    assert code == 1
    errors = {Path(line["file"]).name: line["error"] for line in lines}
    assert "cut off" in errors["cut.png"]
    assert "does not exist" in errors["missing.png"]
    assert errors["f1.png"] is errors["f2.png"] is None
    assert set(lines[0]) == set(lines[-1])


def test_where_nothing_can_be_read_no_model_is_asked_for(tmp_path, capsys):
    assert cli.main(["count", str(tmp_path), str(tmp_path / "no.png"), "--json"]) == 1
    errors = [json.loads(line)["error"] for line in capsys.readouterr().out.splitlines()]
    assert "is a folder; expected a PNG" in errors[0]
    assert "does not exist" in errors[1]


def test_a_field_refused_by_the_gate_is_exit_3_with_its_reasons(folder, capsys):
    write_png(folder / "flat.png", np.full((100, 100), 128, np.uint8))
    write_png(folder / "pixel.png", np.full((1, 1), 128, np.uint8))
    code, lines = count(capsys, folder, *SCALE)
    assert code == 3
    refused = [line for line in lines if line["outcome"] == "invalid"]
    assert [Path(line["file"]).name for line in refused] == ["flat.png", "pixel.png"]
    assert all(line["quality"]["refused_by"] for line in refused)


def test_without_a_scale_it_says_what_to_do(folder, capsys):
    assert cli.main(["count", str(folder), "--model", TINY]) == 2
    assert "no scale is known for" in (err := capsys.readouterr().err)
    assert "--um-per-px X" in err
    assert err.count("\n") == 1


def test_dataset_json_of_the_parent_gives_scale_source_and_origin(folder, capsys):
    write_info(folder.parent, "assumed", "brightfield")
    code, lines = count(capsys, folder / "f1.png")
    assert code == 0
    assert lines[0]["quality"]["flags"] == ["SCALE_ASSUMED"]
    assert all(cell["area_um2"] is None for cell in lines[0]["cells"])
    _, lines = count(capsys, folder / "f1.png", "--um-per-px", "0.6")
    assert lines[0]["quality"]["um_per_px"] == 0.6
    assert lines[0]["quality"]["um_per_px_source"] == "assumed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", TINY, "--assay", "adherent"], "is for assay suspension; expected adherent"),
        (["--model", TINY, "--modality", "phase"], "is for brightfield; expected phase"),
        (["--model", "nonsense"], "no model 'nonsense'"),
        ([], "the assay is not known; expected --assay, --model NAME"),
        (["--method", "paper"], "expected --assay and --modality"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(folder, options, message, capsys):
    assert cli.main(["count", str(folder), *SCALE, *options]) == 2
    assert message in capsys.readouterr().err


def test_statements_that_contradict_each_other_are_refused(folder, capsys):
    write_info(folder, "measured", "phase")
    assert cli.main(["count", str(folder), "--modality", "brightfield", "--assay", "suspension"]) == 2
    assert "modality is brightfield and phase" in capsys.readouterr().err


def test_text_is_an_aligned_table(folder, capsys):
    write_png(folder / "flat.png", np.full((100, 100), 128, np.uint8))
    assert cli.main(["count", str(folder), str(folder / "missing.png"), "--model", TINY, *SCALE]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["file", "live", "dead", "other", "affected", "outcome"]
    assert len(rows) == 5
    column = rows[0].index("outcome")
    assert [row[column:].split(":")[0] for row in rows[1:]] == [
        *("inconclusive", "inconclusive"),
        *("invalid", "unreadable"),
    ]


def test_csv_has_a_row_a_file(folder, tmp_path, capsys):
    _, lines = count(capsys, folder, folder / "missing.png", *SCALE, "--csv", tmp_path / "counts.csv")
    with (tmp_path / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["file"] for row in rows] == [line["file"] for line in lines]
    assert [row["n_dead"] for row in rows] == [str(line["n_dead"]) for line in lines[:2]] + [""]
    assert rows[0]["model"] == "tiny-cell"
    assert "does not exist" in rows[2]["error"]


def test_masks_hold_one_label_a_region(folder, tmp_path, capsys):
    _, lines = count(capsys, folder, *SCALE, "--masks", tmp_path / "m", "--overlay", tmp_path / "o")
    for line in lines:
        name = Path(line["file"]).name
        mask = cv2.imread(str(tmp_path / "m" / name), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint16
        assert mask.shape == (240, 300)
        assert len(np.unique(mask[mask > 0])) == line["n_live"] + line["n_dead"] + line["n_other"]
        assert cv2.imread(str(tmp_path / "o" / name)).shape == (240, 300, 3)


def test_stages_of_the_paper_are_its_figures(folder, tmp_path, capsys):
    options = ["--method", "paper", "--assay", "adherent", "--modality", "phase", "--json", "--stages"]
    assert cli.main(["count", str(folder / "f1.png"), *SCALE, *options, str(tmp_path / "s")]) in (0, 3)
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert err.splitlines()[-1].startswith("1 file: ")
    assert line["n_live"] == 0
    assert line["cell_model"] is None
    names = [path.stem.split("-", 1)[1] for path in sorted((tmp_path / "s" / "f1").iterdir())]
    figures = ["gradient", "filled", "opened", "clusters", "segmented", "cells"]
    assert [name for name in names if name in figures] == figures
    assert all(read_gray(path).shape for path in (tmp_path / "s" / "f1").iterdir())


def test_pictures_never_replace_the_images(folder, capsys):
    before = (folder / "f1.png").read_bytes()
    assert cli.main(["count", str(folder), "--model", TINY, *SCALE, "--overlay", str(folder)]) == 2
    assert "where the images are; expected another folder" in capsys.readouterr().err
    assert (folder / "f1.png").read_bytes() == before


def test_equal_names_in_two_folders_give_two_pictures(folder, tmp_path, capsys):
    write_png(tmp_path / "f1.png", draw_field(3))
    cv2.imwrite(str(folder / "f1.tif"), draw_field(4))
    files = [folder / "f1.png", folder / "f1.tif", tmp_path / "f1.png"]
    assert count(capsys, *files, *SCALE, "--masks", tmp_path / "m")[0] == 0
    assert len(list((tmp_path / "m").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    "picture",
    [
        np.eye(5, dtype=bool),
        np.arange(25, dtype=np.int32).reshape(5, 5) - 1,
        np.linspace(-1, 3, 25, dtype=np.float32).reshape(5, 5),
        np.zeros((5, 5), np.float32),
        np.full((5, 5), 7, np.uint8),
    ],
)
def test_every_kind_of_stage_becomes_visible(picture):
    seen = stage_picture(picture)
    assert seen.dtype == np.uint8
    assert seen.shape[:2] == (5, 5)
    if picture.dtype == np.int32:
        assert len({tuple(color) for color in seen.reshape(-1, 3)}) == 24


class Suspicious:
    id = ModelId("suspicious", "3" * 64, trusted=True)

    def __call__(self, relative):
        return 0.75


def test_a_field_model_is_asked_unless_none_is_wanted(folder, capsys, monkeypatch):
    monkeypatch.setattr(fields, "field_bundle", lambda name: None if name == "none" else TINY)
    monkeypatch.setattr(fields, "second_opinion", lambda bundle, *_kind: bundle and Suspicious())
    said = {
        asked: [line["p_toxic"] for line in count(capsys, folder, *SCALE, *options)[1]]
        for asked, options in (("shipped", ()), ("none", ("--field-model", "none")))
    }
    assert said == {"shipped": [0.75, 0.75], "none": [None, None]}
