"""Counts found against true counts, and shares against true shares, field by field."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

MAPE_FROM = 5
"""Fields with fewer true cells stay out of the relative error."""


@dataclass(frozen=True, slots=True)
class CountErrors:
    """How found numbers differ from true ones, in their unit; differences are found - true."""

    n: int
    """Fields."""
    bias: float
    mae: float
    rmse: float
    sd: float | None
    """Of the differences; None for one field."""
    mape: float | None
    """Mean of |difference| / true over fields with at least 5; None without such a field."""
    r: float | None
    """Pearson's correlation; None where a side does not vary."""
    limits_low: float | None
    """Bland-Altman limits of agreement, bias -+ 1.96 sd."""
    limits_high: float | None


def count_errors(true: ArrayLike, found: ArrayLike) -> CountErrors:
    """Return how `found` numbers differ from `true` ones.

    Parameters
    ----------
    true, found : (N,) array_like of float
        One number a field, N >= 1: cells, or shares of affected cells (where bias, mae and rmse
        say something).

    Raises
    ------
    ValueError
        If there is no field, or the shapes differ.
    """
    expected, observed = np.asarray(true, np.float64), np.asarray(found, np.float64)
    if expected.shape != observed.shape or expected.ndim != 1 or not expected.size:
        raise ValueError(
            f"numbers are {expected.shape} true and {observed.shape} found; expected one shape (N,), N >= 1"
        )
    difference = observed - expected
    bias = float(difference.mean())
    sd = float(difference.std(ddof=1)) if len(difference) > 1 else None
    enough = expected >= MAPE_FROM
    varies = len(expected) > 1 and np.ptp(expected) > 0 and np.ptp(observed) > 0
    return CountErrors(
        n=len(difference),
        bias=bias,
        mae=float(np.abs(difference).mean()),
        rmse=float(np.sqrt(np.square(difference).mean())),
        sd=sd,
        mape=float(np.mean(np.abs(difference[enough]) / expected[enough])) if enough.any() else None,
        r=float(np.corrcoef(expected, observed)[0, 1]) if varies else None,
        limits_low=None if sd is None else bias - 1.96 * sd,
        limits_high=None if sd is None else bias + 1.96 * sd,
    )
