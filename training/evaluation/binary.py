"""Probabilities of `dead` (or `toxic`) against the truth: right or wrong, ranked, and calibrated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from device.model_card.opinions import Metric
from training.evaluation.resampling import group_bootstrap

BINS = 10
"""Equal-mass bins of the calibration error."""
_DRAWS = 200
_FLOOR = 1e-7


@dataclass(frozen=True, slots=True)
class BinaryScores:
    """What probabilities of the positive class, dead, are worth; None where only one class is there."""

    n: int
    n_dead: int
    balanced_accuracy: float | None
    sensitivity: float | None
    """Recall of dead."""
    specificity: float | None
    """Recall of live."""
    f1_dead: float | None
    auc: float | None
    nll: float
    """Mean negative logarithm of the probability of the truth."""
    brier: float
    ece: float
    """Expected calibration error over 10 equal-mass bins; biased upward for small n."""
    ece_perfect: float
    """What a perfectly calibrated model with these probabilities shows at this n: read `ece` beside it."""


def binary_scores(p_dead: ArrayLike, is_dead: ArrayLike) -> BinaryScores:
    """Return the scores of probabilities; from 0.5 on one counts as dead.

    Parameters
    ----------
    p_dead : (N,) array_like of float
        Probability of the positive class, 0 to 1; N >= 1.
    is_dead : (N,) array_like of bool
        The truth.

    Raises
    ------
    ValueError
        If the shapes differ, there is nothing, or a probability is outside 0 to 1.
    """
    p, dead = np.asarray(p_dead, np.float64), np.asarray(is_dead, bool)
    if p.shape != dead.shape or p.ndim != 1 or not p.size:
        raise ValueError(f"probabilities are {p.shape}, truth {dead.shape}; expected one shape (N,), N >= 1")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities reach from {p.min()} to {p.max()}; expected 0 to 1")
    called = p >= 0.5
    tp, fp = int((called & dead).sum()), int((called & ~dead).sum())
    n_dead, n_live = int(dead.sum()), int((~dead).sum())
    sensitivity = tp / n_dead if n_dead else None
    specificity = 1 - fp / n_live if n_live else None
    both = sensitivity is not None and specificity is not None
    truth = np.where(dead, p, 1 - p)
    rng = np.random.default_rng(0)
    perfect = [expected_calibration_error(p, rng.random(len(p)) < p) for _ in range(_DRAWS)]
    return BinaryScores(
        n=len(p),
        n_dead=n_dead,
        balanced_accuracy=((sensitivity or 0.0) + (specificity or 0.0)) / 2 if both else None,
        sensitivity=sensitivity,
        specificity=specificity,
        f1_dead=2 * tp / (tp + fp + n_dead) if tp + fp + n_dead else None,
        auc=rank_auc(p, dead) if both else None,
        nll=float(-np.log(np.maximum(truth, _FLOOR)).mean()),
        brier=float(np.square(p - dead).mean()),
        ece=expected_calibration_error(p, dead),
        ece_perfect=float(np.mean(perfect)),
    )


def measure(
    figure: Callable[[NDArray[np.float64], NDArray[np.bool_]], float],
    scores: NDArray[np.float64],
    positive: NDArray[np.bool_],
    groups: Sequence[str],
    data: str,
) -> Metric:
    """Return a figure of (N,) scores against a truth of both classes, such as `rank_auc`, over groups."""

    def drawn(index: NDArray[np.intp]) -> float | None:
        return figure(scores[index], positive[index]) if np.ptp(positive[index].view(np.int8)) else None

    interval = group_bootstrap(groups, drawn, n_resamples=1000)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Metric(figure(scores, positive), low, high, len(scores), data)


def expected_calibration_error(p: NDArray[np.float64], is_dead: NDArray[np.bool_]) -> float:
    """Return the mean distance of stated and observed shares over bins of equally many probabilities, 0 to 1.

    Parameters
    ----------
    p : (N,) ndarray of float64
        Probabilities, N >= 1.
    is_dead : (N,) ndarray of bool
        The truth.
    """
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, min(BINS, len(p)))
    return float(sum(len(part) * abs(p[part].mean() - is_dead[part].mean()) for part in parts) / len(p))


def balanced_accuracy(labels: NDArray[np.intp], y: NDArray[np.intp]) -> float:
    """Return the mean share of right labels over the classes that (N,) `y` holds, 0 to 1; N > 0."""
    return float(np.mean([np.mean(labels[y == k] == k) for k in np.unique(y)]))


def rank_auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the share of positive-negative pairs in the right order, ties half (Mann-Whitney).

    (N,) `scores` and (N,) truth with both classes in it.
    """
    n = int(positive.sum())
    above = float(rankdata(scores)[positive].sum()) - n * (n + 1) / 2
    return above / (n * (len(scores) - n))
