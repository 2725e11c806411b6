"""Import of the LDC set: living and dead cells in a counting chamber (MIT, maxKudi/Cell-Dataset)."""

import csv
from pathlib import Path

from device.errors import ConfigError
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import CELLS, MANIFEST, Entry, ImportOptions, copy_images, read_cells, write_dataset

INFO = DatasetInfo(
    # the scale is not published; 0.65 makes the 28x28 crops fit a cell
    scale=Scale(um_per_px=0.65, source="assumed"),
    modality="brightfield",
    origin="https://github.com/maxKudi/Cell-Dataset (Living and Dead cell, LDC)",
    licence="MIT, Copyright (c) 2021 Okerulu Chukwudi",
    assay="suspension",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the LDC set at `source` as a dataset folder.

    Parameters
    ----------
    source : Path
        Folder with `manifest.csv` (file, split, group, toxic_iso30), `cells.csv` and `images/`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Not looked at: the set states all itself.

    Raises
    ------
    ConfigError
        If a table or column is missing.
    """
    faults: list[str] = []
    cells = read_cells(source, faults)
    if not (source / CELLS).is_file() or not (source / MANIFEST).is_file():
        faults.append(f"{source} has no {MANIFEST} with {CELLS}; expected the folder of the LDC set")
    if faults:
        raise ConfigError(faults)
    with (source / MANIFEST).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    missing = {"file", "split", "group", "toxic_iso30"} - set(rows[0] if rows else ())
    if missing:
        raise ConfigError(
            f"{source / MANIFEST} has no column {', '.join(sorted(missing))}; expected the LDC set"
        )
    entries = [Entry(row["file"], _label(row["toxic_iso30"]), row["group"], row["split"]) for row in rows]
    copy_images({source / entry.file: out / entry.file for entry in entries})
    write_dataset(out, INFO, entries, cells)


def _label(toxic_iso30: str) -> str:
    """Return the label of a tile: viability under 70 % is toxic; unknown under 3 cells."""
    return {"1": "toxic", "1.0": "toxic", "0": "non_toxic", "0.0": "non_toxic"}.get(toxic_iso30.strip(), "")
