"""Import of rendered fields: a folder that `nanotox phantom` wrote, with splits drawn by group."""

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
    read_rows,
    write_dataset,
)

MASKS = "masks"


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write a folder of `nanotox phantom --out`; `seed` draws the splits, 70/15/15 by group."""
    faults: list[str] = []
    read_cells(source, faults)
    rows = [row for _, row in read_rows(source / MANIFEST, ("file", "label", "group"), faults)]
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
