"""Labeled 28x28 crops and fields, cut by the very functions of the station.

A candidate of `device.analysis.propose` on a true cell gets that cell's class; one that lies clear of all is
`other`, a false proposal that the model must learn to drop.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device.analysis.crops import (
    CROP_PX,
    TILE_HALVINGS,
    TILE_PX,
    FieldView,
    cut_crops,
    tile_corners,
    view_field,
    view_of,
)
from device.analysis.flatten import flatten
from device.analysis.proposals import propose
from device.analysis.pyramid import Pyramid, build_pyramid, halve
from device.analysis.segmentation import find_foreground
from device.images import read_gray
from device.records import DEAD_CLASSES, Assay, CellClass, Modality
from training.dataset import FIELD_LABELS, Dataset, Entry, TrueCell
from training.dataset.samples import Samples, join_samples

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


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How candidates get their labels; each field one line: meaning, unit, range."""

    on_cell: float = 0.5
    """A candidate this near to a true center, in radii of the cell, is that cell, 0 to 1."""
    clear: float = 0.8
    """Farther than this from all true centers, in radii, it is `other`; between, left out; >= on_cell. Under
    1 a second candidate on the flank of a cell is `other`, else the cell would count twice."""
    radius_max_um: float = 10.0
    """Larger cells count with this radius for both, um, > 0: their center is to be found, not their body."""
    other_per_cell: float = 1.5
    """At most this many `other` crops per true cell of the split are kept, chosen at random, >= 0."""
    candidates: bool = True
    """Cut the station's candidates too, not the true centers only."""
    jitter_px: float = 2.0
    """True centers are cut off their place by up to this much a side, working px, >= 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What the station would ask its cell model about in one field."""

    pyramid: Pyramid
    relative: NDArray[np.uint8]
    """(H, W) relative gray at working scale."""
    centers: NDArray[np.float32]
    """(K, 2) rows and columns at working scale."""


def find_candidates(
    image: NDArray[np.uint8], um_per_px: float, *, assay: Assay, modality: Modality
) -> Candidates:
    """Return the candidates of one gray field, as `assess` finds them."""
    pyramid = build_pyramid(image, um_per_px)
    relative = flatten(pyramid)
    coarse, coarse_um = halve(relative), 2 * pyramid.um_per_px
    foreground = find_foreground(coarse, coarse_um, assay=assay, modality=modality)
    proposals = propose(coarse, foreground, assay=assay, modality=modality, um_per_px=coarse_um)
    return Candidates(pyramid, relative, proposals.centers)


def class_of(label: str, classes: tuple[str, ...]) -> int | None:
    """Return the index of the class that a true label falls into, None where the model does not know it.

    `rounded` and `lysed` are `dead` for a model without the finer classes; a label that is no cell is
    `other`; an empty label is a thing that nobody could tell, which trains nothing.
    """
    if not label:
        return None
    if label in classes:
        return classes.index(label)
    if label in DEAD_CLASSES and CellClass.DEAD in classes:
        return classes.index(CellClass.DEAD)
    if label not in DEAD_CLASSES and label != CellClass.LIVE and CellClass.OTHER in classes:
        return classes.index(CellClass.OTHER)
    return None


def match_candidates(
    centers: NDArray[np.float32], cells: tuple[TrueCell, ...], pyramid: Pyramid, settings: LabelSettings
) -> NDArray[np.intp]:
    """Return for each candidate the index of its true cell, -1 for none at all, -2 for in between.

    Parameters
    ----------
    centers : (K, 2) ndarray of float32
        Candidates at working scale.
    cells : tuple of TrueCell
        True cells in pixels of the file.
    pyramid : Pyramid
        Of the file.
    settings : LabelSettings
        The distances.
    """
    if not cells:
        return np.full(len(centers), -1, np.intp)
    true = (np.array([[cell.row, cell.col] for cell in cells]) + 0.5) / pyramid.zoom - 0.5
    radius = np.array([cell.radius_px for cell in cells]) / pyramid.zoom
    radius = np.minimum(radius, settings.radius_max_um / pyramid.um_per_px)
    distance = np.hypot(*np.moveaxis(centers[:, None, :] - true[None], 2, 0)) / np.maximum(radius, 1)
    nearest = distance.argmin(axis=1)
    near = distance.min(axis=1) if len(centers) else np.zeros(0)
    return np.where(near <= settings.on_cell, nearest, np.where(near > settings.clear, -1, -2))


