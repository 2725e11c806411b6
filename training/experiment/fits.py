"""What arms are made of: a draw, fits that are alike in all of them, calibration, the classes' shares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from training.cotraining.shares import estimate_shares, shift_to_shares
from training.dataset.folds import group_folds
from training.dataset.samples import Samples, join_samples
from training.fitting import FitSettings, fit_network, fit_temperature, predict_logits
from training.learners.features import fit_features, measure_features, spread_scores

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives (N, K) calibrated logits of (N, 28, 28) images: their softmax is the probability. N may be 0."""
Fit = Callable[[Samples], Logits]
"""Fits one learner from scratch; its logits are not calibrated."""
BATCH = 32
"""Labeled samples a step of every network."""
CALIBRATION_FOLDS, CALIBRATION_SHARE = 3, 6
"""Parts of the labels; a network of a part is fitted in this part of the steps."""
DOUBT = 2.0
"""Weight of (log T)^2: as much as some labels of doubt that T is 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What one task of an experiment may learn from."""

    labeled: Samples
    """All labels of the budget, of both classes."""
    unlabeled: Samples
    """The other images; each `y` is -1."""
    steps: int
    """Gradient steps of the final fit, equal for all arms, > 0."""
    seed: int
    shares: NDArray[np.float64]
    """(K,) of classes in the culture, which a lab may know from counting; only what says so looks at it."""
    learner: str
    """Network of every arm that fits one: a file of `training.learners`."""


def fit_settings(draw: Draw) -> FitSettings:
    """Return how networks are fitted in all arms: symmetries, 2 px shifts, contrast, noise, equal classes."""
    return FitSettings(
        draw.learner,
        epochs=1,
        steps_per_epoch=draw.steps,
        batch=BATCH,
        zoom=0,
        shift_px=2,
        noise=0.1,
        step_noise=0.0,
        seed=draw.seed,
    )


def network_arm(draw: Draw, settings: FitSettings, more: Samples | None = None) -> Logits:
    """Return a network fitted to the labels, and to `more` samples beside them, calibrated on the labels."""
    samples = draw.labeled if more is None else join_samples([draw.labeled, more])
    return calibrate_network(fit_turned(samples, settings), draw, settings)


def fit_forest(samples: Samples, seed: int) -> Logits:
    """Return a random forest on texture and shape, not calibrated."""
    trees = RandomForestClassifier(200, class_weight="balanced", random_state=seed)
    trees.fit(measure_features(samples.x), samples.y)

    def score(x: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(np.log(trees.predict_proba(measure_features(x)).clip(1e-3)), np.float64)

    return spread_scores(score, trees.classes_, samples, np.log(1e-3))


def fit_turned(
    samples: Samples, settings: FitSettings, *, start: Sequence[NDArray[np.float32]] | None = None
) -> Logits:
    """Return the mean logits of a fitted network over the four rotations of an image."""
    model = fit_network(samples, None, settings, start=start).model
    return lambda x: mean_turned(lambda y: predict_logits(model, y), x)


def calibrate_network(logits: Logits, draw: Draw, settings: FitSettings) -> Logits:
    """Return `logits` with the temperature of the same network on the labels alone, in fewer steps."""
    quick = replace(settings, steps_per_epoch=max(1, settings.steps_per_epoch // CALIBRATION_SHARE))
    return calibrate(logits, draw, lambda samples: fit_turned(samples, quick))


def calibrate(logits: Logits, draw: Draw, fit: Fit) -> Logits:
    """Return `logits` divided by the temperature that `fit` needs on labels that it was not fitted to.

    The temperature is 1 where the labels are too few to hold out a group and keep both classes.
    """
    labeled = draw.labeled
    fold = group_folds(labeled, CALIBRATION_FOLDS, draw.seed)
    given, y = [np.zeros((0, len(labeled.classes)), np.float32)], [np.zeros(0, np.intp)]
    for k in range(CALIBRATION_FOLDS):
        known, held = labeled.take(fold != k), labeled.take(fold == k)
        if len(held) and len(np.unique(known.y)) == len(labeled.classes):
            given.append(fit(known)(held.x))
            y.append(held.y)
    pooled = np.concatenate(y)
    return soften(logits, fit_temperature(np.concatenate(given), pooled, doubt=DOUBT) if len(pooled) else 1.0)


def soften(logits: Logits, temperature: float) -> Logits:
    """Return `logits` divided by a temperature."""
    return lambda x: np.asarray(logits(x) / temperature, np.float32)


def shift_to(shares: NDArray[np.float64], on_unlabeled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what to add to logits so that the classes of the unlabeled images are called in their shares.

    Labels drawn in equal shares know nothing of these, and every arm balances its classes. Where nothing is
    unlabeled the shares are a prior of probabilities.
    """
    known = shift_to_shares(on_unlabeled, shares) if len(on_unlabeled) else np.log(np.maximum(shares, 1e-3))
    return np.asarray(known, np.float32)


def find_shares(draw: Draw) -> NDArray[np.float64]:
    """Return class shares of the unlabeled images by `features`; those of the labels where all have one."""
    if len(draw.unlabeled):
        score = fit_features(draw.labeled, draw.seed)
        return estimate_shares(score(draw.unlabeled.x))
    return np.bincount(draw.labeled.y, minlength=len(draw.labeled.classes)) / len(draw.labeled)


def mean_turned(logits: Logits, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean logits over the four rotations of (N, 28, 28) images."""
    turned = [logits(np.rot90(x, k, axes=(1, 2))) for k in range(4)]
    return np.asarray(np.mean(turned, axis=0), np.float32)
