"""Which labels of two learners are to be trusted: thresholds, limits by class, and how alike learners are."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from device.classifier import softmax
from training.dataset.folds import group_folds
from training.dataset.samples import Samples, join_samples
from training.evaluation.binary import balanced_accuracy
from training.fitting import fit_temperature

NDFloat = NDArray[np.float64]
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives (N, K) logits, not calibrated, of (N, 28, 28) images; N may be 0."""
Fit = Callable[[Samples, int], Logits]
"""Fits a learner to samples in a round (from 0), from scratch, and returns how it scores."""


def cross_fit(
    labeled: Samples,
    more: Samples,
    x: NDArray[np.uint8],
    fit: Callable[[Samples], Logits],
    *,
    folds: int,
    precision_min: float,
) -> tuple[NDFloat, float, NDArray[np.bool_]]:
    """Return NLL and balanced accuracy of labels that a learner did not see, and of which `x` it is sure.

    Parameters
    ----------
    labeled, more : Samples
        Labels that are held out in turn, by whole groups, and what is always fitted to beside the others.
    x : (N, 28, 28) ndarray of uint8
        Images that all fits judge together.
    fit : callable
        Fits the learner to samples from scratch.
    folds : int
        Parts of the labels, > 1.
    precision_min : float
        As in `precision_threshold`.
    """
    fold = group_folds(labeled, folds, seed=0)
    logits = np.zeros((len(labeled), len(labeled.classes)), np.float32)
    on_x = np.zeros((len(x), len(labeled.classes)), np.float32)
    held: NDArray[np.bool_] = np.zeros(len(labeled), bool)
    n_fits = 0
    for k in range(folds):
        mine = fold == k
        known = join_samples([labeled.take(~mine), more])
        if not mine.any() or min(known.count().values()) == 0:
            continue
        score = fit(known)
        logits[mine], held, n_fits = score(labeled.x[mine]), held | mine, n_fits + 1
        on_x += score(x)
    if not held.any():  # one group, or one sample of a class: nothing can be held out
        return np.zeros(len(labeled)), 1.0, np.ones(len(x), bool)
    y = labeled.y[held]
    # few labels that are all right would sharpen without end: they may only soften
    temperature = max(1.0, fit_temperature(logits[held], y))
    p = softmax(logits[held], temperature).astype(np.float64)
    threshold = precision_threshold(p, y, precision_min=precision_min, confidence_min=0.5)
    p_x = softmax(np.asarray(on_x / n_fits, np.float32), temperature)
    nll = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-7))
    return nll, balanced_accuracy(p.argmax(axis=1), y), p_x.max(axis=1) >= threshold[p_x.argmax(axis=1)]


def precision_threshold(
    probabilities: NDFloat, y: NDArray[np.intp], *, precision_min: float, confidence_min: float
) -> NDFloat:
    """Return (K,) the least confidence above which those called class k are right often enough.

    Parameters
    ----------
    probabilities : (V, K) ndarray of float
        Calibrated, of held-out labels.
    y : (V,) ndarray of intp
        The truth.
    precision_min : float
        Share of right ones wanted, 0 to 1.
    confidence_min : float
        The least threshold, also where no held-out label says anything, 0 to 1.

    Examples
    --------
    >>> p = np.array([[0.99, 0.01], [0.95, 0.05], [0.03, 0.97]])
    >>> precision_threshold(p, np.array([0, 1, 1]), precision_min=0.95, confidence_min=0.9)
    array([0.99, 0.9 ])
    """
    called, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    thresholds = np.full(probabilities.shape[1], confidence_min)
    for k in range(len(thresholds)):
        mine = (called == k) & (confidence >= confidence_min)
        for level in [confidence_min, *np.sort(confidence[mine]).tolist(), np.inf]:
            above = mine & (confidence >= level)
            if not above.any() or np.mean(y[above] == k) >= precision_min:
                thresholds[k] = level
                break
    return thresholds


def select_trusted(
    label: NDArray[np.intp], confidence: NDFloat, prior: NDFloat, limit: int
) -> dict[int, int]:
    """Return the class by position of the most certain candidates, classes by their prior shares.

    Parameters
    ----------
    label : (U,) ndarray of intp
        Class of each candidate, -1 for what is none.
    confidence : (U,) ndarray of float
        By which candidates are ranked; among equals the first counts.
    prior : (K,) ndarray of float
        Share of each class, sum 1: at most ceil(n * share) of it are taken where n are.
    limit : int
        At most this many in all, >= 0.
    """
    candidates = np.flatnonzero(label >= 0)
    candidates = candidates[np.argsort(-confidence[candidates], kind="stable")]
    wanted = np.ceil(min(len(candidates), limit) * prior - 1e-9)
    rank = np.zeros(len(candidates), np.intp)
    for k in range(len(prior)):
        mine = label[candidates] == k
        rank[mine] = np.arange(mine.sum())
    taken = candidates[rank < wanted[label[candidates]]][:limit]
    return {int(i): int(label[i]) for i in np.sort(taken)}


def lead_of_first(scores: NDFloat) -> NDFloat:
    """Return (N,) how far the first class is ahead of the second in (N, K) scores, K > 1."""
    ordered = np.sort(scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2], np.float64)


def jaccard(one: dict[int, int], other: dict[int, int]) -> float:
    """Return the overlap of two sets of labels, 0 to 1; 1 if both are empty."""
    union = one.items() | other.items()
    return len(one.items() & other.items()) / len(union) if union else 1.0


def cohen_kappa(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    """Return the agreement of two raters beyond chance; 1 where both always say one class, or nothing."""
    if not len(a):
        return 1.0
    n_classes = int(max(a.max(), b.max())) + 1
    chance = float(np.bincount(a, minlength=n_classes) @ np.bincount(b, minlength=n_classes)) / len(a) ** 2
    return float((np.mean(a == b) - chance) / (1 - chance)) if chance < 1 else 1.0
