"""Label masks: the mask of `images/NAME` is `masks/NAME`, 0 is background, each cell has its number."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from device.errors import ConfigError


def mask_path(folder: Path, file: str) -> Path:
    """Return where the mask of an image of a dataset folder stands, if it has one."""
    return folder / "masks" / Path(file).name


def read_mask(path: Path) -> NDArray[np.uint16]:
    """Return the (M, N) labels of a mask.

    Raises
    ------
    ConfigError
        If it is no gray image of 8 or 16 bit.
    """
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ConfigError(f"{path} is no gray image; expected a mask of 8 or 16 bit, a number for each cell")
    return np.asarray(labels, np.uint16)


def mask_circles(labels: NDArray[np.uint16]) -> Iterator[tuple[float, float, float, NDArray[np.bool_]]]:
    """Yield row and column of the centroid, px, radius of the equal-area circle, px, and region of each cell.

    Cells of the (M, N) labels come in the order of their numbers; the bool region is cut to its bounds.
    """
    for number, place in enumerate(find_objects(labels), start=1):
        if place is not None:
            region = labels[place] == number
            rows, cols = np.nonzero(region)
            row, col = rows.mean() + place[0].start, cols.mean() + place[1].start
            yield float(row), float(col), float(np.sqrt(len(rows) / np.pi)), region
