"""Otsu's threshold: equations 8 to 10."""

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import check_gray

_LEVELS = np.arange(256.0)


def gray_probabilities(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (256,) share P(i) of pixels at each gray level of a gray image, else raise ValueError."""
    check_gray(image)
    counts = cv2.calcHist([image], [0], None, [256], [0, 256])  # (256, 1) in OpenCV 4, (256,) in 5
    shares: NDArray[np.float64] = counts.ravel().astype(np.float64) / image.size
    return shares


def class_probabilities(shares: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return p1(t) and p2(t), the shares of both classes for each threshold t (equation 9).

    Notes
    -----
    The paper sums p2 from 0, which is 1 for every t; it must start at t + 1, so that p1 + p2 = 1.
    """
    first = np.cumsum(shares)
    return first, 1 - first


def within_class_variance(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p1 s1^2 + p2 s2^2 for each threshold t (equation 8, printed with p for p1)."""
    first, second = class_probabilities(shares)
    total_1, total_2 = np.cumsum(shares * _LEVELS), (shares * _LEVELS).sum()
    square_1, square_2 = np.cumsum(shares * _LEVELS**2), (shares * _LEVELS**2).sum()
    return _spread(square_1, total_1, first) + _spread(square_2 - square_1, total_2 - total_1, second)


def between_class_variance(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p1 p2 (m1 - m2)^2 for each threshold t (equation 10).

    Notes
    -----
    Equation 10 prints sigma_2 for the square of sigma. That total does not depend on t, so the largest
    variance between the classes is the smallest within them.
    """
    first, second = class_probabilities(shares)
    total_1, total = np.cumsum(shares * _LEVELS), (shares * _LEVELS).sum()
    product = first * second
    apart = np.square(total * first - total_1)
    variance: NDArray[np.float64] = np.divide(apart, product, out=np.zeros(256), where=product > 1e-15)
    return variance


def otsu_threshold(image: NDArray[np.uint8]) -> int:
    """Return the gray level that splits the (M, N) uint8 `image` into two classes (equations 8 to 10).

    Pixels strictly above are foreground. A flat image gives its level, several best levels their mean;
    ValueError if it is no gray image. Maximizes the between-class variance.
    """
    variance = between_class_variance(gray_probabilities(image))
    best = variance.max()
    if best <= 0:
        return int(image.flat[0])
    return int(np.flatnonzero(variance >= best * (1 - 1e-12)).mean())


def _spread(
    squares: NDArray[np.float64], sums: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return share times variance: sum of squares minus the squared sum over the share."""
    mean: NDArray[np.float64] = np.divide(np.square(sums), share, out=np.zeros(256), where=share > 1e-15)
    return squares - mean
