"""From a recipe and its images to a run and a bundle: the way of `fit`, `cotrain` and `tools/make-models`."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from device.analysis.pyramid import WORKING_UM_PER_PX, build_pyramid
from device.analysis.quality import FocusReference, limits_for, measure_quality, reference_from
from device.errors import ConfigError
from device.model_card import DataSource, Scalar
from device.plates import file_sha256
from device.records import Assay, CellClass, Scale
from training.dataset import FIELD_LABELS, MANIFEST, Dataset
from training.dataset.apart import find_copies_of, require_apart
from training.dataset.blend import blend_rounded
from training.dataset.samples import Samples, join_samples
from training.fields import field_samples
from training.fitting import FitSettings, Fitted, fit_network
from training.gan import GENERATED
from training.labeling import LabeledField, cell_samples, dataset_fields
from training.provenance import RENDERED, SIMULATED, Run, RunSamples, tool_versions, write_run
from training.recipes import BlendSettings, Recipe
from training.rendered import RENDERED_SCALE, rendered_fields

Progress = Callable[[str], None]
GanGate = Mapping[str, Scalar]
"""What a card says of generated images."""
N_REPRESENTATIVE = 500
"""Crops that the int8 ranges are measured on."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a recipe's images give: samples to fit and choose on, and what the card says of them."""

    train: Samples
    val: Samples
    scale: Scale
    sources: tuple[DataSource, ...]
    reference_quality: FocusReference | None


def improvise(
    dataset: Dataset, *, unit: str | None, classes: str | None, assay: Assay | None, fit: FitSettings
) -> Recipe:
    """Return the recipe that a command line asks for, without a file.

    Parameters
    ----------
    dataset : Dataset
        Tells what is not asked for: `cell` where it lists cells; live, its dead classes and other; its assay.
    unit : {"cell", "field"} or None
    classes : str or None
        Comma-separated.
    assay : {"adherent", "suspension"} or None
    fit : FitSettings
    """
    found = {cell.label for cells in dataset.cells.values() for cell in cells}
    dead = [str(c) for c in (CellClass.DEAD, CellClass.ROUNDED, CellClass.LYSED) if c in found]
    kind: Literal["cell", "field"] = (
        "field" if unit == "field" or (unit is None and not dataset.cells) else "cell"
    )
    names = tuple(classes.split(",")) if classes else ("live", *dead, "other")
    unknown = [name for name in names if name not in set(CellClass)]
    if unknown:
        raise ConfigError(
            f"unknown class {', '.join(unknown)}; expected some of {', '.join(CellClass)} (--classes)"
        )
    assay = assay or dataset.info.assay
    if assay is None:
        raise ConfigError(f"{dataset.folder} states no assay; expected --assay adherent or suspension")
    return Recipe(
        name=dataset.folder.name,
        kind=kind,
        scope=f"{kind} model fitted to {dataset.folder.name}; research use only",
        assay=assay,
        modality=dataset.modality,
        classes=FIELD_LABELS if kind == "field" else names,
        source=dataset.folder.name,
        limits=("made on a command line and judged by nobody yet",),
        attribution=(f"{dataset.info.origin}; {dataset.info.licence}",),
        fit=fit,
    )


