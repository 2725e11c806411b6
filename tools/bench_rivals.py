"""The paper's recipe as others would write it: what tools/bench measures the station against.

Each takes a gray image and its scale and returns the (K, 2) rows and columns of what it counts. Sizes are
those of `device.analysis.paper`; for its h-maxima stand maxima of the smoothed distance.
"""

import importlib.util
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.paper.chain import DILATION_UM, OPENING_UM

CELL_UM = 13.0
SMALLEST, LARGEST = 0.35, 3.0  # of what is counted, in areas of a cell: debris and clumps drop out
_SMOOTHING, _APART = 0.04, 0.27  # sigma and half window of the search for markers, in diameters

Rival = Callable[[NDArray[np.uint8], float], NDArray[np.float64]]


def count_by_opencv(image: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float64]:
    """Return cells by OpenCV's functions, step by step over the whole image, its watershed at the end."""
    diameter = CELL_UM / um_per_px
    right, down = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    gradient = cv2.normalize(cv2.magnitude(right, down), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    _, mask = cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = cv2.dilate(mask, _ellipse(DILATION_UM / um_per_px))
    outside = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(outside, None, (0, 0), 255)
    mask |= ~outside[1:-1, 1:-1]
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _ellipse(OPENING_UM / um_per_px))
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    smooth = cv2.GaussianBlur(distance, (0, 0), max(0.7, _SMOOTHING * diameter))
    window = 2 * round(_APART * diameter) + 1
    highest = cv2.dilate(smooth, np.ones((window, window), np.uint8))
    peaks = ((smooth == highest) & (smooth > 0.25 * diameter)).astype(np.uint8)
    # 1 is the background, 0 what the watershed decides. The picture it floods is the mask: fed the
    # inverted distance, cv2.watershed lets the background eat the cells
    markers = cv2.connectedComponents(peaks)[1] + 1
    markers[(mask > 0) & (peaks == 0)] = 0
    cv2.watershed(cv2.cvtColor(255 - mask, cv2.COLOR_GRAY2BGR), markers)
    markers[markers < 2] = 0
    rows, cols = np.nonzero(markers)
    owners = markers[rows, cols]
    areas = np.bincount(owners)
    sums = np.stack([np.bincount(owners, weights=places) for places in (rows, cols)], axis=1)
    kept = _is_cell(areas, diameter)
    return sums[kept] / areas[kept, None]


def count_by_skimage(image: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float64]:
    """Return cells by scikit-image and scipy.ndimage, as their gallery and user guide put them together."""
    from scipy import ndimage
    from skimage import feature, filters, measure, morphology, segmentation

    diameter = CELL_UM / um_per_px
    gradient = filters.sobel(image)
    mask = gradient > filters.threshold_otsu(gradient)
    mask = ndimage.binary_dilation(mask, morphology.disk(round(DILATION_UM / um_per_px)))
    mask = ndimage.binary_fill_holes(mask)
    mask = ndimage.binary_opening(mask, morphology.disk(round(OPENING_UM / um_per_px)))
    distance = ndimage.distance_transform_edt(mask)
    smooth = ndimage.gaussian_filter(distance, max(0.7, _SMOOTHING * diameter))
    places = feature.peak_local_max(
        smooth,
        min_distance=round(_APART * diameter),
        threshold_abs=0.25 * diameter,
        labels=measure.label(mask),
        exclude_border=False,
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(places.T)] = np.arange(1, len(places) + 1)
    labels = segmentation.watershed(-smooth, markers, mask=mask)
    table = measure.regionprops_table(labels, properties=("area", "centroid"))
    kept = _is_cell(table["area"], diameter)
    return np.stack([table["centroid-0"], table["centroid-1"]], axis=1)[kept]


def count_by_centrosome(image: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float64]:
    """Return cells by CellProfiler's IdentifyPrimaryObjects: global Otsu, declumping by shape."""
    from centrosome.cpmorphology import binary_shrink, fill_labeled_holes, is_local_maximum, strel_disk
    from centrosome.otsu import otsu
    from scipy import ndimage
    from skimage.segmentation import watershed

    diameter = CELL_UM / um_per_px
    smallest, square = 0.5 * diameter, np.ones((3, 3), bool)
    pixels = image / 255.0
    smooth = ndimage.gaussian_filter(pixels, 1.0)  # its threshold smoothing scale of 1.3488
    labels, _ = ndimage.label(smooth > otsu(pixels), square)
    labels = fill_labeled_holes(labels)
    distance = ndimage.distance_transform_edt(labels > 0)
    distance += np.random.default_rng(0).uniform(0, 0.001, distance.shape)  # it breaks ties so
    # objects over 10 px are searched for maxima at lower resolution
    shrink = min(1.0, 10 / smallest)
    small = [ndimage.zoom(picture, shrink, order=order) for picture, order in ((distance, 1), (labels, 0))]
    maxima = is_local_maximum(*small, strel_disk(max(1, smallest * shrink / 1.5 - 0.5))) & (small[0] > 0)
    places = np.argwhere(binary_shrink(maxima))
    places = np.minimum(np.rint((places + 0.5) / shrink - 0.5).astype(int), np.array(labels.shape) - 1)
    markers = np.zeros(labels.shape, np.int32)
    markers[tuple(places.T)] = np.arange(1, len(places) + 1)
    split = watershed(-distance, markers, mask=labels > 0, connectivity=square)
    split = fill_labeled_holes(split)
    cells = np.flatnonzero(_is_cell(np.bincount(split.ravel())[1:], diameter)) + 1
    return np.array(ndimage.center_of_mass(split > 0, split, cells)).reshape(-1, 2)


RIVALS: dict[str, tuple[Rival, str]] = {
    "OpenCV": (count_by_opencv, "cv2"),
    "scikit-image + scipy.ndimage": (count_by_skimage, "skimage"),
    "CellProfiler's steps on centrosome": (count_by_centrosome, "centrosome"),
}
"""Each rival with the module it needs."""


def missing_rivals() -> dict[str, str]:
    """Return the rivals that are not installed, with the module that each lacks."""
    return {name: module for name, (_, module) in RIVALS.items() if importlib.util.find_spec(module) is None}


def _ellipse(radius_px: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius_px)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _is_cell(areas: NDArray[np.generic], diameter: float) -> NDArray[np.bool_]:
    whole = np.pi * diameter**2 / 4
    return (areas > SMALLEST * whole) & (areas < LARGEST * whole)
