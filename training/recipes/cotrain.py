"""Profile `robust` of `cotrain`: a network and boosted trees from few labels, beside each of them alone."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.classifier import softmax
from device.errors import ConfigError
from training.cotraining.paper import choose_labeled, split_groups
from training.cotraining.robust import (
    FitWeighted,
    Logits,
    RobustCoTraining,
    RobustRound,
    RobustSettings,
    co_train_robust,
)
from training.dataset import Samples, join_samples
from training.dataset.apart import require_apart
from training.evaluation import BinaryScores
from training.export.acceptance import score_crops
from training.fitting import FitSettings, fit_network, predict_logits
from training.learners.features import fit_features
from training.recipes import Recipe
from training.recipes.make import Material, require_classes, write_fit
from training.recipes.paper import draw_samples

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RobustOptions:
    """What `cotrain --profile robust` was asked for; each field one line: meaning, unit, range."""

    n_labeled: int = 35
    """Labels in all, those held out to choose with too, > 1."""
    max_unlabeled: int = 300
    """Unlabeled samples at most, > 0."""
    held_out: float = 0.3
    """Share of the labels, by whole groups, that calibrate, set thresholds and choose the round, 0 to 1."""
    seed: int = 0
    """Of the choice of labels, the split and all fits."""
    loop: RobustSettings = field(default_factory=RobustSettings)
    """Thresholds and limits of the rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class RobustOutcome:
    """What the profile gave."""

    co_training: RobustCoTraining
    pseudo_right: float | None
    """Share of I_F that agrees with the labels forgotten; None if I_F is empty."""
    scores: Mapping[str, BinaryScores]
    """Of both learners with all labels, alone and co-trained, on samples that nothing was chosen by."""


def co_train_material_robust(
    recipe: Recipe, material: Material, judged: Samples, options: RobustOptions, out: Path, progress: Progress
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

    Raises
    ------
    ConfigError
        If the labels are too few to hold out some of each class, or `judged` is not apart from split train.

    Notes
    -----
    In the end both learners are fitted to all labels, the held-out ones too, with I_F of the best round: so
    they stand beside learners that had the same labels and nothing else.
    """
    require_classes(material.train, material.val)
    require_apart(material.train, judged)
    labeled, rest = choose_labeled(material.train, options.n_labeled, options.seed)
    if len(np.unique(labeled.group)) < 2:
        raise ConfigError(
            f"the {len(labeled)} labeled samples are of one group; expected at least two, so that some can "
            "be held out (label images of another well, or raise --labels)"
        )
    known, held = split_groups(labeled, options.held_out, options.seed)
    rest = rest.take(~np.isin(rest.group, held.group))
    unlabeled = draw_samples(rest, options.max_unlabeled, options.seed)
    progress(f"labeled {known.count()}, held out {held.count()}, unlabeled {len(unlabeled)}")
    found = co_train_robust(
        known,
        unlabeled,
        held,
        fit_a=network_learner(recipe.fit),
        fit_b=lambda samples, weights, _round: fit_features(samples, weights, options.seed),
        settings=options.loop,
        progress=progress,
    )
    both = join_samples([labeled, found.pseudo_labeled])
    ones = np.ones(len(labeled))
    weights = np.concatenate([ones, found.weights])
    fitted = replace(fit_network(both, None, recipe.fit, weights=weights), temperature=found.temperatures[0])
    write_fit(recipe, replace(material, train=both), fitted, out)
    alone = fit_network(labeled, None, recipe.fit).model
    trees = {
        "features alone": fit_features(labeled, ones, options.seed),
        "features co-trained": fit_features(both, weights, options.seed),
    }
    learners: dict[str, tuple[Logits, float]] = {
        f"{recipe.fit.learner} alone": (lambda x: predict_logits(alone, x), found.temperatures[0]),
        f"{recipe.fit.learner} co-trained": (fitted.logits, found.temperatures[0]),
        **{name: (logits, found.temperatures[1]) for name, logits in trees.items()},
    }
    scores = {name: _score(logits, t, judged) for name, (logits, t) in learners.items()}
    right = [found.pseudo[i] == unlabeled.y[i] for i in found.pseudo]
    outcome = RobustOutcome(found, float(np.mean(right)) if right else None, scores)
    _write(out, recipe.fit, options, outcome, judged)
    return outcome


def network_learner(settings: FitSettings) -> FitWeighted:
    """Return how a network is fitted in a round; it gives the mean logits over the symmetries of a crop.

    Each round has the same seed: what changes between rounds is I_F alone.
    """

    def fit(samples: Samples, weights: NDArray[np.float64], _round: int) -> Logits:
        model = fit_network(samples, None, settings, weights=weights).model

        def logits(x: NDArray[np.uint8]) -> NDArray[np.float32]:
            turned = [np.rot90(y, k, axes=(1, 2)) for y in (x, x[:, :, ::-1]) for k in range(4)]
            return np.asarray(np.mean([predict_logits(model, y) for y in turned], axis=0), np.float32)

        return logits

    return fit


def _score(logits: Logits, temperature: float, judged: Samples) -> BinaryScores:
    return score_crops(lambda x: softmax(logits(x), temperature), judged)


def _write(
    out: Path, fit: FitSettings, options: RobustOptions, outcome: RobustOutcome, judged: Samples
) -> None:
    found = outcome.co_training
    documents = {
        "options.json": {"profile": "robust", **asdict(options), "fit": asdict(fit)},
        "metrics.json": {
            "split": judged.split,
            "best_round": found.best_round + 1,
            "ending": found.ending,
            "n_pseudo_labeled": len(found.pseudo),
            "pseudo_right": outcome.pseudo_right,
            "scores": {name: asdict(score) for name, score in outcome.scores.items()},
        },
    }
    for name, document in documents.items():
        (out / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    with (out / "log.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [_row(step, judged.classes) for step in found.rounds]
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _row(step: RobustRound, classes: tuple[str, ...]) -> dict[str, object]:
    row = asdict(step) | {"round_index": step.round_index + 1}
    for name in ("per_class", "threshold_a", "threshold_b"):
        values = row.pop(name)
        several = values.values() if isinstance(values, dict) else values
        row |= {f"{name}_{label}": value for label, value in zip(classes, several, strict=True)}
    return row
