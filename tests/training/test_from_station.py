"""The retraining loop by hand: a station's kept frames, bundled, labeled by a person, imported, checked."""

import csv
import shutil

import cv2
import pytest

from device import cli
from device.analysis.phantom import render_plate
from device.plates import read_dataset_info
from device.records import PlateWell
from training.cli import main
from training.dataset import read_dataset
from training.labeling import dataset_fields

WELLS = [
    PlateWell(f"A{i}", "silver", "test", 10.0, "ug/mL", i, dead_fraction=0.4, fields=2) for i in range(1, 5)
]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory, keep_frames):
    """A folder with a bundle of four rendered wells, and the truth of each image by its bytes."""
    folder = tmp_path_factory.mktemp("station")
    truth = {}
    for well, field, phantom in render_plate(WELLS, seed=4, modality="phase", size=(480, 640)):
        name = f"{well.well}_{field}.png"
        cv2.imwrite(str(folder / name), phantom.image)
        truth[phantom.image.tobytes()] = phantom.objects
    keep_frames(folder, [f"{w.well}_{i}.png,{w.well},silver,test" for w in WELLS for i in range(2)])
    options = ["--frames", folder / "frames", "--config", folder / "station.toml", "--out", folder / "bundle"]
    assert cli.main(["dataset", "bundle", str(folder / "journal.db"), *map(str, options)]) == 0
    return folder / "bundle", truth


@pytest.fixture
def bundle(bundled, tmp_path):
    return shutil.copytree(bundled[0], tmp_path / "bundle")


