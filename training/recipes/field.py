"""What field models learn from: fields of several kinds of images, rendered, blended and of a chamber."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from device.errors import ConfigError
from device.model_card import DataSource
from device.model_card.opinions import RENDERED_ONLY
from device.records import Assay, Modality, Scale
from training.dataset import Dataset
from training.dataset.samples import join_samples
from training.fields import tile_samples
from training.labeling import LabeledField, dataset_fields
from training.provenance import RENDERED
from training.recipes import BlendSettings, FieldSettings, Recipe
from training.recipes.make import Material, blended_fields, describe_source
from training.recipes.mosaics import draw_mosaics
from training.rendered import RENDERED_SCALE, rendered_fields

Progress = Callable[[str], None]
FIELD_ROUNDED = (3, 110)
"""Fewest and most rounded cells in a blended copy of a field of 660 um: about half of them are toxic."""


@dataclass(frozen=True, slots=True)
class FieldSet:
    """Fields of one kind of images."""

    assay: Assay
    modality: Modality
    scale: Scale
    fields: tuple[LabeledField, ...]
    data: str
    """As a card says it: synthetic, semi-synthetic or real, set and split."""
    source: DataSource


@dataclass(frozen=True, slots=True)
class RealImages:
    """The datasets that a field recipe names."""

    chamber: Dataset | None = None
    """Of kind `Recipe.source`, for mosaics."""
    healthy: Dataset | None = None
    """Of kind `FieldSettings.healthy`."""


def field_sets(recipe: Recipe, real: RealImages, split: str, progress: Progress) -> Iterator[FieldSet]:
    """Yield the fields of each kind that a recipe names: mosaics, rendered fields, blended ones.

    Raises
    ------
    ConfigError
        If a dataset is missing.
    """
    settings = recipe.field or FieldSettings()
    for kind in settings.kinds:
        if kind == "suspension brightfield":
            yield _mosaics(recipe, settings, real.chamber, split, progress)
            continue
        modality: Modality = "phase" if kind == "adherent phase" else "brightfield"
        if recipe.render is None:
            raise ConfigError(f"recipe {recipe.name} has no table render; expected one for {kind}")
        progress(f"rendering {modality} fields, {split}")
        fields = tuple(rendered_fields(recipe.render, modality, split))
        name = f"rendered-{modality}"
        sha256 = hashlib.sha256(b"".join(field.image.tobytes() for field in fields)).hexdigest()
        source = DataSource(name, sha256, RENDERED, "Apache-2.0", len(fields))
        data = f"{RENDERED_ONLY}: {name}, {split}"
        yield FieldSet("adherent", modality, RENDERED_SCALE, fields, data, source)
    if settings.healthy:
        yield _blended(recipe, settings.healthy, real.healthy, split, progress)


def half_blended(dataset: Dataset, blend: BlendSettings, split: str) -> tuple[list[LabeledField], str]:
    """Return healthy fields with the blended copies of each, and what a card says they are.

    A field and its copies are a group of their own: the splits keep apart what shares its dirt, and within
    one it is the cells that count. Fields that are judged show a microscope that none in training has.
    ConfigError if the cells do not fit into the fields.
    """
    fields = list(dataset_fields(dataset, split))
    outside = split != "train"
    try:
        copies = list(blended_fields(fields, blend, dataset.info.scale.um_per_px, outside=outside))
    except ValueError as error:
        raise ConfigError(
            f"{dataset.folder.name}: up to {blend.rounded[1]} rounded cells are blended into a field, but "
            f"{error}; expected fields of 500 um or more"
        ) from error
    of = [number // blend.copies for number in range(len(copies))] if blend.copies else []
    several = zip([*fields, *copies], [*range(len(fields)), *of], strict=True)
    grouped = [replace(field, group=f"{field.group}-{number}") for field, number in several]
    data = f"semi-synthetic: {len(fields)} healthy fields of {dataset.folder.name}, {split}"
    return grouped, f"{data}, and {len(copies)} copies with rounded cells blended in"


def _blended(recipe: Recipe, kind: str, dataset: Dataset | None, split: str, progress: Progress) -> FieldSet:
    if dataset is None:
        raise ConfigError(f"recipe {recipe.name} needs a {kind} dataset; expected --healthy DIR")
    progress(f"blending rounded cells into fields of {dataset.folder.name}, {split}")
    fields, data = half_blended(dataset, recipe.blend or BlendSettings(rounded=FIELD_ROUNDED), split)
    source = describe_source(dataset, len(fields))
    return FieldSet("adherent", dataset.modality, dataset.info.scale, tuple(fields), data, source)


def _mosaics(
    recipe: Recipe, settings: FieldSettings, dataset: Dataset | None, split: str, progress: Progress
) -> FieldSet:
    if dataset is None:
        raise ConfigError(f"recipe {recipe.name} needs a {recipe.source} dataset; expected --source DIR")
    progress(f"drawing mosaics of {dataset.folder.name}, {split}")
    tiles = dataset_fields(dataset, split)
    count, pools = (settings.mosaics, 1) if split == "train" else (settings.val_mosaics, settings.pools)
    fields = tuple(draw_mosaics(tiles, count, pools=pools, seed=recipe.fit.seed))
    data = f"real: mosaics of 16 tiles of {dataset.folder.name}, {split}, {pools} pools"
    source = describe_source(dataset, len(fields))
    return FieldSet("suspension", dataset.modality, dataset.info.scale, fields, data, source)


def field_material(recipe: Recipe, real: RealImages, progress: Progress) -> Material:
    """Return the samples of a field recipe, every kind of images in turn."""
    view = (recipe.field or FieldSettings()).view
    sets = {split: list(field_sets(recipe, real, split, progress)) for split in ("train", "val")}
    train, val = (
        join_samples(
            [
                tile_samples(
                    s.fields,
                    view,
                    um_per_px=s.scale.um_per_px,
                    assay=s.assay,
                    split=split,
                    source=s.source.name,
                )
                for s in several
            ]
        )
        for split, several in sets.items()
    )
    scale = real.chamber.info.scale if real.chamber is not None else RENDERED_SCALE
    return Material(train, val, scale, tuple(s.source for s in sets["train"]), None)