def prepare(recipe: Recipe, dataset: Dataset | None, progress: Progress) -> Material:
    """Return the samples of a recipe: from a dataset folder, blended, rendered.

    Raises
    ------
    ConfigError
        If the recipe needs a dataset and there is none, the dataset does not fit it, or split val shares a
        group with split train. Copies of training images are left out of split val.
    """
    if dataset is None and recipe.source != "rendered":
        raise ConfigError(
            f"recipe {recipe.name} needs a {recipe.source} dataset; expected --source DIR "
            f"(make one with `nanotox-train data import {recipe.source} SRC --out DIR`)"
        )
    if dataset is not None and dataset.modality != recipe.modality:
        raise ConfigError(
            f"{dataset.folder} holds {dataset.modality} images; expected {recipe.modality} "
            f"by recipe {recipe.name}"
        )
    if recipe.kind == "field" and dataset is not None:
        train, val = (field_samples(dataset, split) for split in ("train", "val"))
        val = drop_copies(train, val, progress)
        scale = dataset.info.scale
        sharp = measure_reference(recipe, dataset_fields(dataset, "train"), scale)
        return Material(train, val, scale, (describe_source(dataset, len(train)),), sharp)
    parts: dict[str, list[Samples]] = {"train": [], "val": []}
    sources: tuple[DataSource, ...] = ()
    sharp, scale = None, RENDERED_SCALE
    for split, several in parts.items():
        for name, fields, scale in recipe_fields(recipe, dataset, split, progress):
            several.append(_cells(recipe, fields, scale.um_per_px, split, name))
            if split == "train":
                sources += (_describe(recipe, dataset, name, fields, len(several[-1])),)
                sharp = measure_reference(recipe, fields, scale) or sharp
    train, val = (join_samples(several) for several in parts.values())
    val = drop_copies(train, val, progress)
    # where both are there, the card's focus is that of the rendered fields: it is the scale of the last ones
    scale = dataset.info.scale if dataset is not None else scale
    return Material(train, val, scale, sources, sharp)


def recipe_fields(
    recipe: Recipe, dataset: Dataset | None, split: str, progress: Progress
) -> Iterator[tuple[str, list[LabeledField], Scale]]:
    """Yield name, fields and scale of each source of a recipe: real (with blended copies), then rendered."""
    if dataset is not None:
        progress(f"reading {dataset.folder.name}, {split}")
        fields = list(dataset_fields(dataset, split))
        if recipe.blend is not None:
            fields += list(blended_fields(fields, recipe.blend, dataset.info.scale.um_per_px))
        yield dataset.folder.name, fields, dataset.info.scale
    if recipe.render is not None:
        progress(f"rendering fields, {split}")
        drawn = rendered_fields(recipe.render, recipe.modality, split)
        yield "rendered", list(tqdm(drawn, disable=None)), RENDERED_SCALE


def blended_fields(
    fields: Iterable[LabeledField], blend: BlendSettings, um_per_px: float, *, outside: bool = False
) -> Iterator[LabeledField]:
    """Yield blended copies of real fields, each with other rounded cells; `outside` as in `blend_rounded`."""
    for index, field in enumerate(fields):
        for copy in range(blend.copies):
            rng = np.random.default_rng((blend.seed, index, copy))
            n = int(rng.integers(blend.rounded[0], blend.rounded[1] + 1))
            image, rounded = blend_rounded(field.image, rng, n, um_per_px, outside=outside, avoid=field.cells)
            yield LabeledField(image, field.cells + rounded, field.group)


def fit_recipe(
    recipe: Recipe,
    material: Material,
    out: Path,
    progress: Progress,
    *,
    start: Sequence[NDArray[np.float32]] | None = None,
    generated: Samples | None = None,
    gan_gate: GanGate | None = None,
) -> Fitted:
    """Fit the network of a recipe (from `start` as in `fit_network`), write the run and return the fit.

    Images `generated` by a GAN train beside the real ones, and nothing else sees them.

    Raises
    ------
    ConfigError
        If the training or validation samples lack a class.
    """
    require_classes(material.train, material.val)
    progress(f"fitting {recipe.fit.learner} on {material.train.count()}, validation {material.val.count()}")
    train = join_samples([material.train, generated]) if generated else material.train
    fitted = fit_network(train, material.val, recipe.fit, progress, start=start)
    write_fit(recipe, material, fitted, out, gan_gate=gan_gate)
    return fitted


def drop_copies(train: Samples, val: Samples, progress: Progress) -> Samples:
    """Return `val` without images that train; ConfigError where it shares a group or holds generated ones."""
    copies = find_copies_of(train, val)
    if copies.any():
        progress(f"{copies.sum()} of {len(val)} validation samples are copies of training ones: left out")
    kept = val.take(~copies)
    require_apart(train, kept)
    return kept


