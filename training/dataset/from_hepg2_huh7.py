"""Import of touching nuclei of HepG2 and Huh7 cells: they test the watershed splitter, nothing else."""

from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, ImportOptions
from training.dataset.folds import fold_splits
from training.dataset.public import read_set, write_set

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.65, source="assumed"),  # 20x; the pixel of the camera is not stated
    modality=None,  # fluorescence: no station sees such images
    origin="https://github.com/canfkoyuncu/fluorescence_dataset (Koyuncu et al., Cytometry A 2016)",
    licence="none stated, evaluation only, not to be redistributed",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set, whose truth is its masks; each image is a group, `seed` is the fold that tests."""
    rows, _ = read_set(source, "file", "mask")
    splits = fold_splits((row["file"] for row in rows), options.seed)
    entries = [Entry(row["file"], "", row["file"], splits[row["file"]]) for row in rows]
    write_set(source, out, INFO, rows, entries)
