"""Easy frames for tools/bench: every sound pipeline finds all cells, so they compare speed, not accuracy.

Bright round cells with a dark rim, half of them touching a neighbor, weak debris, slow shading, noise.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import Pyramid, build_pyramid

SIZES = {"640x480": (480, 640), "1332x990": (990, 1332), "4056x3040": (3040, 4056)}
"""Rows and columns: a VGA camera, and the binned and full frames of a Pi HQ camera."""
CELL_UM = 13.0
"""Diameter of a cell, um: a dead cell is about as large."""
_WIDTH_PX = 640  # the widths of cells below are for a frame of this width
_GAP = 1.3  # least distance of cells that do not touch, in diameters
_BACKGROUND, _CORE, _RIM = 140.0, 70.0, -45.0  # gray levels
_DEBRIS_SHARE, _NOISE = 0.2, 3.0


@dataclass(frozen=True, eq=False)
class BenchFrame:
    """A drawn frame with its truth."""

    image: NDArray[np.uint8]
    """(M, N) gray."""
    centers: NDArray[np.float64]
    """(K, 2) rows and columns of the cells, px."""
    um_per_px: float

    @cached_property
    def pyramid(self) -> Pyramid:
        """The station's pyramid of it, for who gets the working image for nothing."""
        return build_pyramid(self.image, self.um_per_px)


def cell_width_px(n_cells: int) -> float:
    """Return the diameter in a frame 640 px wide: smaller where 14 px would leave no room."""
    return 14.0 if n_cells <= 400 else 10.5


def draw_frame(size: str, n_cells: int, *, width_px: float | None = None, seed: int = 1) -> BenchFrame:
    """Return a frame of `n_cells`, each `width_px` wide in a frame 640 px wide; same seed, same frame."""
    rng = np.random.default_rng(seed)
    rows, cols = SIZES[size]
    diameter = (width_px or cell_width_px(n_cells)) * cols / _WIDTH_PX
    centers = _place(rng, n_cells, (rows / diameter, cols / diameter)) * diameter
    radii = diameter / 2 * rng.uniform(0.9, 1.05, n_cells)
    down, right = np.linspace(-4, 4, rows)[:, None], np.linspace(-6, 6, cols)[None, :]
    image = (_BACKGROUND + down + right).astype(np.float32)
    for center, radius in zip(centers, radii, strict=True):
        _stamp(image, center, radius, _CORE, _RIM)
    for _ in range(round(_DEBRIS_SHARE * n_cells)):
        place = rng.uniform(0, 1, 2) * (rows, cols)
        _stamp(image, place, rng.uniform(0.06, 0.1) * diameter, _CORE / 2, _RIM / 2)
    image += rng.normal(0, _NOISE, image.shape).astype(np.float32)
    return BenchFrame(np.clip(image, 0, 255).astype(np.uint8), centers, CELL_UM / diameter)


def _place(rng: np.random.Generator, n_cells: int, shape: tuple[float, float]) -> NDArray[np.float64]:
    """Return centers in cell diameters: half of the cells in touching pairs, the others apart."""
    placed = np.empty((0, 2))
    low, high = np.ones(2), np.array(shape) - 1
    while len(placed) < n_cells:
        group = rng.uniform(low, high)[None]
        if len(placed) < n_cells // 2:
            turn = rng.uniform(0, 2 * np.pi)
            group = np.vstack([group, group + np.array([np.sin(turn), np.cos(turn)])])
        apart = np.linalg.norm(group[:, None] - placed[None], axis=2)
        if (group >= low).all() and (group <= high).all() and (apart >= _GAP).all():
            placed = np.vstack([placed, group])[:n_cells]
    return placed


def _stamp(
    image: NDArray[np.float32], center: NDArray[np.float64], radius: float, core: float, rim: float
) -> None:
    """Add a disk of `core` gray levels with a soft edge inside a ring of `rim`."""
    reach = 1.5 * radius + 2
    top, left = (max(0, int(place - reach)) for place in center)
    patch = image[top : int(center[0] + reach) + 1, left : int(center[1] + reach) + 1]
    rows, cols = np.mgrid[: patch.shape[0], : patch.shape[1]]
    away = np.hypot(rows + top - center[0], cols + left - center[1]) / radius
    patch += core / (1 + np.exp((away - 0.78) * 16)) + rim * np.exp(-(((away - 0.93) / 0.09) ** 2))
