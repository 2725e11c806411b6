"""Labeled whole fields: what a field model sees of them, and what a model of either kind is judged on."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device.analysis.crops import (
    CROP_PX,
    TILE_HALVINGS,
    TILE_PX,
    FieldView,
    tile_corners,
    view_field,
    view_of,
)
from device.analysis.flatten import flatten
from device.analysis.pyramid import build_pyramid
from device.images import read_gray
from device.records import DEAD_CLASSES, Assay, CellClass
from training.dataset import FIELD_LABELS, Dataset, TrueCell
from training.dataset.samples import Samples
from training.labeling import LabeledField, LabelSettings, cell_samples, dataset_fields

TOXIC_ABOVE: dict[str | None, float] = {"adherent": 0.5, "suspension": 0.3, None: 0.5}
"""Dead fraction above which a field is labeled toxic: grade 3 of ISO 10993-5, or viability under 70 %."""
DENSITY_PX = 4
"""Pixels of a tile from one place of its density to the next."""
BLOB_PX = 6.0
"""Sigma of the blob that a cell is in it."""
LOGIT_OF_CELL = 0.2
"""What a cell adds to the logit of its tile, before its weight."""

TrueField = tuple[NDArray[np.uint8], str, str]
"""An image, `toxic`, `non_toxic` or an empty text, and the group it belongs to."""


def bundle_samples(
    kind: str, classes: tuple[str, ...], dataset: Dataset, split: str, *, input_px: int = CROP_PX
) -> Samples:
    """Return what a `cell` or `field` model is judged on: one crop a true cell, or what it sees of fields."""
    if kind == "field":
        return field_samples(dataset, split, view=view_of(input_px))
    return cell_samples(
        dataset_fields(dataset, split),
        classes,
        um_per_px=dataset.info.scale.um_per_px,
        assay=dataset.info.assay or "adherent",
        modality=dataset.modality,
        split=split,
        source=dataset.folder.name,
        settings=LabelSettings(candidates=False, jitter_px=0),
    )


def field_samples(
    dataset: Dataset, split: str, *, view: FieldView = "relative/2 squeezed", unlabeled: bool = False
) -> Samples:
    """Return whole fields of a split (or `all`) as the field model of the station sees them.

    Each tile has the label of its field. Fields without one are left out, or kept with class -1 where
    `unlabeled` asks for them.
    """
    return view_samples(
        (field for field in true_fields(dataset, split) if field[1] or unlabeled),
        view,
        um_per_px=dataset.info.scale.um_per_px,
        split=split,
        source=dataset.folder.name,
    )


def true_fields(dataset: Dataset, split: str) -> Iterator[TrueField]:
    """Yield the fields of a split with the label of each: that of the manifest, else by its true cells."""
    for entry in dataset.in_split(split):
        label = entry.label or true_label(dataset.cells.get(entry.file, ()), dataset.info.assay)
        yield read_gray(dataset.folder / entry.file), label, entry.group


def view_samples(
    fields: Iterable[TrueField], view: FieldView, *, um_per_px: float, split: str, source: str
) -> Samples:
    """Return what a field model sees of `fields`, each tile with its field's label, -1 for an empty one."""
    side = CROP_PX if view == "relative/2 squeezed" else TILE_PX
    x, whole, group = [np.zeros((0, side, side), np.uint8)], [], []
    for number, (image, label, name) in enumerate(fields):
        x.append(field_input(image, um_per_px, view))
        whole += [(number, FIELD_LABELS.index(label) if label else -1)] * len(x[-1])
        group += [name] * len(x[-1])
    return _tiles(np.concatenate(x), [y for _, y in whole], group, split, source, whole)


def field_input(
    image: NDArray[np.uint8], um_per_px: float, view: FieldView = "relative/2 squeezed"
) -> NDArray[np.uint8]:
    """Return a gray field as the (K, S, S) input of a field model, made as `assess` makes it."""
    return view_field(flatten(build_pyramid(image, um_per_px)), view)


