"""Import of rendered fields: a folder that `nanotox phantom` wrote, with splits drawn by group."""

import csv
import shutil
from pathlib import Path

from device.errors import ConfigError
from device.plates import read_dataset_info
from training.dataset import (
    CELLS,
    MANIFEST,
    Entry,
    ImportOptions,
    copy_images,
    draw_splits,
    read_cells,
    write_dataset,
)

MASKS = "masks"


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write a folder of rendered fields as a dataset folder with splits 70/15/15 by group.

    Parameters
    ----------
    source : Path
        Folder of `nanotox phantom --out`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Its seed draws the splits.

    Raises
    ------
    ConfigError
        With every fault of the folder's tables.
    """
    faults: list[str] = []
    read_cells(source, faults)
    try:
        with (source / MANIFEST).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        faults.append(
            f"{source / MANIFEST} cannot be read ({error.strerror}); expected a folder of `nanotox phantom`"
        )
        rows = []
    if rows and not {"file", "label", "group"} <= set(rows[0]):
        faults.append(
            f"{source / MANIFEST} has columns {','.join(rows[0])}; expected at least file,label,group"
        )
    info = None
    try:
        info = read_dataset_info(source)
    except ConfigError as error:
        faults += error.faults
    if faults or info is None:
        raise ConfigError(faults)
    splits = draw_splits((row["group"] for row in rows), options.seed)
    copy_images({source / row["file"]: out / row["file"] for row in rows})
    if (source / MASKS).is_dir():
        shutil.copytree(source / MASKS, out / MASKS, dirs_exist_ok=True)
    entries = [Entry(row["file"], row["label"], row["group"], splits[row["group"]]) for row in rows]
    write_dataset(out, info, entries)
    if (source / CELLS).is_file():
        shutil.copyfile(source / CELLS, out / CELLS)  # whole: the renderer knows more than boxes
