"""Intervals of scores. Images of one well or series are no independent witnesses: groups are drawn."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from device.analysis.intervals import wilson
from device.records import Interval

_Z975 = 1.959963984540054


def group_bootstrap(
    groups: Sequence[str],
    statistic: Callable[[NDArray[np.intp]], float | None],
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval | None:
    """Return the percentile interval of a statistic over groups drawn with replacement.

    Parameters
    ----------
    groups : sequence of str
        Group (well, series, duplicate family) of each item.
    statistic : callable
        Gets the indices of the drawn items, each as often as its group was drawn, and returns a figure, or
        None where it does not exist for them.
    n_resamples : int
        Draws, the same each time.
    level : float
        Coverage, such as 0.95.

    Returns
    -------
    Interval or None
        None for fewer than two groups, or where the statistic exists in no draw.
    """
    known = _resample(groups, statistic, n_resamples)
    if not known:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_difference(
    groups: Sequence[str], difference: Callable[[NDArray[np.intp]], float | None]
) -> tuple[Interval, float] | None:
    """Return the 95 % interval of a difference over drawn groups, and its two-sided p-value against 0.

    Parameters as those of `group_bootstrap`, which also says when there is None. The p-value is twice the
    share of draws on the rarer side of 0, those at 0 on both, never under 2 / 2001.
    """
    known = np.array(_resample(groups, difference, 2000))
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    rarer = min(int(np.sum(known <= 0)), int(np.sum(known >= 0)))
    return Interval(float(low), float(high)), min(1.0, 2 * (rarer + 1) / (len(known) + 1))


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p-values that may each be held against the level of all together (Holm 1979), 0 to 1.

    Examples
    --------
    >>> holm_adjusted([0.5, 0.25, 0.125])
    [0.5, 0.5, 0.375]
    """
    order = np.argsort(p_values, kind="stable")
    raised = [(len(order) - rank) * p_values[i] for rank, i in enumerate(order)]
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1) if raised else []
    return [float(p) for p in adjusted]


def _resample(
    groups: Sequence[str], statistic: Callable[[NDArray[np.intp]], float | None], n_resamples: int
) -> list[float]:
    names, inverse = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return []
    members = [np.flatnonzero(inverse == i) for i in range(len(names))]
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(names), size=len(names)) for _ in range(n_resamples))
    figures = [statistic(np.concatenate([members[i] for i in draw])) for draw in draws]
    return [figure for figure in figures if figure is not None]


def share_wilson(part: int, whole: int) -> Interval | None:
    """Return Wilson's 95 % interval of `part` of `whole` independent items; None of nothing."""
    return wilson(part / whole, whole, _Z975) if whole else None


def corrected_lower(gains: Sequence[float], test_share: float) -> float | None:
    """Return the lower end of the one-sided 90 % interval of a mean gain over folds of shared images.

    Parameters
    ----------
    gains : sequence of float
        Of each fold.
    test_share : float
        Test images over training images of a fold, > 0.

    Returns
    -------
    float or None
        In the unit of `gains`; None for fewer than two.

    Notes
    -----
    The variance of the mean is that of the gains times 1 / k + n_test / n_train (Nadeau and Bengio 2003):
    1 / k alone would take overlapping folds for independent ones.
    """
    k = len(gains)
    if k < 2:
        return None
    error = float(np.std(gains, ddof=1) * np.sqrt(1 / k + test_share))
    return float(np.mean(gains)) - float(student_t.ppf(0.9, k - 1)) * error
