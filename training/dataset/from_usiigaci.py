"""Import of the Usiigaci set: adherent T98G-like cells of a healthy culture in phase contrast (MIT)."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, ImportOptions, TrueCell, circle_cell
from training.dataset.folds import fold_splits
from training.dataset.masks import mask_circles, read_mask
from training.dataset.public import read_set, write_set

INFO = DatasetInfo(
    # the scale is not published; 0.65 makes the 28x28 crops fit a rounded cell
    scale=Scale(um_per_px=0.65, source="assumed"),
    modality="phase",
    origin="https://github.com/oist/Usiigaci (Tsai et al., SoftwareX 2019)",
    licence="MIT, Copyright (c) 2018 Okinawa Institute of Science and Technology",
    assay="adherent",
)
ROUND_MAX_PX = 900
"""Smaller round objects may be rounded cells: nobody said of them whether they live."""
_SAME_DIRT = (("04", "23", "30", "37", "39", "40"), ("05", "09", "15", "16", "27"))  # one dish each, it seems


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set; `seed` is the fold that tests.

    The culture is healthy: each outlined cell is `live`, but for small round ones, whose label is empty
    because nobody told them apart. A cell's box is that of the circle as large as its mask.
    """
    rows, _ = read_set(source, "file", "mask")
    groups = {row["file"]: _group(row["file"]) for row in rows}
    splits = fold_splits(groups.values(), options.seed)
    cells = {row["file"]: _cells(read_mask(source / row["mask"])) for row in rows}
    entries = [Entry(file, "", group, splits[group]) for file, group in groups.items()]
    write_set(source, out, INFO, rows, entries, cells)


def _group(file: str) -> str:
    number = Path(file).stem.removeprefix("set")
    return next((f"dirt{family[0]}" for family in _SAME_DIRT if number in family), f"set{number}")


def _cells(labels: NDArray[np.uint16]) -> tuple[TrueCell, ...]:
    return tuple(
        circle_cell("" if _may_be_rounded(region) else "live", row, col, radius)
        for row, col, radius, region in mask_circles(labels)
    )


def _may_be_rounded(region: NDArray[np.bool_]) -> bool:
    """Return whether an outline is small, its circularity over .7 and its eccentricity under .75."""
    area = int(region.sum())
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    perimeter = max(cv2.arcLength(outline, closed=True) for outline in outlines)
    if not 3 <= area < ROUND_MAX_PX or 4 * np.pi * area <= 0.7 * perimeter**2:
        return False
    minor, major = np.linalg.eigvalsh(np.cov(np.argwhere(region).T))
    return bool(1 - minor / major < 0.75**2)
