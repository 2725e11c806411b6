"""A frame at one working scale: exact 2x2 halvings, then at most one small resize."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_UM_PER_PX = 0.65
"""Scale that all analysis works at, um/px: a 13 um dead cell is 20 px wide."""
FINEST_UM_PER_PX = 0.02
COARSEST_UM_PER_PX = 1.3
"""Beyond it a dead cell has fewer than 10 px and is not counted."""
_SAME_SCALE = 0.03
"""Scales that differ by less are taken as equal, so that no resize blurs the image."""
_SMALLEST_SIDE_PX = 28
"""Halving stops before a side gets shorter: the whole-field model needs 28 px."""


@dataclass(frozen=True, slots=True, eq=False)
class Pyramid:
    """One image at falling resolution; all arrays are read-only."""

    levels: tuple[NDArray[np.uint8], ...]
    """From the frame itself, through the working image, to the smallest level."""
    working: NDArray[np.uint8]
    """(H, W) the level that cells are found in; one of `levels`."""
    um_per_px: float
    """Micrometers a pixel of `working`: within 3 % of the working scale."""
    zoom: float
    """Pixels of the frame per pixel of `working`."""

    def to_frame(self, positions: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (K, 2) rows and columns of `working` in pixels of the frame; pixel centers are integers."""
        return (np.asarray(positions, np.float64) + 0.5) * self.zoom - 0.5

    def from_frame(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (K, 2) rows and columns of the frame in pixels of `working`."""
        return (positions + 0.5) / self.zoom - 0.5


def build_pyramid(
    image: NDArray[np.uint8],
    um_per_px: float,
    *,
    shrink: int = 1,
    exact: bool = False,
) -> Pyramid:
    """Return the (M, N) gray `image` at the working scale, with the levels above and below it.

    Coarser than the working scale is enlarged; a halving drops an odd last row or column. `image` may be the
    2nd, 4th or 8th part of a frame of `um_per_px`, if `shrink` says so. `exact` comes to the working scale by
    one area-weighted resize, without halvings: the slow reference.

    Raises
    ------
    ValueError
        If `image` is empty, not two-dimensional or not uint8, or `um_per_px` is not 0.02 to 1.3.

    Notes
    -----
    Of 12 megapixels, a fractional INTER_AREA resize takes 31-36 ms, halvings and a small resize 2.3-2.8.
    """
    check_gray(image)
    if not FINEST_UM_PER_PX <= um_per_px <= COARSEST_UM_PER_PX:
        raise ValueError(f"um_per_px is {um_per_px}; expected {FINEST_UM_PER_PX} to {COARSEST_UM_PER_PX}")
    levels = [_read_only(image)]
    ratio = WORKING_UM_PER_PX / (um_per_px * shrink)
    zoom = float(shrink)
    while not exact and ratio >= 2 * (1 - _SAME_SCALE) and min(levels[-1].shape) >= 2:
        levels.append(halve(levels[-1]))
        ratio, zoom = ratio / 2, zoom * 2
    if abs(ratio - 1) >= _SAME_SCALE:
        rows, cols = (max(1, round(side / ratio)) for side in levels[-1].shape)
        # what is left of a reduction is less than 2: linear is 12 times as fast as area averages there, and
        # the exact form gives the same bytes under every OpenCV
        smaller = cv2.INTER_AREA if exact else cv2.INTER_LINEAR_EXACT
        kind = smaller if ratio > 1 else cv2.INTER_CUBIC
        levels.append(_read_only(cv2.resize(levels[-1], (cols, rows), interpolation=kind)))
        zoom *= ratio
    working = levels[-1]
    while min(levels[-1].shape) >= 2 * _SMALLEST_SIDE_PX:
        levels.append(halve(levels[-1]))
    return Pyramid(tuple(levels), working, um_per_px * zoom, zoom)


def check_gray(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless `image` is a non-empty two-dimensional uint8 array."""
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"image is {image.dtype} of shape {image.shape}; expected a non-empty (M, N) uint8 gray image"
        )


def halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the read-only (M // 2, N // 2) averages of 2x2 pixels.

    An odd last row or column is dropped; a side of one pixel stays.
    """
    rows, cols = (max(1, side // 2) for side in image.shape)
    half = cv2.resize(image[: 2 * rows, : 2 * cols], (cols, rows), interpolation=cv2.INTER_AREA)
    return _read_only(half)


def _read_only(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    view = np.asarray(image, np.uint8).view()
    view.flags.writeable = False
    return view
