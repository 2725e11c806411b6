"""The one definition of what a model sees: 28x28 crops of cells, and the whole field at 28x28.

Preprocessing id `relative/2`: the relative gray of `flatten` at the working scale, where background is 128,
black 1 and twice the background 255; 0 is beyond the border of the image. Training calls these functions.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

CROP_PX = 28
"""Side of a crop, px: 18 um at 0.65 um/px."""
PREPROCESSING = "relative/2"
"""Identity of what `cut_crops` gives; it stands in each model card and changes with any change here."""
OUTSIDE = 0
"""Gray beyond the border. A model that sees the border can learn what its labels make of cut cells; with the
image reflected there, F1 of dead cells in chambers was 7 points lower (cross-validation, ldc train)."""
_HALF = CROP_PX // 2


def cut_crops(
    relative: NDArray[np.uint8], centers: NDArray[np.float32] | NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the (K, 28, 28) surroundings of each of (K, 2) centers as the cell model sees them.

    `centers` are rows and columns of the (H, W) relative gray. Each lies between pixels 13 and 14 of its
    crop; one outside is moved to the border.
    """
    centers = np.asarray(centers, np.float64).reshape(-1, 2)
    gray = cv2.copyMakeBorder(relative, _HALF, _HALF, _HALF, _HALF, cv2.BORDER_CONSTANT, value=OUTSIDE)
    limit = np.array(relative.shape) - 1
    # a crop starting at row s of `relative` has its center at s + 13.5, and `gray` is offset by 14
    start = np.floor(np.clip(centers, 0, limit) - (_HALF - 0.5) + 0.5).astype(np.intp) + _HALF
    windows = np.lib.stride_tricks.sliding_window_view(gray, (CROP_PX, CROP_PX))
    return np.ascontiguousarray(windows[start[:, 0], start[:, 1]])


def shrink_field(relative: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the field as the field model sees it: (1, 28, 28) uint8, area averages, sides squeezed."""
    small = cv2.resize(relative, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)[None]
