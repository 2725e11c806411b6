"""Rounded cells blended into real fields: semi-synthetic images, for want of real ones with dead cells."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom import Culture, Optics
from device.analysis.phantom.canvas import Canvas, draw_cell
from device.analysis.phantom.placement import Dish, place_cells
from device.analysis.phantom.render import light_on_sensor
from training.dataset import TrueCell, circle_cell

Ranges = tuple[tuple[float, float], ...]
RANGES: dict[str, tuple[Ranges, Ranges]] = {
    "round_radius_um": (((6.6, 8.4),), ((6.0, 6.6), (8.4, 9.2))),
    "round_index": (((0.050, 0.064),), ((0.044, 0.050), (0.064, 0.072))),
    "ring_width_um": (((5.5, 8.5),), ((8.5, 11.0),)),
    "ring_transmission": (((0.50, 0.65),), ((0.44, 0.50), (0.65, 0.72))),
    "defocus_um": (((-4.0, 4.0),), ((-7.0, -4.0), (4.0, 7.0))),
    "stray_light": (((0.05, 0.25),), ((0.25, 0.40),)),
}
"""Ranges of a training field and those of evaluation, which do not overlap. Chosen by eye: with them a cell
looks like the rounded ones of Usiigaci, whose thick body turns the phase by more than half a wave (dark
core, bright ring, thin dark line)."""
_CULTURE = ("round_radius_um", "round_index")
_AVOIDED_UM = 10.0  # of a real cell, its middle: a rounded cell lies on top of nobody's nucleus


def blend_rounded(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    n: int,
    um_per_px: float,
    *,
    outside: bool,
    avoid: Sequence[TrueCell] = (),
) -> tuple[NDArray[np.uint8], tuple[TrueCell, ...]]:
    """Return a real phase-contrast field with `n` rendered rounded cells in it, and these cells.

    Parameters
    ----------
    image : (M, N) ndarray of uint8
        Gray field; not modified.
    rng : Generator
        Draws microscope, places and shapes.
    n : int
        Cells to blend, all with their center in the field, >= 0.
    um_per_px : float
        Of the image.
    outside : bool
        Draw the microscope from the ranges of evaluation, outside of those of training.
    avoid : sequence of TrueCell
        Real cells that none is laid upon.

    Returns
    -------
    (M, N) ndarray of uint8, tuple of TrueCell
        The truth of the field is `avoid` and these cells, label `rounded`.

    Raises
    ------
    ValueError
        If the cells do not fit.

    Notes
    -----
    The light of an empty dish with these cells alone, 1 where it is empty, is multiplied onto the image,
    halo included. Real light of overlapping things does not multiply; hence `avoid`.
    """
    drawn: dict[str, Any] = {name: _draw(rng, both[outside]) for name, both in RANGES.items()}
    shape = {name: drawn.pop(name) for name in _CULTURE}
    culture = Culture(**shape, shrunken_share=0.1, mitotic_share=0.1, cluster=0.15)
    canvas = Canvas(image.shape, um_per_px)
    dish = Dish(image.shape[0] * um_per_px, image.shape[1] * um_per_px, rng)
    for cell in avoid:
        radius_um = min(cell.radius_px * um_per_px, _AVOIDED_UM)
        dish.block((cell.row + 0.5) * um_per_px, (cell.col + 0.5) * um_per_px, radius_um)
    cells: list[TrueCell] = []
    for site in place_cells(dish, n_live=0, n_rounded=n, n_lysed=0, culture=culture):
        if site.inside:  # what only reaches in would have no center to be found by
            row, col = site.row_um / um_per_px - 0.5, site.col_um / um_per_px - 0.5
            draw_cell(canvas, site, len(cells) + 1, culture, rng)
            cells.append(circle_cell("rounded", row, col, site.radius_um / um_per_px))
    light = light_on_sensor(canvas, image.shape, "phase", Optics(**drawn))
    blended = np.rint(np.clip(cv2.multiply(image, light, dtype=cv2.CV_32F), 0, 255)).astype(np.uint8)
    return blended, tuple(cells)


def _draw(rng: np.random.Generator, ranges: Ranges) -> float:
    return float(rng.uniform(*ranges[rng.integers(len(ranges))]))