@pytest.fixture
def label(bundle, bundled):
    """A function that writes cells.csv from the truth, without the images that `skip` names."""

    def write(skip=()):
        with (bundle / "cells.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "xmin", "ymin", "xmax", "ymax"])
            for path in sorted((bundle / "images").iterdir()):
                image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                for cell in bundled[1][image.tobytes()] if f"images/{path.name}" not in skip else ():
                    reach = cell.radius_um / 0.65
                    box = (cell.col - reach, cell.row - reach, cell.col + reach, cell.row + reach)
                    table.writerow([f"images/{path.name}", cell.cell_class, *(f"{v:.2f}" for v in box)])
        return bundle

    return write


def import_bundle(bundle, *options):
    return main(["data", "import", "station", str(bundle), "--out", str(bundle.parent / "data"), *options])


def entries(bundle):
    return read_dataset(bundle).entries


def test_a_bundle_is_a_dataset_whose_images_are_unlabeled(bundle, capsys):
    assert main(["data", "check", str(bundle)]) == 0
    assert "unlabeled: 8 images in 4 groups; no labels" in capsys.readouterr().err
    assert not list(dataset_fields(read_dataset(bundle), "all"))


def test_labels_of_a_person_close_the_loop(label, bundle, bundled, capsys):
    assert import_bundle(label()) == 0
    out = capsys.readouterr().err
    assert "0 images without labels, 0 more left out for their wells; 0 of 8 labeled images stand as" in out
    data = bundle.parent / "data"
    assert f"{data} is fine" in out
    dataset = read_dataset(data)
    assert {entry.split for entry in dataset.entries} == {"train", "val", "test"}
    assert dataset.info.label_source == "person"
    assert (data / "bundle.csv").read_bytes() == (bundle / "manifest.csv").read_bytes()
    for field in dataset_fields(dataset, "all"):
        assert len(field.cells) == len(bundled[1][field.image.tobytes()])


def test_proposals_lie_on_the_cells_that_they_stand_for(bundle, bundled):
    assert import_bundle(bundle, "--accept-proposals") == 0
    for field in dataset_fields(read_dataset(bundle.parent / "data"), "all"):
        true = [cell for cell in bundled[1][field.image.tobytes()] if cell.cell_class != "other"]
        near = [
            min(true, key=lambda c, p=cell: (c.row - p.row) ** 2 + (c.col - p.col) ** 2)
            for cell in field.cells
        ]
        on = [abs(c.row - p.row) + abs(c.col - p.col) < 20 for c, p in zip(near, field.cells, strict=True)]
        assert sum(on) >= 0.8 * len(on)


@pytest.mark.parametrize("put", [shutil.copy, shutil.move])
def test_proposals_that_nobody_changed_are_no_labels_unless_accepted(bundle, put, capsys):
    put(bundle / "proposals.csv", bundle / "cells.csv")
    assert import_bundle(bundle) == 2
    assert "cells.csv holds what the station proposed; expected what a person made of" in (
        capsys.readouterr().err
    )
    assert import_bundle(bundle, "--accept-proposals") == 0
    assert read_dataset_info(bundle.parent / "data").label_source == "station"


def test_proposals_saved_again_by_a_spreadsheet_are_still_proposals(bundle, capsys):
    text = (bundle / "proposals.csv").read_text()
    (bundle / "cells.csv").write_text("\ufeff" + text.replace(".0,", ",").replace("\n", "\r\n"))
    assert import_bundle(bundle) == 2
    assert "holds what the station proposed" in capsys.readouterr().err


def test_one_corrected_label_is_a_persons_and_the_rest_is_counted(bundle, capsys):
    header, first, *rest = (bundle / "proposals.csv").read_text().splitlines()
    file, _, *box = first.split(",")
    (bundle / "cells.csv").write_text("\n".join([header, ",".join([file, "", *box]), *rest]))
    (bundle / "proposals.csv").unlink()  # renamed, as some will
    assert import_bundle(bundle) == 0
    assert read_dataset_info(bundle.parent / "data").label_source == "person"
    assert "0 of 8 labeled images stand as" in capsys.readouterr().err  # nothing there to compare with


def test_images_without_labels_train_without_them_or_stay_out(label, bundle, capsys):
    """A well that validates or tests gives none of its other images to training."""
    by_group = {}
    for entry in entries(bundle):
        by_group.setdefault(entry.group, []).append(entry.file)
    *labeled, last = by_group.values()
    assert import_bundle(label({files[0] for files in labeled} | set(last))) == 0
    splits = {}
    for entry in entries(bundle.parent / "data"):
        splits.setdefault(entry.split, []).append(entry.group)
    assert {split: len(groups) for split, groups in splits.items()} == {
        "train": 1, "val": 1, "test": 1, "unlabeled": 3,
    }  # fmt: skip
    assert set(splits["unlabeled"]).isdisjoint(splits["val"] + splits["test"])
    assert "3 images without labels, 2 more left out for their wells" in capsys.readouterr().err


def test_unlabeled_images_of_a_test_well_are_a_divided_group(label, bundle, capsys):
    assert import_bundle(label()) == 0
    manifest = bundle.parent / "data" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    index = next(i for i, line in enumerate(lines) if line.endswith(",test"))
    lines[index] = lines[index].removesuffix("test") + "unlabeled"
    manifest.write_text("\n".join(lines))
    assert main(["data", "check", str(bundle.parent / "data")]) == 1
    assert "is in splits test, train" in capsys.readouterr().err


def test_what_was_altered_is_told_all_at_once(label, bundle, capsys):
    label()
    first, second, *_ = sorted((bundle / "images").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes() + b"0")
    with (bundle / "cells.csv").open("a") as file:
        file.write(f"images/{second.name},ded,1,1,9,9\n")
    assert import_bundle(bundle) == 2
    said = capsys.readouterr().err
    assert f"{first} is missing; expected it with SHA-256" in said
    assert f"{second} is altered; expected it with SHA-256" in said
    assert "has label 'ded'; expected live, dead, rounded, lysed, other or, if nobody can tell, none" in said
    assert not (bundle.parent / "data").exists()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd"])
def test_a_bundle_names_no_files_outside_of_itself(label, bundle, capsys, name):
    label()
    with (bundle / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    assert import_bundle(bundle) == 2
    assert f"names {name}; expected files inside of the bundle only" in capsys.readouterr().err


def test_a_bundle_cut_short_or_unlabeled_is_told(bundle, capsys):
    assert import_bundle(bundle) == 2
    assert "cells.csv is missing; expected what a person made of proposals.csv" in capsys.readouterr().err
    (bundle / "SHA256SUMS").write_text("")
    assert import_bundle(bundle, "--accept-proposals") == 2
    assert "SHA256SUMS does not name images/" in capsys.readouterr().err
    (bundle / "SHA256SUMS").unlink()
    assert import_bundle(bundle) == 2
    assert "expected a whole folder of `nanotox dataset bundle`" in capsys.readouterr().err
