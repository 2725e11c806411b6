"""Import of blood smears with boxes around cells and platelets (MIT): they test counting only."""

from pathlib import Path

from device.errors import ConfigError
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import MANIFEST, Entry, ImportOptions, copy_images, read_cells, read_rows, write_dataset
from training.dataset.folds import draw_folds, fold_split

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.07, source="assumed"),  # makes a red cell, about 100 px wide, 7 um
    modality=None,  # stained smears in color: no station sees such images
    origin="https://github.com/MahmudulAlam/Complete-Blood-Cell-Count-Dataset (corrected BCCD)",
    licence="MIT, based on BCCD (Shenggan/BCCD_Dataset, MIT)",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set at `source` as a dataset folder whose truth is its boxes.

    Parameters
    ----------
    source : Path
        Folder with `manifest.csv` (file), `cells.csv` and `images/`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Its seed is the fold (of 5, each image a group) that is `test`; the next one is `val`.

    Raises
    ------
    ConfigError
        If a table, a column or a file is missing.
    """
    faults: list[str] = []
    files = [row["file"] for _, row in read_rows(source / MANIFEST, ("file",), faults)]
    cells = read_cells(source, faults)
    if faults:
        raise ConfigError(faults)
    copy_images({source / file: out / file for file in files})
    folds = draw_folds(files)
    write_dataset(
        out, INFO, [Entry(file, "", file, fold_split(folds[file], options.seed)) for file in files], cells
    )