def require_classes(*several: Samples) -> None:
    """Raise ConfigError where one of them lacks a class."""
    for samples in several:
        empty = [name for name, n in samples.count().items() if n == 0]
        if empty:
            raise ConfigError(
                f"split {samples.split} of {samples.source} has no {', '.join(empty)}; expected some of each "
                f"class: {', '.join(samples.classes)} (found {samples.count()}; --classes names others)"
            )


def write_fit(
    recipe: Recipe,
    material: Material,
    fitted: Fitted,
    out: Path,
    *,
    gan_gate: GanGate | None = None,
) -> None:
    """Write a fitted network as a run folder; a ValueError where its crops for the export are generated."""
    if GENERATED in {material.train.source, *material.train.group.tolist(), *material.val.group.tolist()}:
        raise ValueError("generated images among those that int8 is measured on; expected real ones")
    run = Run(
        kind=recipe.kind,
        learner=recipe.fit.learner,
        classes=recipe.classes,
        scope=recipe.scope,
        assay=recipe.assay,
        modality=recipe.modality,
        um_per_px=WORKING_UM_PER_PX,
        um_per_px_source=material.scale.source,
        temperature=fitted.temperature,
        seed=recipe.fit.seed,
        reference_quality=material.reference_quality,
        data=material.sources,
        recipe=recipe.id,
        metrics={},
        gan_gate=gan_gate,
        limits=recipe.limits,
        attribution=recipe.attribution,
        history=tuple(
            {k: v if math.isfinite(v) else None for k, v in epoch.items()} for epoch in fitted.history
        ),
        made_with=tool_versions(),
    )
    chosen = representative(material.train, recipe.fit.seed)
    val = material.val
    write_run(out, run, RunSamples(chosen.x, val.x, val.y, val.whole), fitted.model)


def representative(train: Samples, seed: int) -> Samples:
    """Return up to 500 samples, classes in balance, for the ranges of int8."""
    rng = np.random.default_rng(seed)
    classes = np.unique(train.y)
    share = -(-N_REPRESENTATIVE // len(classes))
    return train.take(
        np.concatenate([rng.permutation(np.flatnonzero(train.y == k))[:share] for k in classes])
    )


def measure_reference(recipe: Recipe, fields: Iterable[LabeledField], scale: Scale) -> FocusReference | None:
    """Return the focus that the station's gate measures over fields that pass it, None where none does."""
    limits = limits_for(recipe.assay, recipe.modality)
    measured = [measure_quality(build_pyramid(f.image, scale.um_per_px), scale, limits) for f in fields]
    usable = [quality for quality in measured if quality.passed and quality.focus_slope is not None]
    return reference_from(usable) if usable else None


def describe_source(dataset: Dataset, n: int) -> DataSource:
    """Return how a card names a dataset of which `n` samples were used."""
    sha256 = file_sha256(dataset.folder / MANIFEST)
    origin = f"{SIMULATED}: {dataset.info.origin}" if dataset.info.simulated else dataset.info.origin
    return DataSource(dataset.folder.name, sha256, origin, dataset.info.licence, n)


def _describe(
    recipe: Recipe, dataset: Dataset | None, name: str, fields: Iterable[LabeledField], n: int
) -> DataSource:
    if dataset is not None and name == dataset.folder.name:
        return describe_source(dataset, n)
    settings = json.dumps(asdict(recipe)["render"], sort_keys=True).encode()
    sha256 = hashlib.sha256(settings + b"".join(field.image.tobytes() for field in fields)).hexdigest()
    return DataSource(name, sha256, RENDERED, "Apache-2.0", n)


def _cells(
    recipe: Recipe, fields: Iterable[LabeledField], um_per_px: float, split: str, source: str
) -> Samples:
    return cell_samples(
        fields,
        recipe.classes,
        um_per_px=um_per_px,
        assay=recipe.assay,
        modality=recipe.modality,
        split=split,
        source=source,
        settings=recipe.label,
        seed=recipe.fit.seed,
    )
