"""How often labels are wrong, as learners that never saw them estimate it, and what that leaves to reach.

Confident learning (Northcutt et al. 2021): a sample counts as truly of class j where its out-of-fold
probability reaches what samples labeled j have on average.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.records import Interval

NDFloat = NDArray[np.float64]
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """What out-of-fold probabilities say of labels; shares 0 to 1."""

    n: int
    disagreement: float
    """Share of samples called otherwise than labeled: noise of the labels and faults of the learner."""
    joint: tuple[tuple[float, ...], ...]
    """Estimated share of samples labeled (row) and truly (column) of each class; sums to 1."""
    wrong: tuple[float, ...]
    """Share of the labels of each class that are wrong."""
    suspects: tuple[int, ...]
    """Positions of the samples counted as wrong, the surest first."""


def estimate_noise(p: NDFloat, y: NDArray[np.intp]) -> LabelNoise:
    """Return how noisy labels are.

    Parameters
    ----------
    p : (N, K) ndarray of float
        Probabilities of learners fitted without the sample's group, not biased to a class; rows sum to 1.
    y : (N,) ndarray of intp
        Labels; each of the K classes is there.

    Raises
    ------
    ValueError
        If a class has no label.

    Notes
    -----
    An upper bound rather than a truth: a learner that is surely wrong counts as a wrong label.
    """
    n_classes = p.shape[1]
    count = np.bincount(y, minlength=n_classes)
    if len(count) > n_classes or not count.all():
        raise ValueError(f"labels by class are {count.tolist()}; expected some of each of {n_classes}")
    usual = np.array([p[y == k, k].mean() for k in range(n_classes)])
    sure = np.where(p >= usual, p, -1.0)
    true = np.where(sure.max(axis=1) < 0, -1, sure.argmax(axis=1))
    table = np.zeros((n_classes, n_classes))
    np.add.at(table, (y[true >= 0], true[true >= 0]), 1)
    table[np.arange(n_classes), np.arange(n_classes)] += table.sum(axis=1) == 0  # nothing sure: nothing wrong
    joint = table / table.sum(axis=1, keepdims=True) * count[:, None] / len(y)
    wrong = 1 - np.diag(joint) / joint.sum(axis=1)
    at = np.arange(len(y))
    suspects = np.flatnonzero((true >= 0) & (true != y))
    margin = p[at, y] - np.where(true >= 0, p[at, true], 0)
    order = suspects[np.argsort(margin[suspects], kind="stable")]
    return LabelNoise(
        n=len(y),
        disagreement=float(np.mean(p.argmax(axis=1) != y)),
        joint=tuple(tuple(row) for row in joint.tolist()),
        wrong=tuple(wrong.tolist()),
        suspects=tuple(order.tolist()),
    )


def f1_ceiling(joint: tuple[tuple[float, ...], ...], n: int) -> tuple[float, Interval]:
    """Return the mean F1 of class 1 that a perfect classifier gets from noisy labels, and where 95 % fall.

    Parameters
    ----------
    joint : K x K shares
        Labeled (row) and true (column); `LabelNoise.joint`.
    n : int
        Samples that judge, > 0.

    Examples
    --------
    >>> f1_ceiling(((0.5, 0.0), (0.0, 0.5)), 100)[0]
    1.0
    """
    share = np.array(joint)
    draws = np.random.default_rng(0).multinomial(n, share.ravel() / share.sum(), _DRAWS)
    table = draws.reshape(_DRAWS, *share.shape)
    both = 2 * table[:, 1, 1]
    f1 = both / np.maximum(table[:, 1].sum(axis=1) + table[:, :, 1].sum(axis=1), 1)
    low, high = np.quantile(f1, [0.025, 0.975])
    return float(f1.mean()), Interval(float(low), float(high))
