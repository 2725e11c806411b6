"""Field models: samples of several kinds of images, and what the station's path makes of whole fields."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from device.analysis.assess import assess
from device.classifier import open_cell_classifier, open_field_classifier
from device.errors import ConfigError
from device.model_card import Bundle, Card, DataSource, Metric, opinion_on, settings_from_card
from device.models import default_bundle
from device.records import Assay, Frame, Modality, Scale
from training.dataset import Dataset
from training.dataset.samples import join_samples
from training.evaluation.binary import measure, rank_auc
from training.export.acceptance import NO_TIME
from training.fields import TOXIC_ABOVE, TrueField, tile_samples, true_label
from training.labeling import LabeledField, dataset_fields
from training.recipes import FieldSettings, Recipe
from training.recipes.make import Material, describe_source
from training.recipes.mosaics import draw_mosaics
from training.rendered import RENDERED_SCALE, rendered_fields

Progress = Callable[[str], None]


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


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFields:
    """What the station's path says of fields whose truth is known; refused fields are left out."""

    p_toxic: NDArray[np.float64]
    """(N,) of the field model."""
    affected: NDArray[np.float64]
    """(N,) share of affected cells that it counted, 0 where it found none."""
    toxic: NDArray[np.bool_]
    groups: tuple[str, ...]
    limit: float
    """Affected share above which the count rule calls a field toxic."""
    n_refused: int
    """Fields that the quality gate refused, or that are too small for the field model."""
    data: str


def field_sets(recipe: Recipe, dataset: Dataset | None, split: str, progress: Progress) -> Iterator[FieldSet]:
    """Yield the fields of each kind that a recipe names: rendered ones, and mosaics of a chamber set.

    Raises
    ------
    ConfigError
        If there is no dataset for the mosaics.
    """
    settings = recipe.field or FieldSettings()
    for kind in settings.kinds:
        if kind == "suspension brightfield":
            yield _mosaics(recipe, settings, dataset, split, progress)
            continue
        modality: Modality = "phase" if kind == "adherent phase" else "brightfield"
        if recipe.render is None:
            raise ConfigError(f"recipe {recipe.name} has no table render; expected one for {kind}")
        progress(f"rendering {modality} fields, {split}")
        fields = tuple(rendered_fields(recipe.render, modality, split))
        name = f"rendered-{modality}"
        sha256 = hashlib.sha256(b"".join(field.image.tobytes() for field in fields)).hexdigest()
        origin = "rendered by device.analysis.phantom"
        source = DataSource(name, sha256, origin, "Apache-2.0", len(fields))
        yield FieldSet("adherent", modality, RENDERED_SCALE, fields, f"synthetic: {name}, {split}", source)


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


def field_material(recipe: Recipe, dataset: Dataset | None, progress: Progress) -> Material:
    """Return the samples of a field recipe, every kind of images in turn."""
    view = (recipe.field or FieldSettings()).view
    sets = {split: list(field_sets(recipe, dataset, split, progress)) for split in ("train", "val")}
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
    scale = dataset.info.scale if dataset is not None else RENDERED_SCALE
    return Material(train, val, scale, tuple(s.source for s in sets["train"]), None)


def judge_fields(
    fields: Iterable[TrueField],
    scale: Scale,
    bundle: Bundle,
    assay: Assay,
    modality: Modality,
    data: str,
) -> JudgedFields:
    """Return what `assess` says of fields whose truth is known.

    Cells are counted by the shipped cell model of `assay` and `modality`; `data` says which images they are.
    """
    cells = default_bundle(assay, modality)
    settings = settings_from_card(cells.card)
    classify, classify_field = (
        open_cell_classifier(cells),
        open_field_classifier(bundle, bundle.card.opinion(assay, modality)),
    )
    kept, n_refused = [], 0
    for sequence, (image, label, group) in enumerate(fields):
        frame = Frame(image, NO_TIME, group, sequence, scale)
        reading = assess(frame, classify, settings, classify_field=classify_field)
        if reading.p_toxic is None:
            n_refused += 1
        else:
            kept.append((reading.p_toxic, reading.affected or 0.0, label == "toxic", group))
    p_toxic, affected, toxics, groups = zip(*kept, strict=True) if kept else ((), (), (), ())
    return JudgedFields(
        np.array(p_toxic, np.float64),
        np.array(affected, np.float64),
        np.array(toxics, bool),
        tuple(groups),
        TOXIC_ABOVE[assay],
        n_refused,
        data,
    )


