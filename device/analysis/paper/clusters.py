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
    """A component's box in the frame, ringed by background, and the place of that box on the sheet."""

    owner: int
    frame: tuple[slice, slice]
    place: tuple[slice, slice]
    pads: tuple[int, int, int, int]
    """Rows and columns that go on at top, bottom, left and right, where the frame ends."""
    shift: tuple[int, int]
    """Rows and columns from the sheet to the frame."""


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
    sheet = np.zeros(shape, np.uint16)
    for number, tile in enumerate(tiles, start=1):
        np.multiply(components[tile.frame] == tile.owner, np.uint16(number), out=sheet[tile.place])
    own = (sheet > 0).view(np.uint8)
    solid = own.copy()
    for tile in tiles:
        if max(tile.pads) > 1:
            _go_on_beyond_the_frame(solid, own[tile.place], tile)
    distance = distance_to_background(solid.view(bool)) * own
    markers = find_markers(distance, depth_px)
    tile_of, rank = _number_in_tiles(markers, sheet)
    # the first part of a component keeps its label, the others get new ones
    is_new = rank > 1
    owner_of = np.array([0, *(tile.owner for tile in tiles)])
    names = np.where(is_new, len(centers) + np.cumsum(is_new), owner_of[tile_of])
    table = np.zeros((len(owner_of), rank.max() + 1), np.int32)
    table[tile_of, rank] = names
    named = table[sheet, flood(distance, markers)]
    shifts = np.array([tile.shift for tile in tiles])[tile_of - 1]
    centers = np.concatenate([centers, np.empty((np.count_nonzero(is_new), 2), np.float32)])
    centers[names - 1] = find_centroids(named)[names - 1] + shifts
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
    inside = np.flatnonzero(labels)
    owners = labels.ravel()[inside]
    rows = inside // labels.shape[1]
    sizes = np.maximum(np.bincount(owners)[1:], 1)
    sums = [np.bincount(owners, place)[1:] for place in (rows, inside - labels.shape[1] * rows)]
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
    order = np.argsort(-stats[owners, cv2.CC_STAT_HEIGHT], kind="stable")
    boxes = np.column_stack([owners, reaches, stats[owners, :4]])[order].tolist()
    tiles, row, col, shelf, width = [], 0, 0, 0, 0
    for owner, reach, left, top, n_across, n_down in boxes:
        first_row, end_row = max(top - 1, 0), min(top + n_down + 1, n_rows)
        first_col, end_col = max(left - 1, 0), min(left + n_across + 1, n_cols)
        above, below = reach * (top == 0), reach * (top + n_down == n_rows)
        before, behind = reach * (left == 0), reach * (left + n_across == n_cols)
        # at an even distance from its place in the frame: labels are numbered by blocks of 2x2 pixels, and
        # their order decides where two floods meet
        above += (above + first_row) % 2
        before += (before + first_col) % 2
        n_down, n_across = end_row - first_row, end_col - first_col
        down, across = above + n_down + below, before + n_across + behind
        down, across = down + down % 2, across + across % 2
        if col and col + across > n_cols:
            row, col, shelf = row + shelf, 0, 0
        at_row, at_col = row + above, col + before
        tiles.append(
            _Tile(
                owner,
                (slice(first_row, end_row), slice(first_col, end_col)),
                (slice(at_row, at_row + n_down), slice(at_col, at_col + n_across)),
                (above, below, before, behind),
                (first_row - at_row, first_col - at_col),
            )
        )
        col, shelf = col + across, max(shelf, down)
        width = max(width, col)
    return tiles, (row + shelf, width)


def _go_on_beyond_the_frame(solid: NDArray[np.uint8], own: NDArray[np.uint8], tile: _Tile) -> None:
    """Let a component that the border cuts go on in `solid`: the distance knows nothing beyond the frame."""
    (rows, cols), (above, below, before, behind) = tile.place, tile.pads
    padded = cv2.copyMakeBorder(own, *tile.pads, cv2.BORDER_REPLICATE)
    solid[rows.start - above : rows.stop + below, cols.start - before : cols.stop + behind] = padded


def _number_in_tiles(
    markers: NDArray[np.int32], sheet: NDArray[np.uint16]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Renumber `markers` from 1 in each tile, in their order; return the tile and the number of each.

    So the labels that `flood` spreads fit into 8 bit.
    """
    marked = np.flatnonzero(markers)
    old = markers.ravel()[marked] - 1
    tile_of = np.zeros(int(markers.max()), np.intp)
    tile_of[old] = sheet.ravel()[marked]
    order = np.argsort(tile_of, kind="stable")
    rank = np.zeros(len(order), np.intp)
    rank[order] = np.arange(len(order)) - np.searchsorted(tile_of[order], tile_of[order]) + 1
    markers.ravel()[marked] = rank[old]
    return tile_of, rank
