"""Sets with masks and without splits: folds by group, truth from outlines."""

import csv
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.errors import ConfigError
from device.images import write_png
from training.cli import main
from training.dataset import read_dataset
from training.dataset.folds import N_FOLDS, draw_folds

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NAMES = ("set04", "set05", "set09", "set23", "set30", "set41", "set42", "set43")


def draw_mask():
    """A spread cell, a small round one and a small flat one."""
    mask = np.zeros((120, 160), np.uint16)
    cv2.ellipse(mask, (60, 30), (45, 12), 0, 0, 360, 1, cv2.FILLED)
    cv2.circle(mask, (40, 80), 12, 2, cv2.FILLED)
    cv2.ellipse(mask, (110, 90), (24, 6), 20, 0, 360, 7, cv2.FILLED)
    return mask


@pytest.fixture
def source(tmp_path):
    """A folder as the shared ones are, with one mask for all images."""
    folder = tmp_path / "source"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "mask", "count", "group"])
        for i, name in enumerate(NAMES):
            noise = np.random.default_rng(i).integers(0, 255, (120, 160)).astype(np.uint8)
            write_png(folder / f"images/{name}.png", noise)
            write_png(folder / f"masks/{name}.png", draw_mask())
            table.writerow([f"images/{name}.png", f"masks/{name}.png", 3, f"g{i // 2}"])
    return folder


def import_set(kind, source, out, *options):
    assert main(["data", "import", kind, str(source), "--out", str(out), *options]) == 0
    return read_dataset(out)


def test_cells_of_a_healthy_culture_live_but_for_small_round_ones_that_nobody_judged(source, tmp_path):
    dataset = import_set("usiigaci", source, tmp_path / "out")
    cells = dataset.cells["images/set04.png"]
    assert [cell.label for cell in cells] == ["live", "", "live"]
    assert (cells[1].row, cells[1].col) == pytest.approx((80, 40), abs=0.01)
    assert cells[1].radius_px == pytest.approx(np.sqrt((draw_mask() == 2).sum() / np.pi), abs=0.01)
    assert (dataset.modality, dataset.info.assay, dataset.info.scale.source) == (
        "phase",
        "adherent",
        "assumed",
    )
    assert (tmp_path / "out/masks/set04.png").is_file()


def test_each_fold_of_usiigaci_tests_other_fields_and_never_divides_a_dish(source, tmp_path):
    tested = set()
    for fold in range(N_FOLDS):
        dataset = import_set("usiigaci", source, tmp_path / f"out{fold}", "--seed", str(fold))
        files = {entry.file for entry in dataset.in_split("test")}
        assert not tested & files
        tested |= files
        for dish in (("set04", "set23", "set30"), ("set05", "set09")):
            assert len({entry.split for entry in dataset.entries if Path(entry.file).stem in dish}) == 1
    assert len(tested) == len(NAMES)


def test_nuclei_have_masks_as_truth_and_no_modality_that_a_station_knows(source, tmp_path, capsys):
    dataset = import_set("dsb2018", source, tmp_path / "out")
    assert {entry.group for entry in dataset.entries} == {"g0", "g1", "g2", "g3"}
    assert [cell.label for cell in dataset.cells["images/set04.png"]] == ["", "", ""]
    assert not (tmp_path / "out/cells.csv").exists()
    with pytest.raises(ConfigError, match="expected phase or brightfield"):
        _ = dataset.modality
    assert main(["fit", str(tmp_path / "out"), "--out", str(tmp_path / "run"), "--assay", "adherent"]) == 2
    assert "only the watershed is measured on it" in capsys.readouterr().err


def test_touching_nuclei_are_a_group_an_image(source, tmp_path):
    assert len({entry.group for entry in import_set("hepg2_huh7", source, tmp_path / "out").entries}) == 8


