"""Foreground of cells and the watershed regions that accepted centers grow in it."""

import cv2
import numpy as np
from numpy.typing import NDArray

ACTIVITY_SIGMA_UM = 1.3
"""Sigma of the window in which contrast and gradient are averaged, um."""
GRADIENT_WEIGHT = 4.0
"""Weight of the squared gradient (per px at working scale) beside the squared contrast."""
ACTIVITY_MIN = 0.02
"""Activity below which nothing is foreground, relative contrast."""
NOISE_FACTOR = 1.6
"""Foreground is at least this many times as active as the quietest 5 % of the field."""
FAINT_FACTOR = 1.9
"""Where faint cells are sought, what is this many times as active is foreground, whatever Otsu says: in
brightfield round cells are so much stronger than spread ones that his threshold would lose the latter."""
SHRINK_UM = 1.6
"""The averaging widens cells by about this, um; the mask is eroded by it."""
OPENING_UM = 1.3
"""Radius of the opening, um: grid lines and specks are thinner than cells."""
SEED_UM = 1.6
"""Radius of the disk that a center seeds; it is the region of a center without foreground, um."""
HOLE_MAX_UM2 = 60.0
"""Smaller holes of the foreground are filled, um2."""
_LOG_LOW, _LOG_HIGH = np.log(1e-3), np.log(4.0)


def find_foreground(relative: NDArray[np.float32], um_per_px: float, *, faint: bool) -> NDArray[np.bool_]:
    """Return the (H, W) mask of cells or other things in the relative contrast; a flat image has none.

    `faint` seeks cells that are much fainter than others as well: spread cells in brightfield.

    Notes
    -----
    The square root of the local mean of r^2 + 4 |grad r|^2 is split by Otsu's threshold on a logarithmic
    scale: spread cells differ from the background by texture rather than by level.
    """
    activity = _measure_activity(relative, um_per_px)
    mask = (activity > _activity_threshold(activity, faint=faint)).astype(np.uint8)
    mask = _fill_holes(mask, HOLE_MAX_UM2 / um_per_px**2)
    # erosion by the widening and the opening's radius, dilation by the latter: an opening that also shrinks
    mask = cv2.erode(mask, _disk((SHRINK_UM + OPENING_UM) / um_per_px), borderType=cv2.BORDER_REPLICATE)
    mask = cv2.dilate(mask, _disk(OPENING_UM / um_per_px))
    foreground: NDArray[np.bool_] = mask.astype(bool)
    return foreground


def regions(
    mask: NDArray[np.bool_], centers: NDArray[np.float32], *, um_per_px: float, reach_um: float
) -> NDArray[np.int32]:
    """Return one (H, W) region for each of (K, 2) centers: label k + 1 belongs to `centers[k]`.

    Each center has one, at least the part of a small disk that no other center claims, and none reaches
    farther than `reach_um`. No two centers may stand in the same pixel of the foreground `mask`.

    Notes
    -----
    `cv2.watershed` orders by the color difference of neighbors, not by level: an inverted distance map lets
    the background eat the cells. The two-level mask it is given here makes it a geodesic split of touching
    cells. It also marks the border of the image as a ridge, hence the padding.
    """
    rows, cols = mask.shape
    if len(centers) == 0:
        return np.zeros((rows, cols), np.int32)
    seeds = _draw_seeds((rows, cols), centers, SEED_UM / um_per_px)
    away = cv2.distanceTransform((seeds == 0).astype(np.uint8), cv2.DIST_L2, 3)
    domain = (mask & (away <= (reach_um - SEED_UM) / um_per_px)) | (seeds > 0)
    seeds, domain = np.pad(seeds, 1), np.pad(domain, 1)
    background = len(centers) + 1
    markers = np.where(domain, seeds, background).astype(np.int32)
    picture = cv2.cvtColor(domain.astype(np.uint8) * 255, cv2.COLOR_GRAY2BGR)
    cv2.watershed(picture, markers)
    ridges = (markers < 0) & domain
    markers[(markers < 0) | (markers == background)] = 0
    # ridges run along the rim of each region too; a pixel of the foreground there belongs to its neighbor
    beside = cv2.dilate(markers.astype(np.uint16), np.ones((3, 3), np.uint8))
    grown = np.where(seeds > 0, seeds, np.where(ridges, beside, markers))
    return np.ascontiguousarray(grown[1:-1, 1:-1], np.int32)


def other_regions(
    mask: NDArray[np.bool_], labels: NDArray[np.int32], others: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Return the components of `mask` that hold some of the centers `others` and nothing of `labels`, from 1.

    `mask` and `labels` are (H, W), `others` is (L, 2) rows and columns in them.
    """
    _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    wanted = np.zeros(int(components.max(initial=0)) + 1, bool)
    places = np.rint(others).astype(np.intp).reshape(-1, 2)
    wanted[components[places[:, 0], places[:, 1]]] = True
    wanted[components[labels > 0]] = False
    wanted[0] = False
    names = np.cumsum(wanted, dtype=np.int32) * wanted
    return np.ascontiguousarray(names[components], np.int32)


def _measure_activity(relative: NDArray[np.float32], um_per_px: float) -> NDArray[np.float32]:
    down = cv2.Sobel(relative, cv2.CV_32F, 0, 1, scale=1 / 8)
    right = cv2.Sobel(relative, cv2.CV_32F, 1, 0, scale=1 / 8)
    energy = relative * relative + GRADIENT_WEIGHT * (down * down + right * right)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(energy, (0, 0), ACTIVITY_SIGMA_UM / um_per_px)
    return np.sqrt(blurred)


def _activity_threshold(activity: NDArray[np.float32], *, faint: bool) -> float:
    activity = activity[::2, ::2]  # it is blurred: every other pixel tells the same
    level = (np.log(np.maximum(activity, 1e-3)) - _LOG_LOW) / (_LOG_HIGH - _LOG_LOW)
    otsu, _ = cv2.threshold(np.clip(255 * level, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    split = np.exp(_LOG_LOW + otsu / 255 * (_LOG_HIGH - _LOG_LOW))
    quiet = float(np.percentile(activity, 5))
    if faint:
        split = min(split, FAINT_FACTOR * quiet)
    return float(max(split, ACTIVITY_MIN, NOISE_FACTOR * quiet))


def _fill_holes(mask: NDArray[np.uint8], largest_px: float) -> NDArray[np.uint8]:
    """Return `mask` without holes smaller than a cell; a ring of cells keeps its clearing."""
    n_holes, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < largest_px
    small[0] = False
    return mask | small[holes].astype(np.uint8) if n_holes > 1 else mask


def _draw_seeds(shape: tuple[int, int], centers: NDArray[np.float32], radius_px: float) -> NDArray[np.int32]:
    """Return disks of label k + 1 around the centers; each keeps its center pixel whatever overlaps."""
    drawn = np.zeros(shape, np.int32)
    places = np.rint(centers).astype(np.intp)
    for label, (row, col) in enumerate(places.tolist(), start=1):
        cv2.circle(drawn, (col, row), max(1, round(radius_px)), label, cv2.FILLED)
    drawn[places[:, 0], places[:, 1]] = np.arange(1, len(centers) + 1)
    return drawn


def _disk(radius_px: float) -> NDArray[np.uint8]:
    reach = max(1, round(radius_px))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
