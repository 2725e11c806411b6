"""The image relative to its own background, free of shading and of the lamp's brightness."""

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import Pyramid, halve

GAIN = 127.0
"""Gray levels per unit of relative contrast r = I / background - 1."""
MIDDLE = 128
"""Gray level of the background: r = 0."""
BACKGROUND_HALVINGS = 3
"""The background is estimated on every eighth pixel of the working image: one every 5.2 um."""
BACKGROUND_WINDOW_UM = 78.0
"""Width of the median window, um: wider than the cells, narrower than the shading."""
BACKGROUND_BLUR_UM = 15.6
"""Sigma of the Gaussian that smooths the median, um."""


def flatten(pyramid: Pyramid) -> NDArray[np.uint8]:
    """Return the (H, W) relative gray of the working image: clip(round(128 + 127 r), 0, 255).

    r = I / background - 1 is the relative contrast: 128 is background, 1 black, 255 twice the background and
    more. A flat or black image gives 128 everywhere. The median survives cells that cover less than half of
    its window.
    """
    working = pyramid.working
    small = working
    for _ in range(BACKGROUND_HALVINGS):
        small = halve(small)
    background = estimate_background(small, pyramid.um_per_px * 2**BACKGROUND_HALVINGS)
    background = cv2.resize(background, working.shape[::-1])
    # 127 I / background + 1 = 128 + 127 r, in one pass over bytes
    relative = cv2.divide(working, np.maximum(background, 1), scale=GAIN, dtype=cv2.CV_8U)
    relative = cv2.add(relative, np.ones_like(relative)) if working.any() else np.full_like(working, MIDDLE)
    relative.flags.writeable = False
    return np.asarray(relative, np.uint8)


def estimate_background(level: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float32]:
    """Return the (H, W) gray that a coarse level of a pyramid would have without cells, 0 to 255."""
    window = 2 * max(1, round((BACKGROUND_WINDOW_UM / um_per_px - 1) / 2)) + 1
    smooth = cv2.medianBlur(level, window).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(smooth, (0, 0), BACKGROUND_BLUR_UM / um_per_px), np.float32)