def test_a_mask_in_color_is_refused(source, tmp_path):
    import_set("dsb2018", source, tmp_path / "out")
    write_png(tmp_path / "out/masks/set04.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"set04\.png is no gray image; expected a mask"):
        read_dataset(tmp_path / "out")


def test_folds_hold_about_as_many_images_each():
    groups = [f"g{i}" for i in range(20) for _ in range(1 + i % 3)]
    sizes = defaultdict(int)
    for group in groups:
        sizes[draw_folds(groups)[group]] += 1
    assert len(sizes) == N_FOLDS
    assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.shared
def test_the_real_fields_hold_as_many_cells_as_their_table_says(tmp_path):
    if not (SHARED / "usiigaci").is_dir():
        pytest.skip("no shared/data/usiigaci beside the checkout")
    dataset = import_set("usiigaci", SHARED / "usiigaci", tmp_path / "out")
    with (SHARED / "usiigaci" / "manifest.csv").open(newline="") as file:
        counts = {row["file"]: (int(row["count"]), int(row["n_small_round"])) for row in csv.DictReader(file)}
    assert {file: len(cells) for file, cells in dataset.cells.items()} == {
        f: n for f, (n, _) in counts.items()
    }
    unlabeled = sum(not cell.label for cells in dataset.cells.values() for cell in cells)
    assert unlabeled == pytest.approx(sum(n for _, n in counts.values()), abs=5)


def write_source(folder, manifest, tables=()):
    """Write a source folder whose files are noise of their own; tables are (name, rows)."""
    for name, rows in (("manifest.csv", manifest), *tables):
        folder.mkdir(exist_ok=True)
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    for i, row in enumerate(manifest[1:]):
        for path in (folder / name for name in row if name.endswith(".png")):
            path.parent.mkdir(exist_ok=True)
            write_png(path, np.random.default_rng(i).integers(0, 255, (60, 80)).astype(np.uint8))
    return folder


BOXES = ["file", "label", "xmin", "ymin", "xmax", "ymax"]


def test_blood_has_boxes_as_truth_and_an_image_a_group(tmp_path):
    names = [f"images/{i}.png" for i in range(5)]
    cells = [BOXES] + [[name, "RBC", 1, 2, 11, 12] for name in names] + [[names[0], "WBC", 20, 20, 40, 40]]
    source = write_source(tmp_path / "s", [["file"], *([name] for name in names)], [("cells.csv", cells)])
    dataset = import_set("cbc_blood", source, tmp_path / "out", "--seed", "1")
    assert [entry.split for entry in dataset.entries] == ["train", "test", "val", "train", "train"]
    assert [cell.label for cell in dataset.cells[names[0]]] == ["RBC", "WBC"]
    assert dataset.info.modality is None


def test_worms_have_labels_of_their_well_and_of_their_stain(tmp_path):
    rows = [
        ["file", "mask", "toxic", "well", "split"],
        ["images/A01.png", "masks/A01.png", "0", "A01", "train"],
        ["images/A13.png", "masks/A13.png", "1", "A13", "test"],
    ]
    worms = [BOXES, *([rows[1][0], label, 1, 2, 11, 12] for label in ("live", "uncertain", "dead"))]
    source = write_source(tmp_path / "s", rows, [("worms.csv", worms)])
    dataset = import_set("bbbc010", source, tmp_path / "out")
    assert [(e.label, e.group, e.split) for e in dataset.entries] == [
        ("non_toxic", "A01", "train"),
        ("toxic", "A13", "test"),
    ]
    assert [cell.label for cell in dataset.cells["images/A01.png"]] == ["live", "", "dead"]
    assert (tmp_path / "out/masks/A13.png").is_file()


def test_monolayers_have_their_replicate_as_group_and_batch(tmp_path):
    rows = [["file", "toxic", "replicate"], ["images/a.png", "1", "N3"], ["images/b.png", "0", "N1"]]
    dataset = import_set("celldeath_u2os", write_source(tmp_path / "s", rows), tmp_path / "out")
    assert [(e.label, e.group, e.split, e.batch) for e in dataset.entries] == [
        ("toxic", "N3", "train", "N3"),
        ("non_toxic", "N1", "train", "N1"),
    ]


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("bbbc010", "mask, toxic, well, split"),
        ("celldeath_u2os", "toxic, replicate"),
        ("dsb2018", "mask, group"),
    ],
)
def test_a_source_without_its_columns_is_told_by_them(kind, columns, tmp_path, capsys):
    source = write_source(tmp_path / "s", [["file"], ["a.png"]])
    assert main(["data", "import", kind, str(source), "--out", str(tmp_path / "out")]) == 2
    assert f"manifest.csv has no column {columns};" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["cbc_blood", "ldc"])
def test_a_source_without_its_table_of_cells_is_told_so(kind, tmp_path, capsys):
    source = write_source(tmp_path / "s", [["file"], ["a.png"]])
    assert main(["data", "import", kind, str(source), "--out", str(tmp_path / "out")]) == 2
    assert "has no cells.csv; expected the whole folder of the set" in capsys.readouterr().err


def test_mirrored_copies_of_test_tiles_leave_train_with_their_group(tmp_path):
    rows = [["file", "split", "group", "toxic_iso30"]]
    splits = ("train", "train", "train", "val", "test", "test")
    rows += [[f"images/{i}.png", split, f"g{max(i, 1)}", ""] for i, split in enumerate(splits)]
    boxes = [BOXES, *([row[0], "live", 1, 2, 11, 12] for row in rows[1:])]
    source = write_source(tmp_path / "s", rows, [("cells.csv", boxes)])
    tile = cv2.imread(str(source / "images/4.png"), cv2.IMREAD_GRAYSCALE)
    write_png(source / "images/1.png", np.ascontiguousarray(tile[:, ::-1]))
    dataset = import_set("ldc", source, tmp_path / "out")
    kept = ["images/2.png", "images/3.png", "images/4.png", "images/5.png"]
    assert [entry.file for entry in dataset.entries] == kept
    assert list(dataset.cells) == kept
