"""Labeled fields that the renderer draws: exact truth without a person, for training only."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from device.analysis.phantom import Phantom, render_field, vary, vary_culture
from device.analysis.pyramid import WORKING_UM_PER_PX
from device.records import Modality, Scale
from training.dataset import TrueCell
from training.labeling import LabeledField

RENDERED_SCALE = Scale(WORKING_UM_PER_PX, "measured")
VISIBLE_MIN = 0.5
"""A rendered cell that shows less of itself trains nothing: nobody could tell it."""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Training fields rendered in memory; each field one line: meaning, unit, range."""

    train_fields: int = 100
    """Fields for training, > 0."""
    val_fields: int = 20
    """Fields for validation, > 0."""
    n_cells: tuple[int, int] = (10, 110)
    """Fewest and most cells of a field of 480 x 640 px."""
    seed: int = 1
    """Of microscopes, dishes and noise."""


def rendered_fields(render: RenderSettings, modality: Modality, split: str) -> Iterator[LabeledField]:
    """Yield the rendered fields of a split, each with another microscope, dish, density and dead fraction."""
    first, count = (0, render.train_fields) if split == "train" else (10**6, render.val_fields)
    for index in range(first, first + count):
        rng = np.random.default_rng((render.seed, index))
        phantom = render_field(
            modality=modality,
            rng=rng,
            n_cells=int(rng.integers(render.n_cells[0], render.n_cells[1] + 1)),
            dead_fraction=float(rng.uniform()),
            um_per_px=WORKING_UM_PER_PX,
            optics=vary(rng, modality),
            culture=vary_culture(rng),
        )
        yield LabeledField(phantom.image, true_cells(phantom), f"rendered-{index}")


def true_cells(phantom: Phantom) -> tuple[TrueCell, ...]:
    """Return the cells of a phantom as boxes; what is hardly visible has an empty label."""
    um_per_px = float(phantom.parameters["um_per_px"])
    cells = []
    for thing in phantom.objects:
        if not thing.region:
            continue
        label = str(thing.cell_class) if thing.visible_fraction >= VISIBLE_MIN else ""
        radius = thing.radius_um / um_per_px
        cells.append(
            TrueCell(label, thing.col - radius, thing.row - radius, thing.col + radius, thing.row + radius)
        )
    return tuple(cells)
