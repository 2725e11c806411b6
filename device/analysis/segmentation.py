"""Foreground of cells and the watershed regions that accepted centers grow in it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.flatten import GAIN, MIDDLE
from device.records import Assay, Modality

ACTIVITY_SIGMA_UM = 1.3
"""Sigma of the window in which contrast and gradient are averaged, um."""
GRADIENT_WEIGHT_UM2 = 1.69
"""Weight of the squared gradient (per um) beside the squared contrast, um2."""
ACTIVITY_MIN = 0.02
"""Activity below which nothing is foreground, relative contrast."""
NOISE_FACTOR = 1.9
"""Foreground is at least this many times as active as the quietest 5 % of the field."""
FAINT_FACTOR = 2.3
"""Where faint cells are sought, what is this many times as active is foreground, whatever Otsu says: in
brightfield round cells are so much stronger than spread ones that his threshold would lose the latter."""
SHRINK_UM = 2.2
"""The averaging widens cells by about this, um; the mask is eroded by it."""
OPENING_UM = 1.3
"""Radius of the opening, um: grid lines and specks are thinner than cells."""
SEED_UM = 1.6
"""Radius of the disk that a center seeds; it is the region of a center without foreground, um."""
HOLE_MAX_UM2 = 60.0
"""Smaller holes of the foreground are filled, um2."""
_LEVELS_PER_E = 30.0  # steps of the logarithmic activity per factor e: 255 levels reach from 1e-3 to 5
_LOG_LOW = np.log(1e-3)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What the centers of a field grew into."""

    labels: NDArray[np.uint16]
    """(H, W) region k + 1 of center k, then one region for each other thing, 0 = background."""
    um_per_px: float
    """Scale of `labels`."""
    n_other: int
    areas_px: NDArray[np.int64]
    """(K,) pixels of the region of each center, > 0."""
    centroids: NDArray[np.float32]
    """(K, 2) mean row and column of each."""
    anchors: NDArray[np.intp]
    """(K, 2) a pixel of each: that of its center."""


def find_foreground(
    coarse: NDArray[np.uint8], um_per_px: float, *, assay: Assay, modality: Modality
) -> NDArray[np.uint8]:
    """Return the (H, W) mask, 0 or 1, of cells or other things in the relative gray; a flat image has none.

    `coarse` is at half the working scale, `um_per_px`. Spread cells in brightfield are sought although they
    are much fainter than others.

    Notes
    -----
    The square root of the local mean of r^2 + w |grad r|^2 is split by Otsu's threshold on a logarithmic
    scale: spread cells differ from the background by texture rather than by level.
    """
    faint = assay == "adherent" and modality == "brightfield"
    activity = _measure_activity(coarse, um_per_px)
    mask = (activity > _activity_threshold(activity, faint=faint)).astype(np.uint8)
    mask = _fill_holes(mask, HOLE_MAX_UM2 / um_per_px**2)
    # erosion by the widening and the opening's radius, dilation by the latter: an opening that also shrinks
    mask = cv2.erode(mask, disk((SHRINK_UM + OPENING_UM) / um_per_px), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.dilate(mask, disk(OPENING_UM / um_per_px)), np.uint8)


