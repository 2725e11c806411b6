"""Import of touching nuclei of HepG2 and Huh7 cells: they test the watershed splitter, nothing else."""

from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import ImportOptions
from training.dataset.folds import import_masked

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.65, source="assumed"),  # 20x; the pixel of the camera is not stated
    modality=None,  # fluorescence: no station sees such images
    origin="https://github.com/canfkoyuncu/fluorescence_dataset (Koyuncu et al., Cytometry A 2016)",
    licence="none stated, evaluation only, not to be redistributed",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set at `source` as a dataset folder whose truth is its masks.

    Parameters
    ----------
    source : Path
        Folder with `manifest.csv` (file, mask), `images/` and `masks/`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Its seed is the fold (of 5, each image a group) that is `test`; the next one is `val`.

    Raises
    ------
    ConfigError
        If a table, a column or a file is missing.
    """
    import_masked(source, out, options, INFO, group_of=lambda row: row["file"])
