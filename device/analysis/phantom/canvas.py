"""The dish while it is drawn: the field, a margin around it, and what was laid into them."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.objects import (
    ROUND_CELLS,
    Kind,
    Patch,
    choose_arms,
    draw_aggregate,
    draw_bubble,
    draw_debris,
    draw_live,
    fiber,
    grid,
)
from device.analysis.phantom.placement import MARGIN_UM, Dish, Site
from device.analysis.phantom.settings import Culture

_FINEST_UM_PER_PX = 0.8  # coarser fields are drawn finer and binned: the wave must be sampled


class Canvas:
    """The dish while it is drawn: the field and a margin around it, at the internal scale."""

    def __init__(self, size: tuple[int, int], um_per_px: float) -> None:
        self.binning = max(1, math.ceil(um_per_px / _FINEST_UM_PER_PX))
        self.um_per_px = um_per_px / self.binning
        margin = math.ceil(MARGIN_UM / self.um_per_px)
        self.height, self.width = size[0] * self.binning, size[1] * self.binning
        shape = tuple(cv2.getOptimalDFTSize(side + 2 * margin) for side in (self.height, self.width))
        self.shape = (int(shape[0]), int(shape[1]))
        self.top, self.left = (self.shape[0] - self.height) // 2, (self.shape[1] - self.width) // 2
        self.live = np.zeros(self.shape, np.float32)
        self.others = np.zeros(self.shape, np.float32)
        self.absorbance = np.zeros(self.shape, np.float32)
        self.labels = np.zeros(self.shape, np.uint16)

    def patch_grid(
        self, row_um: float, col_um: float, reach_um: float
    ) -> tuple[int, int, NDArray[np.float32], NDArray[np.float32]]:
        """Return the grid of a patch around a place given in um from the field's corner."""
        row = self.top + row_um / self.um_per_px - 0.5
        col = self.left + col_um / self.um_per_px - 0.5
        return grid(row, col, reach_um, self.um_per_px)

    def add(self, patch: Patch, top: int, left: int, *, label: int, live: bool) -> None:
        """Lay one object into the dish; overlapping live cells flatten each other (maximum + 0.3 minimum)."""
        height, width = patch.body.shape
        first_row, last_row = max(top, 0), min(top + height, self.shape[0])
        first_col, last_col = max(left, 0), min(left + width, self.shape[1])
        if first_row >= last_row or first_col >= last_col:
            return
        here = np.s_[first_row:last_row, first_col:last_col]
        there = np.s_[first_row - top : last_row - top, first_col - left : last_col - left]
        path, body = patch.path_um[there], patch.body[there]
        if live:
            below = self.live[here]
            body = body & (path >= below)
            self.live[here] = np.maximum(below, path) + np.float32(0.3) * np.minimum(below, path)
        else:
            self.others[here] += path
        self.absorbance[here] += patch.absorbance[there]
        if label:
            self.labels[here][body] = label

    def field(self, whole: NDArray[Any]) -> NDArray[Any]:
        """Return the part of a canvas array that the camera sees."""
        return whole[self.top : self.top + self.height, self.left : self.left + self.width]


def draw_cell(canvas: Canvas, site: Site, label: int, culture: Culture, rng: np.random.Generator) -> int:
    """Lay one cell into the dish and return its area in canvas pixels, hidden and outer ones included."""
    live = site.kind == "live"
    arms = choose_arms(site.angle, culture, rng) if live else []
    reach = 1.12 * max(length for _, length in arms) + 3 if live else 1.4 * site.radius_um + 3
    top, left, down, right = canvas.patch_grid(site.row_um, site.col_um, reach)
    if live:
        patch = draw_live(down, right, arms, culture, rng)
    else:
        patch = ROUND_CELLS[site.kind](down, right, site.radius_um, culture, rng)
    canvas.add(patch, top, left, label=label, live=live)
    return int(np.count_nonzero(patch.body))


def draw_matter(canvas: Canvas, dish: Dish, culture: Culture) -> tuple[tuple[Kind, float, float, float], ...]:
    """Lay texture, debris, aggregates, bubbles and fibers into the dish.

    Returns
    -------
    tuple of (kind, row, col, radius)
        Things with their center in the field, um; bubbles keep cells out of their place.
    """
    rng = dish.rng
    noise = cv2.GaussianBlur(
        rng.standard_normal(canvas.shape, np.float32),
        (0, 0),
        1.5 / canvas.um_per_px,
        borderType=cv2.BORDER_REFLECT_101,
    )
    # 0.55 um: the wavelength in which the texture's radians are meant, whatever the microscope's
    canvas.others += noise * np.float32(culture.texture_rad * 0.55 / (2 * math.pi) / float(noise.std()))
    for _ in range(culture.fibers):
        path, absorbance = fiber(canvas.shape, canvas.um_per_px, rng)
        canvas.others += path
        canvas.absorbance += absorbance
    area_mm2 = (dish.height_um + 2 * MARGIN_UM) * (dish.width_um + 2 * MARGIN_UM) * 1e-6
    n_aggregates = int(rng.poisson(culture.aggregates_per_mm2 * area_mm2))
    n_debris = int(rng.poisson(culture.debris_per_mm2 * area_mm2))
    bubbles = rng.uniform(0.7, 1.3, culture.bubbles) * culture.bubble_radius_um
    wanted: list[tuple[Kind, float]] = [("bubble", float(radius)) for radius in bubbles]
    wanted += [("aggregate", float(radius)) for radius in 2 * 10 ** rng.uniform(0, 1, n_aggregates)]
    wanted += [("debris", float(radius)) for radius in rng.uniform(0.6, 2.0, n_debris)]
    found = [_draw_thing(canvas, dish, kind, radius) for kind, radius in wanted]
    return tuple(thing for thing in found if dish.contains(thing[1], thing[2]))


def _draw_thing(canvas: Canvas, dish: Dish, kind: Kind, radius_um: float) -> tuple[Kind, float, float, float]:
    row = float(dish.rng.uniform(-MARGIN_UM, dish.height_um + MARGIN_UM))
    col = float(dish.rng.uniform(-MARGIN_UM, dish.width_um + MARGIN_UM))
    draw = {"bubble": draw_bubble, "aggregate": draw_aggregate, "debris": draw_debris}[kind]
    reach = 4 * radius_um if kind == "debris" else 1.4 * radius_um + 2
    top, left, down, right = canvas.patch_grid(row, col, reach)
    canvas.add(draw(down, right, radius_um, dish.rng), top, left, label=0, live=False)
    if kind == "bubble":
        dish.block(row, col, radius_um / 0.8)
    return kind, row, col, radius_um
