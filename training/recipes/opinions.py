"""What field models are worth: what the path of the station makes of true fields, and which may speak."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from device.analysis.assess import assess
from device.classifier import open_cell_classifier, open_field_classifier
from device.model_card import Bundle, Card, settings_from_card
from device.model_card.opinions import RENDERED_ONLY, Metric, opinion_on
from device.models import default_bundle
from device.records import Assay, Frame, Modality, Scale
from training.evaluation.binary import measure, rank_auc
from training.export.acceptance import NO_TIME
from training.fields import TOXIC_ABOVE, TrueField, true_label
from training.labeling import LabeledField
from training.recipes import Recipe
from training.recipes.field import Progress, RealImages, field_sets


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


def with_opinions(bundle: Bundle, recipe: Recipe, real: RealImages, progress: Progress) -> Card:
    """Return the bundle's card with its worth, and the calibration, on each kind of images.

    Fields of split val are read as a station reads them, by the shipped cell model. Where there are both
    rendered fields and such with something real in them, these decide whether it may speak, and both
    calibrate it.
    """
    kinds: dict[tuple[Assay, Modality], list[JudgedFields]] = {}
    for found in field_sets(recipe, real, "val", progress):
        judged = judge_fields(
            truths(found.fields, found.assay), found.scale, bundle, found.assay, found.modality, found.data
        )
        if len(set(judged.toxic.tolist())) == 2:
            kinds.setdefault((found.assay, found.modality), []).append(judged)
    metrics, opinions = {}, []
    for (assay, modality), several in kinds.items():
        calibrated, temperature, offset = calibrate(several, bundle.card.temperature)
        # the last are those with the most real in them
        for judged in sorted(calibrated, key=lambda judged: not judged.data.startswith(RENDERED_ONLY)):
            rendered = judged.data.startswith(RENDERED_ONLY) and len(several) > 1
            scores = score_judged(judged)
            for name, figures in scores.items():
                for key, metric in figures.items():
                    metrics[f"{key}_{name}_{assay}_{modality}{'_rendered' * rendered}"] = metric
                    progress(f"{judged.data}: {name} {key} {metric.value:.3f} ({metric.low}, {metric.high})")
        auc = scores["field_model"]["auc"]
        opinions.append(opinion_on(assay, modality, auc, temperature, offset))
    return replace(bundle.card, metrics=metrics, opinions=tuple(opinions))


def calibrate(several: Sequence[JudgedFields], temperature: float) -> tuple[list[JudgedFields], float, float]:
    """Return sets of fields with calibrated p_toxic, and the temperature and offset that do it for all.

    `temperature` is the one that `p_toxic` has now. The offset is needed because tiles hold few cells: a mean
    over tiles does not cross zero where the field crosses its limit. Each set weighs the same.
    """
    logits = np.concatenate([temperature * _log_odds(judged.p_toxic) for judged in several])
    sign = np.concatenate([np.where(judged.toxic, 1.0, -1.0) for judged in several])
    weight = np.concatenate([np.full(len(judged.toxic), 1 / len(judged.toxic)) for judged in several])

    def nll(x: NDArray[np.float64]) -> float:
        return float(weight @ np.logaddexp(0, -sign * (logits - x[1]) / np.exp(x[0])))

    # within e^-3 to e^2: fields that are told apart without an error would ask for certainty
    found = minimize(nll, (0.0, float(np.median(logits))), bounds=((-3, 2), (-10, 10)), method="L-BFGS-B")
    new, offset = float(np.exp(found.x[0])), float(found.x[1])
    calibrated = [
        replace(judged, p_toxic=expit((temperature * _log_odds(judged.p_toxic) - offset) / new))
        for judged in several
    ]
    return calibrated, new, offset


def _log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(p, 1e-6, 1 - 1e-6)), np.float64)