def grow_regions(
    foreground: NDArray[np.uint8],
    centers: NDArray[np.float32],
    others: NDArray[np.float32],
    *,
    um_per_px: float,
    reach_um: float,
) -> Regions:
    """Return one region for each of (K, 2) centers, and the components that hold one of `others` instead.

    Parameters
    ----------
    foreground : (H, W) ndarray of uint8
        0 or 1, at half the working scale; not modified.
    centers : (K, 2) ndarray of float32
        Rows and columns of accepted cells in it, no two in one pixel. Each gets a region, at least the part
        of a small disk that no other center claims, which reaches no farther than `reach_um`.
    others : (L, 2) ndarray of float32
        Of candidates that are no cell: a component of the foreground that holds some and no center is one
        other thing.
    um_per_px, reach_um : float

    Notes
    -----
    Components are labeled once. Those with one center are its region; only those with several are given to
    `cv2.watershed`, all at once. It orders by the color difference of neighbors, not by level: an
    inverted distance map lets the background eat the cells. The two-level picture it is given here makes it
    a geodesic split of touching cells. It also marks the border of the image as a ridge, hence the padding.
    """
    n_cells = len(centers)
    padded = cv2.copyMakeBorder(foreground, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    places = np.rint(centers).astype(np.intp).reshape(-1, 2) + 1
    names = np.arange(1, n_cells + 1, dtype=np.uint16)
    seeds = _draw_disks(padded.shape, places, SEED_UM / um_per_px, names)
    domain = padded | (seeds > 0).view(np.uint8)
    n, components = cv2.connectedComponents(domain, ltype=cv2.CV_16U)
    owner = components[places[:, 0], places[:, 1]]
    held = np.bincount(owner, minlength=n)
    rest = np.rint(others).astype(np.intp).reshape(-1, 2) + 1
    strange = np.zeros(n, bool)
    strange[components[rest[:, 0], rest[:, 1]]] = True
    strange &= held == 0
    strange[0] = False
    n_other = int(strange.sum())
    label_of = np.zeros(n, np.uint16)
    label_of[owner] = names
    label_of[strange] = n_cells + 1 + np.arange(n_other)
    labels = label_of[components]
    if (held > 1).any():
        _split(labels, (held > 1)[components], seeds)
    near = _draw_disks(padded.shape, places, reach_um / um_per_px, np.ones(n_cells, np.uint8))
    labels = cv2.bitwise_and(labels, labels, mask=near | (labels > n_cells).view(np.uint8))
    np.copyto(labels, seeds, where=seeds > 0)
    labels = np.ascontiguousarray(labels[1:-1, 1:-1])
    labels.flags.writeable = False
    areas = np.bincount(labels.ravel(), minlength=n_cells + 1)[1 : n_cells + 1]
    return Regions(labels, um_per_px, n_other, areas, _find_centroids(labels, centers), places - 1)


def _split(
    labels: NDArray[np.uint16], clusters: NDArray[np.bool_], seeds: NDArray[np.unsignedinteger]
) -> None:
    """Write the watershed of the mask `clusters`, grown from the seeds in it, into `labels`."""
    left, top, width, height = cv2.boundingRect(clusters.view(np.uint8))
    box = np.s_[top - 1 : top + height + 1, left - 1 : left + width + 1]  # clusters keep off the padding
    inside, background = clusters[box], 1 + int(seeds.max())
    markers = np.where(inside, seeds[box], background).astype(np.int32)
    cv2.watershed(cv2.cvtColor(inside.astype(np.uint8) * 255, cv2.COLOR_GRAY2BGR), markers)
    markers[markers == background] = 0
    # a ridge runs between regions and along the rim of each: its pixels belong to a neighbor
    beside = cv2.dilate(np.maximum(markers, 0).astype(np.uint16), np.ones((3, 3), np.uint8))
    np.copyto(labels[box], np.where(markers < 0, beside, markers).astype(np.uint16), where=inside)


def _draw_disks(
    shape: tuple[int, ...], places: NDArray[np.intp], radius_px: float, names: NDArray[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """Return disks of the value `names` around the places, each keeping its own pixel."""
    drawn = np.zeros(shape, names.dtype)
    for name, (row, col) in zip(names.tolist(), places.tolist(), strict=True):
        cv2.circle(drawn, (col, row), max(1, round(radius_px)), name, cv2.FILLED)
    drawn[places[:, 0], places[:, 1]] = names
    drawn[[0, -1]] = drawn[:, [0, -1]] = 0  # the padding stays background
    return drawn


def _find_centroids(labels: NDArray[np.uint16], centers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean row and column of the regions of `centers`, from every other row and column."""
    rows, cols = np.nonzero(labels[::2, ::2])
    owner = labels[2 * rows, 2 * cols]
    counted = owner <= len(centers)
    rows, cols, owner = rows[counted], cols[counted], owner[counted]
    size = np.bincount(owner, minlength=len(centers) + 1)[1:]
    sums = [np.bincount(owner, place, len(centers) + 1)[1:] for place in (rows, cols)]
    means = 2 * np.stack(sums, axis=1) / np.maximum(size, 1)[:, None]
    return np.where(size[:, None] > 0, means, centers).astype(np.float32)


def _measure_activity(relative: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float32]:
    contrast = relative.astype(np.float32)
    contrast -= MIDDLE
    contrast /= GAIN
    down = cv2.Sobel(contrast, cv2.CV_32F, 0, 1, scale=1 / 8)
    right = cv2.Sobel(contrast, cv2.CV_32F, 1, 0, scale=1 / 8)
    energy = contrast * contrast + GRADIENT_WEIGHT_UM2 / um_per_px**2 * (down * down + right * right)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(energy, (0, 0), ACTIVITY_SIGMA_UM / um_per_px)
    return np.sqrt(blurred)


def _activity_threshold(activity: NDArray[np.float32], *, faint: bool) -> float:
    level = _LEVELS_PER_E * (np.log(np.maximum(activity, 1e-3)) - _LOG_LOW)
    level = np.minimum(level, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(level, 0, 255, cv2.THRESH_OTSU)
    below = np.cumsum(np.bincount(level.ravel(), minlength=256))
    quiet = _activity_of(int(np.searchsorted(below, 0.05 * below[-1])))
    split = _activity_of(otsu + 1)
    if faint:
        split = min(split, FAINT_FACTOR * quiet)
    return max(split, ACTIVITY_MIN, NOISE_FACTOR * quiet)


def _activity_of(level: float) -> float:
    return float(np.exp(_LOG_LOW + level / _LEVELS_PER_E))


def _fill_holes(mask: NDArray[np.uint8], largest_px: float) -> NDArray[np.uint8]:
    """Return `mask` without holes smaller than a cell; a ring of cells keeps its clearing."""
    n_holes, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4, ltype=cv2.CV_16U)
    corners = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1)
    inside = (corners[:, :2] > 0).all(axis=1) & (corners[:, 2:] < mask.shape[::-1]).all(axis=1)
    small = inside & (stats[:, cv2.CC_STAT_AREA] < largest_px)
    small[0] = False
    return mask | small[holes].astype(np.uint8) if n_holes > 1 else mask


def disk(radius_px: float) -> NDArray[np.uint8]:
    """Return OpenCV's footprint of a disk, at least 3 pixels wide."""
    reach = max(1, round(radius_px))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
