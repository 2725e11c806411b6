"""The chain of section 4.1 of the paper, from gray image to counted regions, with equations 1 to 3."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.paper.clusters import find_centroids, find_clusters, split_clusters
from device.analysis.paper.morphology import dilate, disk, fill_holes, opening
from device.analysis.paper.otsu import otsu_threshold
from device.analysis.paper.watershed import distance_to_background, find_markers, flood

# what the paper leaves unstated
DILATION_UM = 0.65
"""Radius r_d of the disk that closes outlines, um."""
OPENING_UM = 2.0
"""Radius of the disk that removes noise, um."""
DEPTH_UM = 0.5
"""The h of the h-maxima that become markers, um."""


def segment_as_the_paper(
    image: NDArray[np.uint8],
    um_per_px: float,
    *,
    exact: bool = False,
    observe: Callable[[str, NDArray[np.generic] | None], None] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the regions that the paper's chain counts.

    Parameters
    ----------
    image : (M, N) ndarray of uint8
        Gray image at working scale; not modified.
    um_per_px : float
        Its scale, um/px.
    exact : bool
        Find distances, markers and watershed over the whole image instead of only in components that may
        hold several cells: the slow reference.
    observe : callable, optional
        Called with `gradient`, `filled` (figure 2), `opened` (3), `clusters` (4), `segmented` (5), `cells`
        (6) and the picture of each; those of the clusters and the cells are made for it alone.

    Returns
    -------
    labels : (M, N) ndarray of int32
        Regions from 1, 0 = background. A flat image gives none.
    centers : (K, 2) ndarray of float32
        Centroid rows and columns of region k + 1.

    Notes
    -----
    The paper's order puts Otsu's threshold after a binary chain, where it means nothing. Here it splits the
    gradient magnitude first; dilation, hole filling, opening, distance transform and watershed follow.
    """
    watch = observe or (lambda _stage, _picture: None)
    slopes = magnitude(*differentiate(image))
    steepest = float(slopes.max(initial=0))
    gradient = np.asarray(cv2.convertScaleAbs(slopes, alpha=255 / steepest if steepest > 0 else 0), np.uint8)
    watch("gradient", gradient)
    _, edges = cv2.threshold(gradient, otsu_threshold(gradient), 1, cv2.THRESH_BINARY)
    filled = fill_holes(dilate(edges, disk(DILATION_UM / um_per_px)).view(bool))
    watch("filled", filled)
    opened = opening(filled.view(np.uint8), disk(OPENING_UM / um_per_px)).view(bool)
    watch("opened", opened)
    depth_px = DEPTH_UM / um_per_px
    if exact:
        distance = distance_to_background(opened)
        labels = flood(distance, find_markers(distance, depth_px))
        centers = find_centroids(labels)
    else:
        labels, centers = split_clusters(opened, depth_px)
    if observe is not None:
        observe("clusters", find_clusters(opened, labels))
        observe("segmented", labels)
        observe("cells", np.where(labels > 0, image, 0).astype(np.uint8))
    return labels, centers


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
