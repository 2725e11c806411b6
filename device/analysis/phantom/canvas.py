"""The dish while it is drawn: the field, a margin around it, and what was laid into them."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom import objects
from device.analysis.phantom.objects import Grid, Kind, Patch
from device.analysis.phantom.placement import MARGIN_UM, Dish, Site
from device.analysis.phantom.settings import Culture

_FINEST_UM_PER_PX = 0.8  # coarser fields are drawn finer and binned: the wave must be sampled


class Canvas:
    """Arrays of the field and its margin at the scale at which they are drawn; `view` is the field there."""

    def __init__(self, size: tuple[int, int], um_per_px: float) -> None:
        self.binning = max(1, math.ceil(um_per_px / _FINEST_UM_PER_PX))
        self.um_per_px = um_per_px / self.binning
        margin = math.ceil(MARGIN_UM / self.um_per_px)
        height, width = size[0] * self.binning, size[1] * self.binning
        rows, cols = (cv2.getOptimalDFTSize(side + 2 * margin) for side in (height, width))
        self.shape = (rows, cols)
        self.top, self.left = (rows - height) // 2, (cols - width) // 2
        self.view = np.s_[self.top : self.top + height, self.left : self.left + width]
        self.live, self.others, self.absorbance = (np.zeros(self.shape, np.float32) for _ in range(3))
        self.labels = np.zeros(self.shape, np.uint16)

    def grid(self, row_um: float, col_um: float, reach_um: float) -> Grid:
        """Return the pixels within `reach_um` of a place given in um from the field's corner."""
        row = self.top + row_um / self.um_per_px - 0.5
        col = self.left + col_um / self.um_per_px - 0.5
        reach = math.ceil(reach_um / self.um_per_px) + 1
        top, left = math.floor(row) - reach, math.floor(col) - reach
        steps = np.arange(2 * reach + 2)
        down = ((top + steps - row) * self.um_per_px).astype(np.float32)
        right = ((left + steps - col) * self.um_per_px).astype(np.float32)
        return Grid(top, left, down[:, None], right[None, :])

    def add(self, patch: Patch, grid: Grid, *, label: int, live: bool) -> None:
        """Lay one object into the dish; overlapping live cells flatten each other (maximum + 0.3 minimum)."""
        height, width = patch.body.shape
        first_row, last_row = max(grid.top, 0), min(grid.top + height, self.shape[0])
        first_col, last_col = max(grid.left, 0), min(grid.left + width, self.shape[1])
        if first_row >= last_row or first_col >= last_col:
            return
        here = np.s_[first_row:last_row, first_col:last_col]
        there = np.s_[
            first_row - grid.top : last_row - grid.top, first_col - grid.left : last_col - grid.left
        ]
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


def draw_cell(canvas: Canvas, site: Site, label: int, culture: Culture, rng: np.random.Generator) -> int:
    """Lay one cell into the dish and return its area in canvas pixels, hidden and outer ones included."""
    if site.kind == "live":
        arms = objects.choose_arms(site.angle, culture, rng)
        grid = canvas.grid(site.row_um, site.col_um, 1.12 * max(length for _, length in arms) + 3)
        patch = objects.draw_live(grid, arms, culture, rng)
    else:
        grid = canvas.grid(site.row_um, site.col_um, 1.4 * site.radius_um + 3)
        patch = objects.ROUND_CELLS[site.kind](grid, site.radius_um, culture, rng)
    canvas.add(patch, grid, label=label, live=site.kind == "live")
    return int(np.count_nonzero(patch.body))


def draw_matter(canvas: Canvas, dish: Dish, culture: Culture) -> tuple[Site, ...]:
    """Lay texture and things into the dish; return those with their center in the field, fibers left out."""
    rng = dish.rng
    noise = rng.standard_normal(canvas.shape, np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5 / canvas.um_per_px, borderType=cv2.BORDER_REFLECT_101)
    # 0.55 um: the wavelength in which the texture's radians are meant, whatever the microscope's
    canvas.others += noise * np.float32(culture.texture_rad * 0.55 / (2 * math.pi) / float(noise.std()))
    for _ in range(culture.fibers):
        path, absorbance = objects.draw_fiber(canvas.shape, canvas.um_per_px, rng)
        canvas.others += path
        canvas.absorbance += absorbance
    area_mm2 = dish.drawn_um2 * 1e-6
    n_aggregates = rng.poisson(culture.aggregates_per_mm2 * area_mm2)
    n_debris = rng.poisson(culture.debris_per_mm2 * area_mm2)
    radii: dict[Kind, NDArray[np.float64]] = {
        "bubble": rng.uniform(0.7, 1.3, culture.bubbles) * culture.bubble_radius_um,
        "aggregate": 2 * 10 ** rng.uniform(0, 1, n_aggregates),
        "debris": rng.uniform(0.6, 2.0, n_debris),
    }
    things = [_draw_thing(canvas, dish, kind, radius) for kind in radii for radius in radii[kind].tolist()]
    return tuple(thing for thing in things if thing.inside)


def _draw_thing(canvas: Canvas, dish: Dish, kind: Kind, radius_um: float) -> Site:
    row, col = dish.point_with_margin()
    grid = canvas.grid(row, col, 4 * radius_um if kind == "debris" else 1.4 * radius_um + 2)
    canvas.add(objects.MATTER[kind](grid, radius_um, dish.rng), grid, label=0, live=False)
    if kind == "bubble":  # no cell lies there
        dish.block(row, col, radius_um / 0.8)
    return Site(kind, row, col, radius_um, 0.0, dish.contains(row, col))
