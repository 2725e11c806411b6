"""Equations 11 and 12 where they matter only: in components that may hold several cells."""

from math import isqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.paper.watershed import distance_to_background, find_markers, flood

_MANY_PX = 2**21  # smaller masks hold fewer than 65536 components, each being at least a dilated pixel
_ROUND = 1.03
"""Second moment of a component, in those of a disk of its area, beyond which it may hold two cells; drawn
disks have up to 1.02."""
_STRETCH = 0.6
"""Difference of its second moments along both axes, in their sum, beyond which it may hold two, for each
diameter that their centers lie apart; two disks have about 0.75."""


def split_clusters(mask: NDArray[np.bool_], depth_px: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels, from 1, of the (M, N) mask's cells and their (K, 2) mean rows and columns.

    As many regions as `flood` makes of `find_markers` over the whole distance map, in another order: but
    round components stay whole, and the others are laid on a small sheet and flooded there, quickly.
    """
    kind = cv2.CV_16U if mask.size < _MANY_PX else cv2.CV_32S
    n, components = cv2.connectedComponents(mask.view(np.uint8), connectivity=8, ltype=kind)
    labels = components.astype(np.int32)
    if n == 1:
        return labels, np.empty((0, 2), np.float32)
    # pixels in the order of their components: sums over these cost less than statistics by OpenCV
    inside = np.flatnonzero(mask).astype(np.int32)
    owners = components.ravel().take(inside)
    inside = inside.take(np.argsort(owners, kind="stable"))
    sizes = np.bincount(owners)[1:]
    rows = inside // np.int32(mask.shape[1])
    places = np.stack([rows, inside - rows * np.int32(mask.shape[1])])
    starts = np.cumsum(sizes) - sizes
    centers, is_odd = _measure(places, sizes, starts, depth_px)
    if is_odd.any():
        low = np.minimum.reduceat(places, starts, axis=1)
        high = np.maximum.reduceat(places, starts, axis=1) + 1
        shift, sheet = _lay_out(low, high, is_odd)
        owners = np.repeat(np.flatnonzero(is_odd), sizes[is_odd])
        odd = np.flatnonzero(np.repeat(is_odd, sizes))
        places = places.take(odd, axis=1)
        step = sheet.shape[1]
        on_sheet = places[0] * step + places[1] + (shift[0] * step + shift[1]).take(owners)
        sheet.ravel()[on_sheet] = 1
        distance = _measure_distance(sheet, low, high, shift, is_odd, mask.shape)
        parts = flood(distance, find_markers(distance, depth_px), quick=True).ravel().take(on_sheet)
        names, centers = _name_parts(parts, owners, places, centers)
        labels.ravel()[inside.take(odd)] = names.take(parts)
    return labels, centers


def find_clusters(mask: NDArray[np.bool_], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the components of `mask` with several labels: what figure 4 counts as one cell."""
    _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    owner = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    owner[labels] = components
    n_labels = np.bincount(owner[1:], minlength=int(components.max(initial=0)) + 1)
    clusters: NDArray[np.bool_] = (n_labels > 1)[components] & mask
    return clusters


def find_centroids(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the (K, 2) mean row and column of each region, in the order of their labels."""
    inside = np.flatnonzero(labels)
    owners = labels.ravel()[inside]
    rows = inside // labels.shape[1]
    sizes = np.maximum(np.bincount(owners)[1:], 1)
    sums = [np.bincount(owners, place)[1:] for place in (rows, inside - labels.shape[1] * rows)]
    centroids: NDArray[np.float32] = (np.stack(sums, axis=1) / sizes[:, None]).astype(np.float32)
    return centroids


def _measure(
    places: NDArray[np.int32], sizes: NDArray[np.intp], starts: NDArray[np.intp], depth_px: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the (K, 2) mean place of each component and whether it may hold several markers.

    Around each of two peaks of height R lies a disk of that radius, and the pass between them is no deeper
    than where these disks cross: they are 2 sqrt(2 R h - h^2) apart, or they are one. What holds both is not
    as compact as a disk, or longer than wide. Half of the depth h is taken to be safe.
    """
    rows, cols = places.astype(np.float64)
    moments = (rows, cols, rows * rows, cols * cols, rows * cols)
    row, col, row_2, col_2, both = (np.add.reduceat(moment, starts) / sizes for moment in moments)
    down, across = row_2 - row * row, col_2 - col * col
    stretch = np.hypot(down - across, 2 * (both - row * col)) / np.maximum(down + across, 1e-9)
    depth = np.minimum(depth_px / 2 / np.sqrt(sizes / np.pi), 1)
    apart = np.sqrt(2 * depth - depth**2)
    is_odd = (2 * np.pi * (down + across) > _ROUND * sizes) | (stretch > _STRETCH * apart)
    return np.stack([row, col], axis=1).astype(np.float32), is_odd


def _lay_out(
    low: NDArray[np.int32], high: NDArray[np.int32], is_odd: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Return the (2, K) ways in rows and columns from the frame to an empty sheet, and that sheet.

    The odd components lie there in shelves, the highest first, a pixel apart.
    """
    odd = np.flatnonzero(is_odd)
    tall, wide = (high - low)[:, odd]
    n_cols = max(int(wide.max()), isqrt(int(((tall + 1) * (wide + 1)).sum()))) + 2
    shift = np.zeros(low.shape, np.intp)
    row, col, shelf = 1, 1, 0
    for k in odd[np.argsort(-tall, kind="stable")].tolist():
        top, left = low[:, k].tolist()
        bottom, right = high[:, k].tolist()
        if col + right - left >= n_cols:
            row, col, shelf = row + shelf + 1, 1, 0
        shift[:, k] = row - top, col - left
        col, shelf = col + right - left + 1, max(shelf, bottom - top)
    return shift, np.zeros((row + shelf + 1, n_cols), np.uint8)


def _measure_distance(
    sheet: NDArray[np.uint8],
    low: NDArray[np.int32],
    high: NDArray[np.int32],
    shift: NDArray[np.intp],
    is_odd: NDArray[np.bool_],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the distances on the sheet; beyond the frame, they know no background."""
    distance = distance_to_background(sheet.view(bool))
    end = np.array(shape)[:, None]
    cut = is_odd & ((low == 0) | (high == end)).any(axis=0)
    first, last = (low - (low > 0) + shift)[:, cut], (high + (high < end) + shift)[:, cut]
    for (top, left), (bottom, right) in zip(first.T.tolist(), last.T.tolist(), strict=True):
        box = np.s_[top:bottom, left:right]
        distance[box] = distance_to_background(sheet[box].view(bool))
    return distance


def _name_parts(
    parts: NDArray[np.int32],
    owners: NDArray[np.intp],
    places: NDArray[np.int32],
    centers: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the label of each part, 0 for part 0, and the centers with those of the parts.

    The first part of a component keeps its label, the others get new ones. Part 0 is what no flood reached:
    it hangs by a corner on the rest of its component.
    """
    n_pixels = np.bincount(parts)
    owner_of = np.empty(len(n_pixels), np.intp)
    owner_of[parts] = owners
    is_new = np.ones(len(n_pixels) - 1, bool)
    is_new[np.unique(owner_of[1:], return_index=True)[1]] = False
    names = np.zeros(len(n_pixels), np.int32)
    names[1:] = np.where(is_new, len(centers) + np.cumsum(is_new), owner_of[1:] + 1)
    centers = np.concatenate([centers, np.empty((np.count_nonzero(is_new), 2), np.float32)])
    sums = [np.bincount(parts, place)[1:] for place in places]
    centers[names[1:] - 1] = np.stack(sums, axis=1) / n_pixels[1:, None]
    return names, centers
