"""Dataset folders: one form, and every fault at once."""

import csv

import numpy as np
import pytest

from device.errors import ConfigError
from device.images import write_png
from device.plates import DatasetInfo
from device.records import Scale
from training.cli import main
from training.dataset import Entry, TrueCell, draw_splits, list_importers, read_dataset, write_dataset

INFO = DatasetInfo(Scale(0.65, "measured"), "phase", "drawn for a test", "Apache-2.0", assay="adherent")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(3)
    entries, cells = [], {}
    for split in ("train", "val", "test"):
        for i in range(2):
            file = f"images/{split}{i}.png"
            (tmp_path / "images").mkdir(exist_ok=True)
            write_png(tmp_path / file, rng.integers(0, 255, (40, 50)).astype(np.uint8))
            entries.append(Entry(file, "", f"{split}-well", split))
            cells[file] = (TrueCell("live", 5, 5, 15, 17), TrueCell("dead", 20, 20, 29, 29))
    write_dataset(tmp_path, INFO, entries, cells)
    return tmp_path


def edit(path, change):
    rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(change(rows))


def test_what_is_written_is_read_back(folder):
    dataset = read_dataset(folder)
    assert dataset.info == INFO
    assert len(dataset.in_split("val")) == 2
    cell = dataset.cells["images/train0.png"][0]
    assert (cell.row, cell.col, cell.radius_px) == (11, 10, 6)


def test_a_sound_folder_has_counts_and_no_fault(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    said = capsys.readouterr()
    assert "train: 2 images in 1 groups; cells 2 dead, 2 live" in said.err
    assert not said.out


def test_all_faults_are_told_at_once(folder, capsys):
    (folder / "images/val0.png").unlink()
    (folder / "images/val1.png").write_bytes(b"no image")
    (folder / "images/test0.png").write_bytes((folder / "images/train0.png").read_bytes())
    edit(
        folder / "manifest.csv",
        lambda rows: [[c.replace("test-well", "train-well") for c in row] for row in rows],
    )
    edit(folder / "cells.csv", lambda rows: [r for r in rows if not ("test" in r[0] and r[1] == "dead")])
    assert main(["data", "check", str(folder)]) == 1
    message = capsys.readouterr().err
    for part in ("val0.png is missing", "val1.png", "group train-well is in splits test, train"):
        assert part in message
    assert "test0.png (test) is an exact copy of images/train0.png (train)" in message
    assert "split test holds only cells that are live" in message


@pytest.mark.parametrize(("split", "is_fine"), [("train", True), ("val", False), ("test", False)])
def test_an_unlabeled_image_may_be_a_copy_of_training_data_only(folder, capsys, split, is_fine):
    (folder / "images/copy.png").write_bytes((folder / f"images/{split}0.png").read_bytes())
    edit(folder / "manifest.csv", lambda rows: [*rows, ["images/copy.png", "", "another", "unlabeled"]])
    assert main(["data", "check", str(folder)]) == (0 if is_fine else 1)
    said = capsys.readouterr().err
    assert ("copy.png (unlabeled) is an exact copy of" in said) is not is_fine


def test_missing_columns_are_named(folder, capsys):
    edit(folder / "manifest.csv", lambda rows: [row[:2] for row in rows])
    assert main(["data", "check", str(folder)]) == 2
    assert "no column group, split" in capsys.readouterr().err


def test_an_unknown_kind_of_data_lists_those_there_are(tmp_path, capsys):
    assert main(["data", "import", "mystery", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "expected one of bbbc010, cbc_blood, celldeath_u2os, csv, " in capsys.readouterr().err
    shared = ["bbbc010", "cbc_blood", "celldeath_u2os", "dsb2018", "hepg2_huh7", "ldc", "usiigaci"]
    assert list_importers() == sorted([*shared, "csv", "phantom", "station"])


def test_import_of_a_table_draws_splits_by_group(folder, tmp_path):
    edit(folder / "manifest.csv", lambda rows: [["file", "label", "group"]] + [r[:3] for r in rows[1:]])
    out = tmp_path / "out"
    arguments = ["data", "import", "csv", str(folder / "manifest.csv"), "--out", str(out)]
    assert main([*arguments, "--um-per-px", "0.65", "--modality", "phase", "--assay", "adherent"]) == 0
    dataset = read_dataset(out)
    assert {entry.split for entry in dataset.entries} == {"train", "val", "test"}
    assert sum(len(cells) for cells in dataset.cells.values()) == 12


def test_import_of_a_table_without_a_scale_says_so(folder, tmp_path, capsys):
    arguments = ["data", "import", "csv", str(folder / "manifest.csv"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "--um-per-px" in message
    assert "--modality" in message


def test_import_of_rendered_fields_keeps_cells_and_draws_splits(folder, tmp_path):
    out = tmp_path / "out"
    assert main(["data", "import", "phantom", str(folder), "--out", str(out)]) == 0
    assert len(read_dataset(out).entries) == 6


@pytest.mark.parametrize("n_groups", [3, 7, 40])
def test_splits_cover_all_groups_and_none_is_empty(n_groups):
    splits = draw_splits((f"g{i}" for i in range(n_groups)), seed=2)
    assert len(splits) == n_groups
    assert set(splits.values()) == {"train", "val", "test"}


def test_errors_of_reading_come_together(tmp_path):
    with pytest.raises(ConfigError, match=r"manifest\.csv is missing"):
        read_dataset(tmp_path)


def test_the_finer_class_of_a_renderer_is_kept_where_a_cell_can_be_told(folder):
    edit(folder / "cells.csv", lambda rows: [[*rows[0], "cell_class"]] + [[*r, "lysed"] for r in rows[1:3]])
    edit(folder / "cells.csv", lambda rows: [rows[0], rows[1], [rows[2][0], "", *rows[2][2:]]])
    cells = read_dataset(folder).cells["images/train0.png"]
    assert [cell.label for cell in cells] == ["lysed", ""]
