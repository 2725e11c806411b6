"""The image relative to its own background, free of shading and of the lamp's brightness."""

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUND_STEP_UM = 5.2
"""Side of a background pixel, um: 8 px at the working scale."""
BACKGROUND_WINDOW_UM = 78.0
"""Width of the median window, um: wider than the cells, narrower than the shading."""
BACKGROUND_BLUR_UM = 15.6
"""Sigma of the Gaussian that smooths the median, um."""


def flatten(working: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float32]:
    """Return the (H, W) relative contrast r = I / background - 1 of the `working` image.

    0 is background, -1 black, +1 twice as bright as the background. A flat or black image gives zeros. The
    median survives cells that cover less than half of its window.
    """
    background = estimate_background(working, um_per_px)
    np.maximum(background, 1, out=background)
    relative = cv2.divide(working, background, dtype=cv2.CV_32F)
    relative -= 1
    if not working.any():
        relative[:] = 0
    return np.asarray(relative, np.float32)


def estimate_background(working: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float32]:
    """Return the (H, W) gray level that the image would have without cells, 0 to 255."""
    rows, cols = working.shape
    small = estimate_coarse_background(working, um_per_px)
    return np.asarray(cv2.resize(small, (cols, rows), interpolation=cv2.INTER_LINEAR), np.float32)


def estimate_coarse_background(working: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float32]:
    """Return the background with one pixel every 5.2 um, gray levels 0 to 255."""
    rows, cols = working.shape
    step = max(1, round(BACKGROUND_STEP_UM / um_per_px))
    small_size = (max(1, cols // step), max(1, rows // step))
    small = cv2.resize(working, small_size, interpolation=cv2.INTER_AREA)
    window = 2 * max(1, round((BACKGROUND_WINDOW_UM / (step * um_per_px) - 1) / 2)) + 1
    smooth = cv2.medianBlur(small, window).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(smooth, (0, 0), BACKGROUND_BLUR_UM / (step * um_per_px)), np.float32)
