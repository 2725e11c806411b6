"""Import of blood smears with boxes around cells and platelets (MIT): they test counting only."""

from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import CELLS, Entry, ImportOptions
from training.dataset.folds import fold_splits
from training.dataset.public import read_set, write_set

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.07, source="assumed"),  # makes a red cell, about 100 px wide, 7 um
    modality=None,  # stained smears in color: no station sees such images
    origin="https://github.com/MahmudulAlam/Complete-Blood-Cell-Count-Dataset (corrected BCCD)",
    licence="MIT, based on BCCD (Shenggan/BCCD_Dataset, MIT)",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set, whose truth is its boxes; each image is a group, `seed` is the fold that tests."""
    rows, cells = read_set(source, "file", cells=CELLS)
    splits = fold_splits((row["file"] for row in rows), options.seed)
    entries = [Entry(row["file"], "", row["file"], splits[row["file"]]) for row in rows]
    write_set(source, out, INFO, rows, entries, cells)