def label_field(
    candidates: Candidates,
    cells: tuple[TrueCell, ...],
    classes: tuple[str, ...],
    settings: LabelSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return the crops of one field and their classes: candidates, then true centers off by jitter."""
    proposed = candidates.centers if settings.candidates else candidates.centers[:0]
    match = match_candidates(proposed, cells, candidates.pyramid, settings)
    class_of_cell = np.array([-2 if (k := class_of(c.label, classes)) is None else k for c in cells], np.intp)
    other = classes.index(CellClass.OTHER) if CellClass.OTHER in classes else -2
    found = np.where(match == -1, other, -2)
    found[match >= 0] = class_of_cell[match[match >= 0]]
    if cells:
        true = (np.array([[c.row, c.col] for c in cells]) + 0.5) / candidates.pyramid.zoom - 0.5
        true = true + rng.uniform(-settings.jitter_px, settings.jitter_px, true.shape)
    else:
        true = np.zeros((0, 2))
    y = np.concatenate([found, class_of_cell])
    centers = np.concatenate([proposed, true])
    kept = y >= 0
    return cut_crops(candidates.relative, centers[kept]), y[kept]


@dataclass(frozen=True, slots=True, eq=False)
class LabeledField:
    """One gray image with its true cells."""

    image: NDArray[np.uint8]
    cells: tuple[TrueCell, ...]
    group: str


def cell_samples(
    fields: Iterable[LabeledField],
    classes: tuple[str, ...],
    *,
    um_per_px: float,
    assay: Assay,
    modality: Modality,
    split: str,
    source: str,
    settings: LabelSettings | None = None,
    seed: int = 0,
) -> Samples:
    """Return labeled crops of all `fields`, hard negatives thinned.

    Parameters
    ----------
    fields : iterable of LabeledField
        Such as `dataset_fields`, or phantoms rendered in memory.
    classes : tuple of str
        Names of `records.CellClass`, in the order of the logits; without `other` no false proposal is kept.
    um_per_px, assay, modality
        Of the images.
    split, source
        Noted in the samples.
    settings : LabelSettings, optional
        How labels are given.
    seed : int
        Of jitter and thinning.

    Returns
    -------
    Samples
        (0, 28, 28) where no field has a candidate or cell.
    """
    settings = settings or LabelSettings()
    rng = np.random.default_rng(seed)
    parts = [
        Samples(
            np.zeros((0, CROP_PX, CROP_PX), np.uint8),
            np.zeros(0, np.intp),
            np.zeros(0, np.str_),
            split,
            source,
            classes,
        )
    ]
    n_cells = 0
    for field in fields:
        candidates = find_candidates(field.image, um_per_px, assay=assay, modality=modality)
        x, y = label_field(candidates, field.cells, classes, settings, rng)
        n_cells += len(field.cells)
        parts.append(Samples(x, y, np.full(len(y), field.group), split, source, classes))
    return _thin_other(join_samples(parts), round(settings.other_per_cell * n_cells), rng)


def dataset_fields(dataset: Dataset, split: str) -> Iterator[LabeledField]:
    """Yield each image of a split with its true cells."""
    for entry in dataset.in_split(split):
        yield LabeledField(
            read_gray(dataset.folder / entry.file), dataset.cells.get(entry.file, ()), entry.group
        )


def dataset_cell_samples(
    dataset: Dataset,
    split: str,
    classes: tuple[str, ...],
    *,
    settings: LabelSettings | None = None,
) -> Samples:
    """Return the labeled crops of one split of a dataset folder (`cell_samples` over its images)."""
    return cell_samples(
        dataset_fields(dataset, split),
        classes,
        um_per_px=dataset.info.scale.um_per_px,
        assay=dataset.info.assay or "adherent",
        modality=dataset.modality,
        split=split,
        source=dataset.folder.name,
        settings=settings,
    )


def bundle_samples(
    kind: str, classes: tuple[str, ...], dataset: Dataset, split: str, *, input_px: int = CROP_PX
) -> Samples:
    """Return what a `cell` or `field` model is judged on: one crop a true cell, or what it sees of fields."""
    if kind == "field":
        return field_samples(dataset, split, view=view_of(input_px))
    judged = LabelSettings(candidates=False, jitter_px=0)
    return dataset_cell_samples(dataset, split, classes, settings=judged)


def field_samples(
    dataset: Dataset,
    split: str,
    *,
    view: FieldView = "relative/2 squeezed",
    unlabeled: bool = False,
) -> Samples:
    """Return whole fields as the field model of the station sees them.

    Parameters
    ----------
    dataset : Dataset
        Its images are read.
    split : str
        One split, or `all`.
    view : str
        At 28x28, or as tiles, each with the label of its field.
    unlabeled : bool
        Keep fields without a label, with class -1; else they are left out.
    """
    fields = true_fields(dataset, split)
    return view_samples(
        (field for field in fields if field[1] or unlabeled),
        view,
        um_per_px=dataset.info.scale.um_per_px,
        split=split,
        source=dataset.folder.name,
    )


def true_fields(dataset: Dataset, split: str) -> Iterator[TrueField]:
    """Yield the fields of a split with the label of each."""
    for entry in dataset.in_split(split):
        yield read_gray(dataset.folder / entry.file), field_label(dataset, entry), entry.group


def view_samples(
    fields: Iterable[TrueField], view: FieldView, *, um_per_px: float, split: str, source: str
) -> Samples:
    """Return what a field model sees of `fields`, each tile with its field's label, -1 for an empty one."""
    side = CROP_PX if view == "relative/2 squeezed" else TILE_PX
    x, whole, group = [np.zeros((0, side, side), np.uint8)], [], []
    for number, (image, label, name) in enumerate(fields):
        x.append(view_field(flatten(build_pyramid(image, um_per_px)), view))
        whole += [(number, FIELD_LABELS.index(label) if label else -1)] * len(x[-1])
        group += [name] * len(x[-1])
    return _tiles(np.concatenate(x), [y for _, y in whole], group, split, source, whole)


def field_input(image: NDArray[np.uint8], um_per_px: float) -> NDArray[np.uint8]:
    """Return a gray field as the (1, 28, 28) input of the field model, made as `assess` makes it."""
    return view_field(flatten(build_pyramid(image, um_per_px)), "relative/2 squeezed")


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
        yield seen, inside, true_density([(c.label, y - row, x - col) for c, y, x in places], limit)


def true_density(cells: list[tuple[str, float, float]], limit: float) -> NDArray[np.float32]:
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


def true_label(cells: Iterable[TrueCell], assay: Assay | None) -> str:
    """Return `toxic` or `non_toxic` by the share of dead among true cells, an empty text where none are."""
    labels = [cell.label for cell in cells if cell.label in (CellClass.LIVE, *DEAD_CLASSES)]
    if not labels:
        return ""
    affected = sum(label in DEAD_CLASSES for label in labels) / len(labels)
    return FIELD_LABELS[affected > TOXIC_ABOVE[assay]]


def field_label(dataset: Dataset, entry: Entry) -> str:
    """Return the label of the manifest, else that of the true dead fraction, else an empty text."""
    return entry.label or true_label(dataset.cells.get(entry.file, ()), dataset.info.assay)


def _thin_other(samples: Samples, limit: int, rng: np.random.Generator) -> Samples:
    if CellClass.OTHER not in samples.classes:
        return samples
    other = np.flatnonzero(samples.y == samples.classes.index(CellClass.OTHER))
    dropped = rng.permutation(other)[limit:]
    return samples.take(np.setdiff1d(np.arange(len(samples)), dropped))
