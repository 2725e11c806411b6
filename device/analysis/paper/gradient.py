"""Gradient of the gray levels: equations 1 to 3."""

import cv2
import numpy as np
from numpy.typing import NDArray


def differentiate(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the derivatives down the rows and along the columns, gray levels per pixel (equation 1).

    Sobel's 3x3 differences over 8, so that a ramp of slope 1 gives 1; the border is reflected.

    Notes
    -----
    The paper prints the vertical difference as f(x, y + a) - f(x, y + a), which is 0 everywhere; it must be
    f(x, y + a) - f(x, y - a). The T in its equation is the transpose, not a threshold.
    """
    down = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REFLECT_101)
    right = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(down, np.float32), np.asarray(right, np.float32)


def magnitude(down: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of the gradient, the root of the sum of squares (equation 2, as printed)."""
    return np.asarray(cv2.magnitude(down, right), np.float32)


def orientation(down: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the direction of the gradient, -pi to pi, 0 along the columns (equation 3).

    Notes
    -----
    The paper prints "alpha tan(dx, dy), alpha = arc": the arc tangent of two arguments, which take the order
    (vertical, horizontal). No later step uses it, so the chain does not compute it.
    """
    return np.arctan2(down, right)
