"""Import of the LDC set: living and dead cells in a counting chamber (MIT, maxKudi/Cell-Dataset)."""

from pathlib import Path

import numpy as np

from device.images import read_gray
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import CELLS, SPLITS, Entry, ImportOptions, copy_images, toxic_label, write_dataset
from training.dataset.public import read_set
from training.dataset.twins import find_twins, make_thumbnail

INFO = DatasetInfo(
    # the scale is not published; 0.65 makes the 28x28 crops fit a cell
    scale=Scale(um_per_px=0.65, source="assumed"),
    modality="brightfield",
    origin="https://github.com/maxKudi/Cell-Dataset (Living and Dead cell, LDC)",
    licence="MIT, Copyright (c) 2021 Okerulu Chukwudi",
    assay="suspension",
)


def import_data(source: Path, out: Path, _options: ImportOptions) -> None:
    """Write the set, which states all itself; a tile is toxic under 70 % viability, unknown under 3 cells.

    Notes
    -----
    The set's groups know tiles that differ in brightness, not the mirrored and turned copies that it holds
    too: 104 pairs of shared tiles across splits. `test` stays as it is, so figures on it compare; the copies
    of its tiles leave `val` and `train`, those of tiles in `val` leave `train`.
    """
    rows, cells = read_set(source, "file", "split", "group", "toxic_iso30", cells=CELLS)
    found = [Entry(r["file"], toxic_label(r["toxic_iso30"]), r["group"], r["split"]) for r in rows]
    entries = _leave_out_twins(source, found)
    copy_images({source / entry.file: out / entry.file for entry in entries})
    write_dataset(out, INFO, entries, {e.file: cells[e.file] for e in entries if e.file in cells})


def _leave_out_twins(source: Path, entries: list[Entry]) -> list[Entry]:
    """Return the tiles without groups of `train` and `val` that show a tile of a more guarded split again."""
    thumbnails = {entry.file: make_thumbnail(read_gray(source / entry.file)) for entry in entries}
    while True:
        splits = [entry.split for entry in entries]
        twins = find_twins(np.array([thumbnails[entry.file] for entry in entries]), splits)
        if not twins.pairs:
            return entries
        left_out = {
            min((entries[i], entries[j]), key=lambda entry: SPLITS.index(entry.split)).group
            for i, j, _ in twins.pairs
        }
        entries = [entry for entry in entries if entry.group not in left_out]
