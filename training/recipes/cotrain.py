"""Profiles `robust` and `fixmatch` of `cotrain`: learners from few labels, beside each of them alone."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device.classifier import softmax
from training.cotraining.contrast import ContrastSettings, cell_views, learn_embedding
from training.cotraining.fixmatch import FixMatchSettings, fit_fixmatch
from training.cotraining.paper import choose_labeled
from training.cotraining.robust import (
    RobustCoTraining,
    RobustRound,
    RobustSettings,
    check_start,
    co_train_robust,
)
from training.cotraining.trust import Fit, Logits
from training.dataset.apart import require_apart
from training.dataset.samples import Samples, join_samples
from training.evaluation.binary import BinaryScores
from training.export.acceptance import score_crops
from training.fitting import FitSettings, fit_network, predict_symmetric
from training.recipes import Recipe
from training.recipes.make import Material, Progress, require_classes, write_fit
from training.recipes.paper import draw_samples

if TYPE_CHECKING:
    import keras

View = tuple[str, Fit]
"""Name and fit of a learner."""


@dataclass(frozen=True, slots=True)
class RobustOptions:
    """What `cotrain` was asked for, the paper's profile aside; each field one line: meaning, unit, range."""

    n_labeled: int = 35
    """Labels in all, > 1."""
    max_unlabeled: int = 300
    """Unlabeled samples at most, > 0."""
    seed: int = 0
    """Of the choice of labels, the split and all fits."""
    shares: tuple[float, ...] | None = None
    """Of classes among the unlabeled samples where they are known; else they are estimated."""
    loop: RobustSettings = field(default_factory=RobustSettings)
    """Thresholds and limits of the rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class RobustOutcome:
    """What the profile gave."""

    co_training: RobustCoTraining
    pseudo_right: float | None
    """Share of I_F that agrees with the labels forgotten; None if it has none of those."""
    scores: Mapping[str, BinaryScores]
    """Of both learners with all labels, alone and co-trained, on samples that nothing was chosen by."""


def co_train_material_robust(
    recipe: Recipe,
    material: Material,
    judged: Samples,
    options: RobustOptions,
    out: Path,
    progress: Progress,
    *,
    unlabeled: Samples | None = None,
    views: tuple[View, View] | None = None,
    floors: Mapping[str, Logits] | None = None,
) -> RobustOutcome:
    """Keep the labels of some samples, co-train, and write run, options, log and metrics to `out`.

    Parameters
    ----------
    recipe : Recipe
        Its `fit` is that of the network.
    material : Material
        Split train is chosen from; split val only goes into the run, for its export.
    judged : Samples
        What the four learners are scored on.
    options : RobustOptions
        How much is labeled, and the loop.
    out : Path
        Run folder.
    progress : callable
        Called with one line of text at a time.
    unlabeled : Samples, optional
        What nobody labeled; it joins the samples whose labels are forgotten.
    views : pair of (str, Fit), optional
        Names and fits of the two learners, the second the quicker; by default a line through an embedding
        that all samples teach without labels, and trees and a kernel machine on texture and shape.
    floors : mapping of str to Logits, optional
        What learned nothing here and is scored beside the learners.

    Raises
    ------
    ConfigError
        If a class has no label, nothing is unlabeled, or `judged` is not apart from split train.

    Notes
    -----
    Co-trained learners stand beside learners that had the same labels and nothing else. Theirs are shifted to
    the shares of the classes; the network of the run is not, and the export calibrates it on split val.
    """
    require_classes(material.train, material.val)
    labeled, unlabeled = forget_labels(material.train, judged, options, unlabeled, progress)
    check_start(labeled, unlabeled)  # before the minutes that an embedding takes
    (name_a, fit_a), (name_b, fit_b) = views or _name_cell_views(labeled, unlabeled, options.seed, progress)
    found = co_train_robust(
        labeled,
        unlabeled,
        fit_a=fit_a,
        fit_b=fit_b,
        quick=fit_b,
        settings=options.loop,
        progress=progress,
        shares=None if options.shares is None else np.array(options.shares),
    )
    progress(f"shares of {', '.join(labeled.classes)}: {', '.join(f'{share:.2f}' for share in found.shares)}")
    both = join_samples([labeled, found.pseudo_labeled])
    # I_F has the classes in their shares: drawn in balance the network would call too many of the rarer again
    fitted = fit_network(both, None, replace(recipe.fit, balanced=len(found.pseudo) == 0))
    write_fit(recipe, replace(material, train=both), fitted, out)
    network = recipe.fit.learner
    learners: dict[str, Logits] = {
        f"{name_a} alone": fit_a(labeled, 0),
        f"{name_b} alone": fit_b(labeled, 0),
        f"{name_a} co-trained": found.one[0],
        f"{name_b} co-trained": found.one[1],
        "both co-trained": found.both,
        f"{network} with labels alone": network_logits(fit_network(labeled, None, recipe.fit).model),
        f"{network} with I_F too": network_logits(fitted.model),
        **(floors or {}),
    }
    scores = {name: _score(logits, judged) for name, logits in learners.items()}
    right = [label == unlabeled.y[i] for i, label in found.pseudo.items() if unlabeled.y[i] >= 0]
    outcome = RobustOutcome(found, float(np.mean(right)) if right else None, scores)
    metrics = _score_document(judged, scores) | {
        "best_round": found.best_round + 1,
        "ending": found.ending,
        "n_pseudo_labeled": len(found.pseudo),
        "shares": found.shares.round(4).tolist(),
        "pseudo_right": outcome.pseudo_right,
    }
    chosen = {"profile": "robust", "learners": [name_a, name_b], **asdict(options), "fit": asdict(recipe.fit)}
    _write(out, chosen, metrics, [_row(step, judged.classes) for step in found.rounds])
    return outcome


def forget_labels(
    train: Samples, judged: Samples, options: RobustOptions, more: Samples | None, progress: Progress
) -> tuple[Samples, Samples]:
    """Return the labeled samples of a budget, and of all others, `more` among them, those that are used.

    Raises
    ------
    ConfigError
        If `judged` is not apart from them.
    """
    labeled, rest = choose_labeled(train, options.n_labeled, options.seed)
    rest = rest if more is None else join_samples([rest, more])
    require_apart(join_samples([labeled, rest]), judged)
    unlabeled = draw_samples(rest, options.max_unlabeled, options.seed)
    progress(f"labeled {labeled.count()}, unlabeled {len(unlabeled)}")
    return labeled, unlabeled


def fit_material_fixmatch(
    recipe: Recipe,
    material: Material,
    judged: Samples,
    options: RobustOptions,
    out: Path,
    progress: Progress,
    *,
    unlabeled: Samples | None = None,
) -> Mapping[str, BinaryScores]:
    """Fit a network by FixMatch, write its run with options, log and metrics, and return the scores.

    Parameters are those of `co_train_material_robust`; of the options only the numbers of samples and the
    seed count. All labels are fitted to: the temperature stays 1 until the export fits it on split val.
    """
    labeled, unlabeled = forget_labels(material.train, judged, options, unlabeled, progress)
    settings = FixMatchSettings(recipe.fit)
    fitted = fit_fixmatch(labeled, unlabeled, settings, progress)
    write_fit(recipe, replace(material, train=labeled), fitted, out)
    alone = fit_network(labeled, None, recipe.fit)
    learners = {f"{recipe.fit.learner} alone": alone, f"{recipe.fit.learner} by FixMatch": fitted}
    scores = {name: _score(learner.logits, judged) for name, learner in learners.items()}
    rows: list[dict[str, object]] = [
        {"epoch": i + 1, "loss": row["loss"], "sure": row["sure"]} for i, row in enumerate(fitted.history)
    ]
    chosen = {
        "profile": "fixmatch",
        "n_labeled": len(labeled),
        "n_unlabeled": len(unlabeled),
        **asdict(settings),
    }
    _write(out, chosen, _score_document(judged, scores), rows)
    return scores


def _name_cell_views(
    labeled: Samples, unlabeled: Samples, seed: int, progress: Progress
) -> tuple[View, View]:
    progress("learning an embedding of all crops, without labels")
    crops = np.concatenate([labeled.x, unlabeled.x])
    pixels, texture = cell_views(learn_embedding(crops, ContrastSettings(seed=seed), progress), seed)
    return ("contrast", pixels), ("features", texture)


def network_learner(settings: FitSettings) -> Fit:
    """Return how a network is fitted in a round, each with the same seed: what changes is I_F alone."""
    return lambda samples, _: network_logits(fit_network(samples, None, settings).model)


def network_logits(model: "keras.Model") -> Logits:
    """Return how a network gives the mean logits over the symmetries of a crop."""
    return lambda x: predict_symmetric(model, x)


def _score(logits: Logits, judged: Samples) -> BinaryScores:
    return score_crops(lambda x: softmax(logits(x), 1.0), judged)


def _score_document(judged: Samples, scores: Mapping[str, BinaryScores]) -> dict[str, object]:
    return {"split": judged.split, "scores": {name: asdict(score) for name, score in scores.items()}}


def _write(
    out: Path, options: Mapping[str, object], metrics: Mapping[str, object], log: list[dict[str, object]]
) -> None:
    for name, document in (("options.json", options), ("metrics.json", metrics)):
        (out / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    with (out / "log.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(log[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(log)


def _row(step: RobustRound, classes: tuple[str, ...]) -> dict[str, object]:
    row = asdict(step) | {"round_index": step.round_index + 1}
    return row | {f"per_class_{name}": step.per_class[name] for name in classes if row.pop("per_class", 1)}
