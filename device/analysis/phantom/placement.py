"""Where the cells of a field lie: how many, which class, how far apart, which way they point."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from device.analysis.phantom.objects import Kind
from device.analysis.phantom.settings import Culture

MARGIN_UM = 26.0
"""Width of the dish drawn around the field: cells reach in from there, the transform wraps around in it."""
_NUCLEUS_UM = 5.0  # radius of what a live cell keeps for itself
_SEPARATION = 0.8  # of the summed radii: closer ones could not be told apart by anybody
_TRIES = 400


@dataclass(frozen=True, slots=True)
class Site:
    """One cell or thing to be drawn. Positions in um from the field's upper left corner."""

    kind: Kind
    row_um: float
    col_um: float
    radius_um: float
    angle: float
    """Direction of its long axis, radians."""
    inside: bool
    """False if its center lies outside of the field."""


class Dish:
    """Places taken so far."""

    def __init__(self, height_um: float, width_um: float, rng: np.random.Generator) -> None:
        self.height_um, self.width_um = height_um, width_um
        self.drawn_um2 = (height_um + 2 * MARGIN_UM) * (width_um + 2 * MARGIN_UM)
        self.rng = rng
        self.sites: list[Site] = []
        self._taken = np.empty((0, 3))  # row, col, radius

    def block(self, row_um: float, col_um: float, radius_um: float) -> None:
        """Keep every later cell out of a disk."""
        self._taken = np.vstack([self._taken, (row_um, col_um, radius_um)])

    def point(self, *, inside: bool) -> tuple[float, float]:
        """Return a random place in the field, or in the margin around it."""
        if inside:
            return self.rng.uniform(0, self.height_um), self.rng.uniform(0, self.width_um)
        place = self.point_with_margin()
        while self.contains(*place):
            place = self.point_with_margin()
        return place

    def point_with_margin(self) -> tuple[float, float]:
        """Return a random place in the field or the margin around it."""
        row = self.rng.uniform(-MARGIN_UM, self.height_um + MARGIN_UM)
        return row, self.rng.uniform(-MARGIN_UM, self.width_um + MARGIN_UM)

    def contains(self, row_um: float, col_um: float) -> bool:
        """Return whether a place lies in the field."""
        return 0 <= row_um < self.height_um and 0 <= col_um < self.width_um

    def gap(self, row_um: float, col_um: float, radius_um: float) -> float:
        """Return the smallest distance to a cell in units of the summed radii; infinite in an empty dish."""
        rows, cols, radii = self._taken.T
        distance = np.hypot(rows - row_um, cols - col_um)
        return float(np.min(distance / (radii + radius_um), initial=math.inf))

    def find(self, radius_um: float, *, inside: bool, choices: int) -> tuple[float, float] | None:
        """Return the roomiest of up to `choices` free places, or None if there seems to be none."""
        tries = (self.point(inside=inside) for _ in range(_TRIES))
        gaps = ((self.gap(*place, radius_um), place) for place in tries)
        free = itertools.islice((found for found in gaps if found[0] >= _SEPARATION), choices)
        return max(free, key=lambda found: found[0], default=(0.0, None))[1]

    def beside(self, radius_um: float, *, inside: bool) -> tuple[float, float] | None:
        """Return a place touching a round cell that is there already, or None."""
        rounds = [site for site in self.sites if site.kind != "live" and site.inside == inside]
        for _ in range(12 if rounds else 0):
            other = rounds[self.rng.integers(len(rounds))]
            turn = self.rng.uniform(0, 2 * math.pi)
            distance = (other.radius_um + radius_um) * self.rng.uniform(0.85, 1.05)
            row, col = other.row_um + distance * math.sin(turn), other.col_um + distance * math.cos(turn)
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
    # directions on a grid of 80 um: a common one, mixed with chance where `alignment` is small
    shape = (math.ceil(dish.height_um / 80), math.ceil(dish.width_um / 80))
    spread = (1 - culture.alignment) * math.pi / 2
    angles = rng.uniform(0, math.pi) + rng.normal(0, 0.2 + spread, shape)
    for inside in (True, False):
        if not inside:
            share = dish.drawn_um2 / (dish.height_um * dish.width_um) - 1
            n_live, n_rounded, n_lysed = (rng.poisson(n * share) for n in (n_live, n_rounded, n_lysed))
        for kind, radius in _cells(n_live, n_rounded, n_lysed, culture, rng):
            round_one = kind != "live"
            beside = round_one and rng.random() < culture.cluster
            place = dish.beside(radius, inside=inside) if beside else None
            place = place or dish.find(radius, inside=inside, choices=1 if round_one else 4)
            if place is not None:
                row, col = (min(max(int(um // 80), 0), n - 1) for um, n in zip(place, shape, strict=True))
                dish.block(*place, radius)
                angle = float(angles[row, col] + rng.normal(0, 0.25))
                dish.sites.append(Site(kind, *place, radius, angle, inside))
            elif inside:  # a crowded margin may stay one cell short: nobody counts it
                raise ValueError(
                    f"no room for another {kind} cell beside {len(dish.sites)} cells in a field of "
                    f"{dish.height_um:.0f} x {dish.width_um:.0f} um; ask for fewer cells or a larger field"
                )
    return tuple(sorted(dish.sites, key=lambda site: site.kind != "live"))


def _cells(
    n_live: int, n_rounded: int, n_lysed: int, culture: Culture, rng: np.random.Generator
) -> Iterator[tuple[Kind, float]]:
    """Yield kind and radius in um: live cells, then round ones in random order, drawn at their turn."""
    for _ in range(n_live):
        yield "live", _NUCLEUS_UM * culture.live_size
    cells: list[tuple[Kind, float]] = []
    for _ in range(n_rounded):
        draw = rng.random(2)
        if draw[0] < culture.mitotic_share:
            cells.append(("mitotic", rng.uniform(7, 9)))
        elif draw[1] < culture.shrunken_share:
            cells.append(("rounded", rng.uniform(3.5, 5.5)))
        else:
            radius = rng.normal(culture.round_radius_um, 0.1 * culture.round_radius_um)
            cells.append(("rounded", float(np.clip(radius, 0.7 * culture.round_radius_um, 10.0))))
    cells += [("lysed", rng.uniform(6, 10)) for _ in range(n_lysed)]
    yield from (cells[index] for index in rng.permutation(len(cells)))
