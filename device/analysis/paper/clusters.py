"""Equations 11 and 12 where they matter only: in components that may hold several cells."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.paper.watershed import distance_to_background, find_markers, flood

_SQUARE = np.ones((3, 3), np.uint8)
_STEPS_PER_PX = 8
_MANY_PX = 2**21  # smaller masks hold fewer than 65536 components, each being at least a dilated pixel


class _Tile(NamedTuple):
    """A component's box in the frame, ringed by background, and its place on the sheet."""

    owner: int
    frame: tuple[slice, slice]
    pads: tuple[int, int, int, int]
    """Rows and columns added at top, bottom, left and right, where the frame ends."""
    row: int
    col: int

    @property
    def place(self) -> tuple[slice, slice]:
        """The box without its pads on the sheet."""
        rows, cols = self.frame
        row, col = self.row + self.pads[0], self.col + self.pads[2]
        return np.s_[row : row + rows.stop - rows.start, col : col + cols.stop - cols.start]


def split_clusters(mask: NDArray[np.bool_], depth_px: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels, from 1, of the (M, N) mask's cells and their (K, 2) mean rows and columns.

    Exactly the regions, in another order, that `flood` makes of `find_markers` over the whole distance map:
    but components that can hold one marker only stay whole, and the others are laid on a small sheet.
    """
    kind = cv2.CV_16U if mask.size < _MANY_PX else cv2.CV_32S
    _, components, stats, means = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8, ltype=kind
    )
    labels, centers = components.astype(np.int32), means[1:, ::-1].astype(np.float32)
    owners, reaches = _find_candidates(mask, components, depth_px)
    if len(owners) == 0:
        return labels, centers
    tiles, shape = _lay_out(owners, reaches, stats, mask.shape)
    solid, sheet = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
    for number, tile in enumerate(tiles, start=1):
        own = (components[tile.frame] == tile.owner).view(np.uint8)
        np.multiply(own, np.uint16(number), out=sheet[tile.place])
        # the distance knows nothing beyond the frame, so what is cut by its border goes on there
        padded = cv2.copyMakeBorder(own, *tile.pads, cv2.BORDER_REPLICATE) if any(tile.pads) else own
        solid[tile.row : tile.row + padded.shape[0], tile.col : tile.col + padded.shape[1]] = padded
    distance = distance_to_background(solid.view(bool)) * (sheet > 0)
    markers = find_markers(distance, depth_px)
    parts = flood(distance, markers)
    marked = np.flatnonzero(markers)
    of_part = np.zeros(int(markers.max()), np.intp)
    of_part[markers.ravel()[marked] - 1] = sheet.ravel()[marked] - 1
    # the first part of a component keeps its label, the others get new ones
    _, first = np.unique(of_part, return_index=True)
    is_new = np.ones(len(of_part), np.int32)
    is_new[first] = 0
    names = np.append(np.int32(0), len(centers) + np.cumsum(is_new, dtype=np.int32))
    names[first + 1] = [tile.owner for tile in tiles]
    shifts = np.array([[a.start - b.start for a, b in zip(t.frame, t.place, strict=True)] for t in tiles])
    centers = np.concatenate([centers, np.empty((is_new.sum(), 2), np.float32)])
    centers[names[1:] - 1] = find_centroids(parts) + shifts[of_part]
    named, own = names[parts], (sheet > 0).view(np.uint8)
    for tile in tiles:
        cv2.copyTo(named[tile.place], own[tile.place], labels[tile.frame])
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
    owners, (n_rows, n_cols) = labels.ravel(), labels.shape
    sizes = np.maximum(np.bincount(owners)[1:], 1)
    places = np.repeat(np.arange(float(n_rows)), n_cols), np.tile(np.arange(float(n_cols)), n_rows)
    sums = [np.bincount(owners, place)[1:] for place in places]
    centroids: NDArray[np.float32] = (np.stack(sums, axis=1) / sizes[:, None]).astype(np.float32)
    return centroids


def _find_candidates(
    mask: NDArray[np.bool_], components: NDArray[np.integer], depth_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the components that may hold several markers, and how far their distances reach, px.

    Around each of two peaks of height R lies a disk of that radius, and the pass between them is no deeper
    than where these disks cross: peaks closer than 2 sqrt(2 R h - h^2) are one. Half of the depth h is taken
    because the chamfer distance, a sixth of the cost of the exact one, is off by up to 2 %.
    """
    chamfer = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    # 8 bit are quicker; peaks of 32 px and more become plateaus, whose spread makes them candidates
    levels = cv2.convertScaleAbs(chamfer, alpha=_STEPS_PER_PX)
    highest = (levels >= cv2.dilate(levels, _SQUARE)) & mask
    # np.nonzero of a whole frame takes ten times as long
    rows, cols = np.divmod(np.flatnonzero(highest), mask.shape[1])
    owners = components[rows, cols]
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=0))
    peaks = np.stack([rows, cols, chamfer[rows, cols]], axis=1)[order]
    low, high = np.minimum.reduceat(peaks, starts), np.maximum.reduceat(peaks, starts)
    spread = np.hypot(*(high - low)[:, :2].T)
    half = depth_px / 2
    least = low[:, 2] - 1 / _STEPS_PER_PX
    found = np.flatnonzero(spread >= 2 * np.sqrt(np.maximum(2 * least * half - half**2, 0)))
    return found + 1, np.minimum(1.03 * high[found, 2] + 2, sum(mask.shape)).astype(np.intp)


def _lay_out(
    owners: NDArray[np.intp], reaches: NDArray[np.intp], stats: NDArray[np.int32], shape: tuple[int, int]
) -> tuple[list[_Tile], tuple[int, int]]:
    """Return tiles in shelves, the highest first, and the shape of the sheet that holds them."""
    n_rows, n_cols = shape
    tiles, row, col, shelf, width = [], 0, 0, 0, 0
    for k in np.argsort(-stats[owners, cv2.CC_STAT_HEIGHT], kind="stable").tolist():
        left, top, n_across, n_down = stats[owners[k], :4].tolist()
        rows = slice(max(top - 1, 0), min(top + n_down + 1, n_rows))
        cols = slice(max(left - 1, 0), min(left + n_across + 1, n_cols))
        cut = top == 0, top + n_down == n_rows, left == 0, left + n_across == n_cols
        above, below, before, behind = (int(reaches[k]) * is_cut for is_cut in cut)
        # at an even distance from its place in the frame: labels are numbered by blocks of 2x2 pixels, and
        # their order decides where two floods meet
        above, before = above + (above + rows.start) % 2, before + (before + cols.start) % 2
        down, across = rows.stop - rows.start + above + below, cols.stop - cols.start + before + behind
        down, across = down + down % 2, across + across % 2
        if col and col + across > n_cols:
            row, col, shelf = row + shelf, 0, 0
        tiles.append(_Tile(int(owners[k]), (rows, cols), (above, below, before, behind), row, col))
        col, shelf = col + across, max(shelf, down)
        width = max(width, col)
    return tiles, (row + shelf, width)
