import csv
from collections import Counter

import cv2
import numpy as np
import pytest

from device.cli import main
from device.cli.phantom import draw_splits
from device.images import read_gray
from device.plates import find_fields, read_dataset_info, read_plate
from device.records import Scale

PLATE = """well,sample,role,dose,dose_unit,dead_fraction,fields
A01,blank,blank,,,0.0,1
A02,ZDEC,positive,,,1.0,1
B_1,NP,test,10,ug/mL,0.4,2
B,NP,test,20,ug/mL,0.6,1
"""


def phantom(*arguments):
    return main(["phantom", "--seed", "1", "--n-cells", "12", *map(str, arguments)])


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def plate_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plate")
    (folder / "in.csv").write_text(PLATE)
    assert phantom("--wells", folder / "in.csv", "--out", folder / "out") == 0
    return folder / "out"


def test_a_plate_becomes_a_dataset_folder_that_grade_can_read(plate_folder):
    plate = read_plate(plate_folder / "plate.csv")
    found = find_fields(plate, plate_folder)
    assert {name: len(files) for name, files in found.items()} == {"A01": 1, "A02": 1, "B_1": 2, "B": 1}
    assert [w.dead_fraction for w in plate.wells] == [0, 1, 0.4, 0.6]
    info = read_dataset_info(plate_folder)
    assert (info.scale, info.modality, info.assay, info.simulated) == (
        Scale(0.65, "measured"),
        "phase",
        "adherent",
        True,
    )
    for files in found.values():
        for file in files:
            assert read_gray(file).shape == (480, 640)


def test_manifest_cells_and_masks_tell_the_same_truth(plate_folder):
    rows = table(plate_folder / "manifest.csv")
    assert list(rows[0])[:4] == ["file", "label", "group", "split"]
    assert [row["label"] for row in rows if row["well"] in ("A01", "A02")] == ["non_toxic", "toxic"]
    cells = table(plate_folder / "cells.csv")
    for row in rows:
        mask = cv2.imread(str(plate_folder / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint16
        mine = [cell for cell in cells if cell["file"] == row["file"]]
        assert len(mine) == len(np.unique(mask)) - 1
        assert len(mine) >= int(row["n_live"]) + int(row["n_dead"])
        for cell in mine:
            assert float(cell["xmin"]) < float(cell["col"]) < float(cell["xmax"])
            assert float(cell["ymin"]) < float(cell["row"]) < float(cell["ymax"])
            expected = "live" if cell["cell_class"] == "live" else "dead"
            assert cell["label"] == ("" if float(cell["visible_fraction"]) < 0.5 else expected)


def test_no_well_is_divided_between_splits(plate_folder):
    rows = table(plate_folder / "manifest.csv")
    assert all(row["group"] == row["well"] for row in rows)
    assert len({(row["group"], row["split"]) for row in rows}) == 4
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_splits_are_70_15_15_and_do_not_depend_on_order():
    groups = [f"g{i}" for i in range(100)]
    splits = draw_splits(groups, 3)
    assert Counter(splits.values()) == {"train": 70, "val": 15, "test": 15}
    assert draw_splits(groups[::-1], 3) == splits
    assert draw_splits(groups, 4) != splits
    assert draw_splits(["a", "b"], 3) == {"a": "train", "b": "train"}


def test_loose_fields_are_a_group_each_and_come_again_by_seed(tmp_path, capsys):
    for name in ("one", "two"):
        out = tmp_path / name
        assert phantom("--fields", 3, "--dead-fraction", 0.5, "--out", out, "--modality", "brightfield") == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "3 fields in" in output.err
    one, two = (sorted((tmp_path / name).rglob("*")) for name in ("one", "two"))
    assert [p.relative_to(tmp_path / "one") for p in one] == [p.relative_to(tmp_path / "two") for p in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True) if a.is_file())
    rows = table(tmp_path / "one" / "manifest.csv")
    assert len({row["group"] for row in rows}) == 3
    assert not (tmp_path / "one" / "plate.csv").exists()


def test_a_folder_with_content_is_replaced_by_force_only_if_it_is_ours(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--fields", 2, "--dead-fraction", 0.5, "--out", out)
    assert phantom(*arguments) == 0
    assert phantom(*arguments) == 2
    assert "is not empty; expected a new or empty folder, or --force" in capsys.readouterr().err
    assert phantom("--fields", 1, "--dead-fraction", 0.5, "--out", out, "--force") == 0
    assert len(list((out / "images").iterdir())) == 1
    (out / "thesis.odt").write_text("mine")
    assert phantom(*arguments, "--force") == 2
    assert "holds thesis.odt" in capsys.readouterr().err
    assert (out / "thesis.odt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fields", 2, "--dead-fraction", 1.5), "--dead-fraction is 1.5; expected 0 to 1"),
        (("--fields", 2, "--dead-fraction", "nan"), "--dead-fraction is nan; expected 0 to 1"),
        (("--fields", 2), "--dead-fraction is missing"),
        (("--fields", 0, "--dead-fraction", 0.5), "--fields is 0; expected 1 to 100000"),
        (("--fields", 1, "--dead-fraction", 0.5, "--um-per-px", 0), "um_per_px is 0.0; expected 0.1 to 4"),
        (("--fields", 1, "--dead-fraction", 0.5, "--n-cells", -1), "n_cells is -1; expected 0 or more"),
        (("--fields", 1, "--dead-fraction", 0.5, "--seed", -1), "seed is -1; expected 0 or more"),
        (("--wells", "missing.csv"), "missing.csv is missing; expected a plate.csv"),
        (("--wells", "missing.csv", "--dead-fraction", 0.5), "expected it in the plate's column"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert phantom("--out", tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("nanotox: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_said(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert phantom("--fields", 1, "--dead-fraction", 0.5, "--out", tmp_path / "out") == 2
    assert "is a file; expected a new or empty folder" in capsys.readouterr().err
