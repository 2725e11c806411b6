"""Labeled 28x28 crops, cut by the very functions of the station; whole fields are those of `training.fields`.

A candidate of `device.analysis.propose` on a true cell gets that cell's class; one that lies clear of all is
`other`, a false proposal that the model must learn to drop.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.analysis.crops import CROP_PX, cut_crops
from device.analysis.flatten import flatten
from device.analysis.proposals import propose
from device.analysis.pyramid import Pyramid, build_pyramid, halve
from device.analysis.segmentation import find_foreground
from device.images import read_gray
from device.records import DEAD_CLASSES, Assay, CellClass, Modality
from training.dataset import Dataset, TrueCell
from training.dataset.samples import Samples, join_samples


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


def centers_of(cells: Iterable[TrueCell]) -> NDArray[np.float64]:
    """Return (K, 2) rows and columns of true cells, px of the file."""
    return np.array([[cell.row, cell.col] for cell in cells], np.float64).reshape(-1, 2)


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
    centers = propose(coarse, foreground, assay=assay, modality=modality, um_per_px=coarse_um)
    return Candidates(pyramid, relative, centers)


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
    true = pyramid.from_frame(centers_of(cells))
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
    true = candidates.pyramid.from_frame(centers_of(cells))
    true = true + rng.uniform(-settings.jitter_px, settings.jitter_px, true.shape)
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
    none = np.zeros((0, CROP_PX, CROP_PX), np.uint8), np.zeros(0, np.intp), np.zeros(0, np.str_)
    parts = [Samples(*none, split, source, classes)]
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


def _thin_other(samples: Samples, limit: int, rng: np.random.Generator) -> Samples:
    if CellClass.OTHER not in samples.classes:
        return samples
    other = np.flatnonzero(samples.y == samples.classes.index(CellClass.OTHER))
    dropped = rng.permutation(other)[limit:]
    return samples.take(np.setdiff1d(np.arange(len(samples)), dropped))
