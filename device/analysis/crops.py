"""The one definition of what a model sees: 28x28 crops of cells, a field at 28x28, or tiles of a field.

Preprocessing id `relative/2`: the relative gray of `flatten` at the working scale, where background is 128,
black 1 and twice the background 255; 0 is beyond the border of the image. Training calls these functions.
"""

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import WORKING_UM_PER_PX, halve

CROP_PX = 28
"""Side of a crop, px: 18 um at 0.65 um/px."""
PREPROCESSING = "relative/2"
"""Identity of what `cut_crops` gives; it stands in each model card and changes with any change here."""
OUTSIDE = 0
"""Gray beyond the border. A model that sees the border can learn what its labels make of cut cells; with the
image reflected there, F1 of dead cells in chambers was 7 points lower (cross-validation, ldc train)."""
_HALF = CROP_PX // 2
FieldView = Literal["relative/2 squeezed", "relative/2 tiles"]
"""Identity of what `view_field` gives a field model: the whole field at 28x28, or tiles of it."""
FIELD_VIEWS: tuple[FieldView, ...] = get_args(FieldView)
TILE_PX = 80
"""Side of a tile, px of its scale."""
TILE_HALVINGS = 1
"""Halvings from the working scale to that of tiles."""
TILES_A_SIDE = 6
"""At most so many tiles lie along a side: a large field is sampled, so that its price has a limit."""


def cut_crops(
    relative: NDArray[np.uint8], centers: NDArray[np.float32] | NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the (K, 28, 28) surroundings of each of (K, 2) centers as the cell model sees them.

    `centers` are rows and columns of the (H, W) relative gray. Each lies between pixels 13 and 14 of its
    crop; one outside is moved to the border.
    """
    centers = np.asarray(centers, np.float64).reshape(-1, 2)
    gray = cv2.copyMakeBorder(relative, _HALF, _HALF, _HALF, _HALF, cv2.BORDER_CONSTANT, value=OUTSIDE)
    limit = np.array(relative.shape) - 1
    # a crop starting at row s of `relative` has its center at s + 13.5, and `gray` is offset by 14
    start = np.floor(np.clip(centers, 0, limit) - (_HALF - 0.5) + 0.5).astype(np.intp) + _HALF
    windows = np.lib.stride_tricks.sliding_window_view(gray, (CROP_PX, CROP_PX))
    return np.ascontiguousarray(windows[start[:, 0], start[:, 1]])


def view_field(relative: NDArray[np.uint8], view: FieldView) -> NDArray[np.uint8]:
    """Return the (K, S, S) inputs that a field model of that `view` judges a field by; K may be 0.

    The squeezed field is one input of 28 px, of area averages. Tiles are of 80 px, 104 um wide, spread evenly
    from border to border, so that they overlap where a side is no multiple; a field that is smaller than one
    has none.
    """
    if view == "relative/2 squeezed":
        squeezed = cv2.resize(relative, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
        return np.asarray(squeezed, np.uint8)[None]
    for _ in range(TILE_HALVINGS):
        relative = halve(relative)
    corners = tile_corners(relative.shape)
    tiles = [relative[row : row + TILE_PX, col : col + TILE_PX] for row, col in corners]
    return np.array(tiles, np.uint8).reshape(-1, TILE_PX, TILE_PX)


def view_of(input_px: int) -> FieldView:
    """Return the view of a field model whose input is so many pixels wide."""
    return "relative/2 tiles" if input_px == TILE_PX else "relative/2 squeezed"


def view_um_per_px(view: FieldView) -> float:
    """Return the scale of the gray that a view is taken from, um/px."""
    return WORKING_UM_PER_PX * 2**TILE_HALVINGS if view == "relative/2 tiles" else WORKING_UM_PER_PX


def tile_corners(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the first row and column of each tile of a field of `shape`, px of the tiles' scale."""
    if min(shape) < TILE_PX:
        return []
    counts = (min(TILES_A_SIDE, -(-side // TILE_PX)) for side in shape)
    rows, cols = (
        np.rint(np.linspace(0, side - TILE_PX, n)).astype(int).tolist()
        for side, n in zip(shape, counts, strict=True)
    )
    return [(row, col) for row in rows for col in cols]
