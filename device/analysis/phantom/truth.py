"""What is true about a rendered field: every cell with its class, place and visible pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.canvas import Canvas
from device.analysis.phantom.objects import Kind
from device.analysis.phantom.placement import Site
from device.records import DEAD_CLASSES, CellClass

_VISITOR_SHARE = 0.2  # a cell from outside that shows less of itself than this is not in the truth
_CLASSES: dict[Kind, CellClass] = {
    "live": CellClass.LIVE,
    "rounded": CellClass.ROUNDED,
    "mitotic": CellClass.ROUNDED,
    "lysed": CellClass.LYSED,
}


@dataclass(frozen=True, slots=True)
class TrueObject:
    """One thing in the field. Positions are pixels, (0, 0) the middle of the first one."""

    region: int
    """Label in `Phantom.labels`, from 1; 0 for what is no cell."""
    row: float
    """Center of the cell; of its visible part where the center lies outside of the field."""
    col: float
    cell_class: CellClass
    """`other` for debris, aggregates and bubbles."""
    kind: Kind
    """What was drawn: finer than the class."""
    radius_um: float
    """Radius of a disk as large as the whole object, um."""
    visible_fraction: float
    """Share of its pixels that are in the field and not hidden, 0 to 1."""
    touches_edge: bool
    inside: bool
    """False for a cell whose center lies outside of the field: it reaches in."""


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """One rendered field."""

    image: NDArray[np.uint8]
    """(M, N) gray, read-only."""
    labels: NDArray[np.uint16]
    """(M, N) visible pixels of every cell by `TrueObject.region`, 0 = no cell, read-only."""
    objects: tuple[TrueObject, ...]
    """Cells in the order of their regions, then other things with region 0."""
    parameters: dict[str, Any]
    """Everything `render_field` was asked for, as JSON values, and the confluence of live cells."""
    seed: int

    @property
    def cells(self) -> tuple[TrueObject, ...]:
        """Cells whose center lies in the field: exactly those that were asked for."""
        return tuple(item for item in self.objects if item.region > 0 and item.inside)

    @property
    def n_live(self) -> int:
        """Live cells whose center lies in the field."""
        return sum(item.cell_class is CellClass.LIVE for item in self.cells)

    @property
    def n_dead(self) -> int:
        """Rounded and lysed cells whose center lies in the field."""
        return sum(item.cell_class in DEAD_CLASSES for item in self.cells)

    @property
    def dead_fraction(self) -> float | None:
        """Share of dead among the cells of the field, 0 to 1; None without cells."""
        total = self.n_live + self.n_dead
        return self.n_dead / total if total else None


def read_truth(
    canvas: Canvas, sites: Sequence[Site], areas_px: Sequence[int]
) -> tuple[NDArray[np.uint16], tuple[TrueObject, ...]]:
    """Return the visible pixels of every cell, numbered anew from 1, and the cells in that order.

    Cells from outside that show less than a fifth of themselves stay in the picture but not in the truth.
    """
    drawn = canvas.labels[canvas.view]
    middle, um_per_px = canvas.binning // 2, canvas.um_per_px * canvas.binning
    seen = drawn[middle :: canvas.binning, middle :: canvas.binning]
    visible, left = (np.bincount(labels.ravel(), minlength=len(sites) + 1) for labels in (drawn, seen))
    on_edge = set(np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]]).tolist())
    renumber = np.zeros(len(sites) + 1, np.uint16)
    cells: list[TrueObject] = []
    for index, (site, area) in enumerate(zip(sites, areas_px, strict=True), start=1):
        share = float(visible[index]) / area
        if left[index] == 0 or (share < _VISITOR_SHARE and not site.inside):
            continue
        renumber[index] = region = len(cells) + 1
        row, col = site.row_um / um_per_px - 0.5, site.col_um / um_per_px - 0.5
        if not site.inside:
            row, col = (float(places.mean()) for places in np.nonzero(seen == index))
        radius, edge = math.sqrt(area / math.pi) * canvas.um_per_px, index in on_edge
        cell_class = _CLASSES[site.kind]
        cells.append(TrueObject(region, row, col, cell_class, site.kind, radius, share, edge, site.inside))
    return renumber[seen], tuple(cells)


def true_matter(things: Sequence[Site], size: tuple[int, int], um_per_px: float) -> tuple[TrueObject, ...]:
    """Return debris, aggregates and bubbles as objects without a region."""
    objects = []
    for thing in things:
        row, col = thing.row_um / um_per_px - 0.5, thing.col_um / um_per_px - 0.5
        edge = min(row, col, size[0] - 1 - row, size[1] - 1 - col) < thing.radius_um / um_per_px
        objects.append(TrueObject(0, row, col, CellClass.OTHER, thing.kind, thing.radius_um, 1.0, edge, True))
    return tuple(objects)
