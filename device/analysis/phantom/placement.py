"""Where the cells of a field lie: how many, which class, how far apart, which way they point."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.objects import Kind
from device.analysis.phantom.settings import Culture

MARGIN_UM = 26.0
"""Width of the dish drawn around the field: cells reach in from there, the transform wraps around in it."""
_NUCLEUS_UM = 5.0  # radius of what a live cell keeps for itself
_SEPARATION = 0.8  # of the summed radii: closer ones could not be told apart by anybody
_TRIES = 400


@dataclass(frozen=True, slots=True)
class Site:
    """One cell to be drawn. Positions in um from the field's upper left corner."""

    kind: Kind
    row_um: float
    col_um: float
    radius_um: float
    angle: float
    """Direction of its long axis, radians."""
    inside: bool
    """False for a cell whose center lies outside of the field."""


class Dish:
    """Places taken so far; holds the arrays that every new cell is tested against."""

    def __init__(self, height_um: float, width_um: float, rng: np.random.Generator) -> None:
        self.height_um = height_um
        self.width_um = width_um
        self.rng = rng
        self.sites: list[Site] = []
        self._taken = np.zeros((64, 3))  # row, col, radius
        self._n = 0

    def block(self, row_um: float, col_um: float, radius_um: float) -> None:
        """Keep every later cell out of a disk."""
        if self._n == len(self._taken):
            self._taken = np.vstack([self._taken, np.zeros_like(self._taken)])
        self._taken[self._n] = row_um, col_um, radius_um
        self._n += 1

    def point(self, *, inside: bool) -> tuple[float, float]:
        """Return a random place in the field, or in the margin around it."""
        if inside:
            return float(self.rng.uniform(0, self.height_um)), float(self.rng.uniform(0, self.width_um))
        while True:
            row = float(self.rng.uniform(-MARGIN_UM, self.height_um + MARGIN_UM))
            col = float(self.rng.uniform(-MARGIN_UM, self.width_um + MARGIN_UM))
            if not self.contains(row, col):
                return row, col

    def contains(self, row_um: float, col_um: float) -> bool:
        """Return whether a place lies in the field."""
        return 0 <= row_um < self.height_um and 0 <= col_um < self.width_um

    def gap(self, row_um: float, col_um: float, radius_um: float) -> float:
        """Return the smallest distance to a cell in units of the summed radii; infinite in an empty dish."""
        if self._n == 0:
            return math.inf
        taken = self._taken[: self._n]
        distance = np.hypot(taken[:, 0] - row_um, taken[:, 1] - col_um)
        return float(np.min(distance / (taken[:, 2] + radius_um)))

    def find(self, radius_um: float, *, inside: bool, choices: int) -> tuple[float, float] | None:
        """Return the roomiest of up to `choices` free places, or None if there seems to be none."""
        best, widest, found = None, -1.0, 0
        for _ in range(_TRIES):
            row, col = self.point(inside=inside)
            gap = self.gap(row, col, radius_um)
            if gap < _SEPARATION:
                continue
            found += 1
            if gap > widest:
                best, widest = (row, col), gap
            if found >= choices:
                break
        return best

    def beside(self, radius_um: float, *, inside: bool) -> tuple[float, float] | None:
        """Return a place touching a round cell that is there already, or None."""
        rounds = [site for site in self.sites if site.kind != "live" and site.inside == inside]
        for _ in range(12 if rounds else 0):
            other = rounds[int(self.rng.integers(len(rounds)))]
            turn = self.rng.uniform(0, 2 * math.pi)
            distance = (other.radius_um + radius_um) * self.rng.uniform(0.85, 1.05)
            row = other.row_um + float(distance * math.sin(turn))
            col = other.col_um + float(distance * math.cos(turn))
            if self.contains(row, col) == inside and self.gap(row, col, radius_um) >= _SEPARATION:
                return row, col
        return None


def place_cells(
    dish: Dish, *, n_live: int, n_rounded: int, n_lysed: int, culture: Culture
) -> tuple[Site, ...]:
    """Return the cells of a field and of the margin around it, live ones first.

    Exactly the numbers asked for have their center in the field; the margin is as crowded on average.

    Raises
    ------
    ValueError
        If the cells do not fit at 0.8 of their summed radii.
    """
    rng = dish.rng
    field_um2 = dish.height_um * dish.width_um
    canvas_um2 = (dish.height_um + 2 * MARGIN_UM) * (dish.width_um + 2 * MARGIN_UM)
    angles = _direction_field(dish, culture, rng)
    for inside in (True, False):
        share = 1.0 if inside else canvas_um2 / field_um2 - 1
        counts = {"live": n_live, "rounded": n_rounded, "lysed": n_lysed}
        if not inside:
            counts = {kind: int(rng.poisson(number * share)) for kind, number in counts.items()}
        for _ in range(counts["live"]):
            radius = _NUCLEUS_UM * culture.live_size
            _add(dish, "live", radius, dish.find(radius, inside=inside, choices=4), angles, inside=inside)
        for kind, radius in _round_cells(counts["rounded"], counts["lysed"], culture, rng):
            touching = dish.beside(radius, inside=inside) if rng.random() < culture.cluster else None
            place = touching or dish.find(radius, inside=inside, choices=1)
            _add(dish, kind, radius, place, angles, inside=inside)
    return tuple(sorted(dish.sites, key=lambda site: site.kind != "live"))


def _add(
    dish: Dish,
    kind: Kind,
    radius_um: float,
    place: tuple[float, float] | None,
    angles: NDArray[np.float64],
    *,
    inside: bool,
) -> None:
    if place is None:
        if not inside:
            return  # a crowded margin may stay one cell short: nobody counts it
        raise ValueError(
            f"no room for another {kind} cell beside {len(dish.sites)} cells in a field of "
            f"{dish.height_um:.0f} x {dish.width_um:.0f} um; ask for fewer cells or a larger field"
        )
    row, col = place
    cell_row = min(max(int(row // 80), 0), angles.shape[0] - 1)
    cell_col = min(max(int(col // 80), 0), angles.shape[1] - 1)
    dish.block(row, col, radius_um)
    angle = float(angles[cell_row, cell_col] + dish.rng.normal(0, 0.25))
    dish.sites.append(Site(kind, row, col, radius_um, angle, inside))


def _direction_field(dish: Dish, culture: Culture, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return directions on a grid of 80 um: a common one, mixed with chance where `alignment` is small."""
    shape = (max(1, math.ceil(dish.height_um / 80)), max(1, math.ceil(dish.width_um / 80)))
    spread = (1 - culture.alignment) * math.pi / 2
    return rng.uniform(0, math.pi) + rng.normal(0, 0.2 + spread, shape)


def _round_cells(
    n_rounded: int, n_lysed: int, culture: Culture, rng: np.random.Generator
) -> list[tuple[Kind, float]]:
    """Return kind and radius in um of the round cells of a field, in random order."""
    cells: list[tuple[Kind, float]] = []
    for _ in range(n_rounded):
        draw = rng.random(2)
        if draw[0] < culture.mitotic_share:
            cells.append(("mitotic", float(rng.uniform(7, 9))))
        elif draw[1] < culture.shrunken_share:
            cells.append(("rounded", float(rng.uniform(3.5, 5.5))))
        else:
            radius = rng.normal(culture.round_radius_um, 0.1 * culture.round_radius_um)
            cells.append(("rounded", float(np.clip(radius, 0.7 * culture.round_radius_um, 10.0))))
    cells += [("lysed", float(rng.uniform(6, 10))) for _ in range(n_lysed)]
    return [cells[int(index)] for index in rng.permutation(len(cells))]
