"""The one definition of what a model sees: 28x28 crops of cells, and the whole field at 28x28.

Preprocessing id `relative/1`: gray = clip(round(128 + 127 r), 0, 255), r being the relative contrast at the
working scale. Background is 128, black 1, twice the background 255. Training calls these same functions.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

CROP_PX = 28
"""Side of a crop, px: 18 um at 0.65 um/px."""
PREPROCESSING = "relative/1"
"""Identity of `to_model_gray`; it stands in each model card and changes with any change here."""
GAIN = 127.0
"""Gray levels per unit of relative contrast."""
_HALF = CROP_PX // 2


def cut_crops(
    relative: NDArray[np.float32], centers: NDArray[np.float32] | NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the (K, 28, 28) surroundings of each of (K, 2) centers as the cell model sees them.

    `centers` are rows and columns of the (H, W) relative contrast. Each lies between pixels 13 and 14 of its
    crop; one outside is moved to the border, beyond which the image is reflected.
    """
    centers = np.asarray(centers, np.float64).reshape(-1, 2)
    gray = np.pad(to_model_gray(relative), _HALF, mode="reflect")
    limit = np.array(relative.shape) - 1
    # a crop starting at row s of `relative` has its center at s + 13.5, and `gray` is offset by 14
    start = np.floor(np.clip(centers, 0, limit) - (_HALF - 0.5) + 0.5).astype(np.intp) + _HALF
    windows = np.lib.stride_tricks.sliding_window_view(gray, (CROP_PX, CROP_PX))
    return np.ascontiguousarray(windows[start[:, 0], start[:, 1]])


def shrink_field(relative: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the field as the field model sees it: (1, 28, 28) uint8, area averages, sides squeezed."""
    small = cv2.resize(relative, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
    return to_model_gray(np.asarray(small, np.float32))[None]


def to_model_gray(relative: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return clip(round(128 + 127 r), 0, 255) as uint8, of the shape of `relative`."""
    gray: NDArray[np.uint8] = np.clip(np.rint(GAIN * relative + 128), 0, 255).astype(np.uint8)
    return gray