def truths(fields: Iterable[LabeledField], assay: Assay) -> Iterator[TrueField]:
    """Yield fields with their label by true cells; those without cells are left out."""
    for field in fields:
        label = true_label(field.cells, assay)
        if label:
            yield field.image, label, field.group


def score_judged(judged: JudgedFields) -> dict[str, dict[str, Metric]]:
    """Return AUC and balanced accuracy, with intervals over groups, of the field model and of the count rule.

    Empty where there is no field of one of the two kinds.
    """
    if len(set(judged.toxic.tolist())) < 2:
        return {}
    said = {
        "field_model": (judged.p_toxic, judged.p_toxic >= 0.5),
        "count_rule": (judged.affected, judged.affected > judged.limit),
    }
    about = (judged.toxic, judged.groups, judged.data)
    return {
        name: {
            "auc": measure(rank_auc, scores, *about),
            "balanced_accuracy": measure(rank_auc, called.astype(np.float64), *about),
        }
        for name, (scores, called) in said.items()  # of a yes or no, the AUC is the balanced accuracy
    }


def with_opinions(bundle: Bundle, recipe: Recipe, dataset: Dataset | None, progress: Progress) -> Card:
    """Return the bundle's card with its worth, and the calibration, on each kind of images.

    Fields of split val are read as a station reads them, by the shipped cell model.
    """
    metrics, opinions = {}, []
    for found in field_sets(recipe, dataset, "val", progress):
        judged = judge_fields(
            truths(found.fields, found.assay), found.scale, bundle, found.assay, found.modality, found.data
        )
        if len(set(judged.toxic.tolist())) < 2:
            continue
        judged, temperature, offset = calibrate(judged, bundle.card.temperature)
        scores = score_judged(judged)
        for name, figures in scores.items():
            for key, metric in figures.items():
                metrics[f"{key}_{name}_{found.assay}_{found.modality}"] = metric
                progress(f"{found.data}: {name} {key} {metric.value:.3f} ({metric.low}, {metric.high})")
        auc = scores["field_model"]["auc"]
        opinions.append(opinion_on(found.assay, found.modality, auc, temperature, offset))
    return replace(bundle.card, metrics=metrics, opinions=tuple(opinions))


def calibrate(judged: JudgedFields, temperature: float) -> tuple[JudgedFields, float, float]:
    """Return the fields with calibrated p_toxic, and the temperature and offset that do it.

    `temperature` is the one that `p_toxic` has now. The offset is needed because tiles hold few cells: a mean
    over tiles does not cross zero where the field crosses its limit.
    """
    p = np.clip(judged.p_toxic, 1e-6, 1 - 1e-6)
    logits = temperature * np.log(p / (1 - p))
    sign = np.where(judged.toxic, 1.0, -1.0)

    def nll(x: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -sign * (logits - x[1]) / np.exp(x[0])).mean())

    # within e^-3 to e^2: fields that are told apart without an error would ask for certainty
    found = minimize(nll, (0.0, float(np.median(logits))), bounds=((-3, 2), (-10, 10)), method="L-BFGS-B")
    new, offset = float(np.exp(found.x[0])), float(found.x[1])
    calibrated = 1 / (1 + np.exp(-(logits - offset) / new))
    return replace(judged, p_toxic=calibrated), new, offset