def tile_samples(
    fields: Iterable[LabeledField],
    view: FieldView,
    *,
    um_per_px: float,
    assay: Assay,
    split: str,
    source: str,
) -> Samples:
    """Return what a field model sees of `fields`, labeled by the true cells whose centers each input holds.

    What holds no cell is left out. Given the label of its whole field, a tile teaches far less.
    """
    kept = [
        (seen, FIELD_LABELS.index(label), field.group, density, (number, FIELD_LABELS.index(of_all)))
        for number, field in enumerate(fields)
        if (of_all := true_label(field.cells, assay))
        for seen, cells, density in _inputs_with_cells(field, view, um_per_px, TOXIC_ABOVE[assay])
        if (label := true_label(cells, assay))
    ]
    x, y, group, density, whole = (list(column) for column in zip(*kept, strict=True)) if kept else ([],) * 5
    samples = _tiles(np.array(x), y, group, split, source, whole)
    return replace(samples, density=np.array(density)) if view == "relative/2 tiles" else samples


def true_label(cells: Iterable[TrueCell], assay: Assay | None) -> str:
    """Return `toxic` or `non_toxic` by the share of dead among true cells, an empty text where none are."""
    labels = [cell.label for cell in cells if cell.label in (CellClass.LIVE, *DEAD_CLASSES)]
    if not labels:
        return ""
    affected = sum(label in DEAD_CLASSES for label in labels) / len(labels)
    return FIELD_LABELS[affected > TOXIC_ABOVE[assay]]


def _tiles(
    x: NDArray[np.uint8],
    y: list[int],
    group: list[str],
    split: str,
    source: str,
    whole: list[tuple[int, int]],
) -> Samples:
    classes, of_field = np.array(y, np.intp), np.array(whole, np.intp).reshape(-1, 2)
    return Samples(x, classes, np.array(group, np.str_), split, source, FIELD_LABELS, whole=of_field)


def _inputs_with_cells(
    field: LabeledField, view: FieldView, um_per_px: float, limit: float
) -> Iterator[tuple[NDArray[np.uint8], list[TrueCell], NDArray[np.float32] | None]]:
    pyramid = build_pyramid(field.image, um_per_px)
    inputs = view_field(flatten(pyramid), view)
    if view == "relative/2 squeezed":
        yield inputs[0], list(field.cells), None
        return
    zoom = pyramid.zoom * 2**TILE_HALVINGS  # pixels of the file in one of a tile
    places = [(cell, (cell.row + 0.5) / zoom, (cell.col + 0.5) / zoom) for cell in field.cells]
    height, width = (side >> TILE_HALVINGS for side in pyramid.working.shape)
    for seen, (row, col) in zip(inputs, tile_corners((height, width)), strict=True):
        inside = [c for c, y, x in places if 0 <= y - row < TILE_PX and 0 <= x - col < TILE_PX]
        yield seen, inside, _true_density([(c.label, y - row, x - col) for c, y, x in places], limit)


def _true_density(cells: list[tuple[str, float, float]], limit: float) -> NDArray[np.float32]:
    """Return the (20, 20, 2) density of live and dead cells at (label, row, column) of a tile.

    Each is a Gaussian blob. They are weighed so that dead outweigh live from a share of `limit` on, whatever
    their number: the mean difference is a logit that knows how much it has seen.
    """
    grid = (np.arange(TILE_PX // DENSITY_PX) + 0.5) * DENSITY_PX
    total = np.zeros((2, len(grid), len(grid)))
    for label, row, col in cells:
        if label in (CellClass.LIVE, *DEAD_CLASSES):
            dead = label in DEAD_CLASSES
            down, right = (np.exp(-(((grid - at) / BLOB_PX) ** 2) / 2) for at in (row, col))
            total[int(dead)] += (1 - limit if dead else limit) * np.outer(down, right)
    mass = 2 * np.pi * (BLOB_PX / DENSITY_PX) ** 2 / len(grid) ** 2  # of one blob in the mean over a tile
    return np.moveaxis(total * LOGIT_OF_CELL / mass, 0, 2).astype(np.float32)
