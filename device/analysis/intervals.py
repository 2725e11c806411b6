"""Intervals of a well: fields are clusters, so cells of one field are not independent.

A plain interval over pooled cells covers 75 % instead of 95 % at a correlation of 0.03 within fields. The
share's variance is therefore that of a ratio of cluster totals, and Student's t over fields stands for the
normal quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from device.analysis.grading import Rule, correct_background
from device.records import Interval

UNKNOWN = Interval(0.0, 1.0)
"""What fewer than two fields tell of a share."""


def t_quantile(level: float, degrees: float) -> float:
    """Return the quantile at `level`, 0 to 1, of Student's t with `degrees` > 0 degrees of freedom."""
    from scipy.special import stdtrit  # the station pays for scipy at its first well verdict

    return float(stdtrit(degrees, level))


def t_probability(value: float, degrees: float) -> float:
    """Return the probability, 0 to 1, that Student's t with `degrees` > 0 degrees is below `value`."""
    from scipy.special import stdtr

    return float(stdtr(degrees, value))


def design_effect(affected: Sequence[int], cells: Sequence[int], *, n_fields: int, rho_min: float) -> float:
    """Return how many times larger the variance of a share is than that of independent cells, at least 1.

    Of `affected` among all `cells` of each field, at least one in all; `n_fields` >= 2 of them have enough
    cells. `rho_min` is the floor of the correlation within a field.

    Notes
    -----
    v = F/(F-1) sum (D - p n)^2 / N^2 over v0 = pv (1 - pv) / N with pv = (sum D + 1/2) / (N + 1), floored by
    1 + (m - 1) rho_min with m = sum n^2 / N.
    """
    total, dead = sum(cells), sum(affected)
    share, prior = dead / total, (dead + 0.5) / (total + 1)
    spread = math.fsum((d - share * n) ** 2 for d, n in zip(affected, cells, strict=True))
    observed = n_fields / (n_fields - 1) * spread / total**2
    independent = prior * (1 - prior) / total
    return max(1.0, observed / independent, 1 + (cells_per_field(cells) - 1) * rho_min)


def wilson(share: float, n: float, z: float) -> Interval:
    """Return Wilson's interval of `share`, 0 to 1, among `n` > 0 effective trials at quantile `z`."""
    center = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    return Interval(
        max(0.0, min(share, (center - half) / scale)), min(1.0, max(share, (center + half) / scale))
    )


def share_interval(
    affected: Sequence[int], cells: Sequence[int], level: float, *, n_fields: int, rho_min: float
) -> Interval:
    """Return the interval of a share of cells, each end a one-sided bound at `level` (0.95 for decisions).

    Arguments as in `design_effect`. `UNKNOWN` for fewer than two counted fields or no cells.
    """
    total = sum(cells)
    if n_fields < 2 or not total:
        return UNKNOWN
    effective = total / design_effect(affected, cells, n_fields=n_fields, rho_min=rho_min)
    return wilson(sum(affected) / total, effective, t_quantile(level, n_fields - 1))


def share_above(
    affected: Sequence[int], cells: Sequence[int], limit: float, *, n_fields: int, rho_min: float
) -> float | None:
    """Return the probability that a share of cells is above `limit`, both 0 to 1, by the t approximation.

    Other arguments as in `share_interval`, whose bound at this level would be `limit`. None for fewer than
    two counted fields or no cells.
    """
    total = sum(cells)
    if n_fields < 2 or not total:
        return None
    excess = sum(affected) / total - limit
    if not 0 < limit < 1:
        return float(excess > 0)
    effective = total / design_effect(affected, cells, n_fields=n_fields, rho_min=rho_min)
    return t_probability(excess / math.sqrt(limit * (1 - limit) / effective), n_fields - 1)


def correct_interval(interval: Interval, background: Interval) -> Interval:
    """Return `interval` after Abbott's correction, widened by that of the `background`.

    No well is known to be healthier than the controls are known to be: where its upper end is below theirs,
    theirs stands for it. Without that the interval of a well with fewer dead cells than its controls would
    shrink to a certain 0 %.
    """
    return Interval(
        correct_background(interval.low, background.high),
        correct_background(max(interval.high, background.high), background.low),
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """A well's amount of living cells against that of control wells, on a logarithmic scale.

    Welch's approximation for the logarithm of the ratio of two means. Three control wells or more add the
    variance between wells, which the well under test has as well: b (1 + 1/W).
    """

    log_ratio: float
    tested: tuple[float, int]
    """Variance from the well under test, and its degrees of freedom."""
    others: tuple[tuple[float, int], ...]
    """The same of the controls and, where it is known, between wells."""

    def interval(self, level: float) -> Interval:
        """Return the interval of growth inhibition, each end a one-sided bound at `level`."""
        half = t_quantile(level, self._degrees) * self._error if self._error else 0.0
        low, high = (1 - math.exp(self.log_ratio + sign * half) for sign in (1, -1))
        return Interval(max(0.0, low), max(0.0, high))

    def above(self, limit: float) -> float:
        """Return the probability that growth inhibition is above `limit`, 0 to less than 1."""
        excess = math.log(1 - limit) - self.log_ratio
        return t_probability(excess / self._error, self._degrees) if self._error else float(excess > 0)

    def fields_needed(self, limit: float, level: float, rule: Rule) -> int | None:
        """Return how many such fields are expected to tell it from `limit`; as `fields_needed` of a share.

        Fields of the well under test: more of them do not narrow what the controls leave open.
        """
        distance = (math.log(1 - limit) - self.log_ratio) / t_quantile(level, math.inf)
        room = distance**2 - math.fsum(part for part, _ in self.others)
        variance_per_field = self.tested[0] * (self.tested[1] + 1)
        return _within(variance_per_field, room, rule)

    @property
    def _error(self) -> float:
        return math.sqrt(math.fsum(part for part, _ in (self.tested, *self.others)))

    @property
    def _degrees(self) -> float:
        weight = math.fsum(part**2 / degrees for part, degrees in (self.tested, *self.others))
        return self._error**4 / weight


def compare_growth(
    amounts: Sequence[float], reference: Sequence[Sequence[float]], *, least: float
) -> Growth | None:
    """Return how `amounts` compare with those of the controls, None for fewer than two of either.

    Parameters
    ----------
    amounts : sequence of float
        Live cells per area, or confluence, of each field of the well, >= 0.
    reference : sequence of sequence of float
        The same of each control well; not all 0.
    least : float
        Amount of one cell in a field: stands for each field where none of them holds a live cell, because the
        logarithm of 0 does not exist.
    """
    pooled = [amount for well in reference for amount in well]
    if len(amounts) < 2 or len(pooled) < 2:
        return None
    tested = amounts if any(amounts) else [least] * len(amounts)
    others = [_relative_variance(pooled)]
    if len(reference) >= 3 and all(len(well) >= 2 for well in reference):
        within = fmean(variance(well) / len(well) for well in reference)
        between = max(0.0, variance([fmean(well) for well in reference]) - within) / fmean(pooled) ** 2
        others.append((between * (1 + 1 / len(reference)), len(reference) - 1))
    return Growth(math.log(fmean(tested) / fmean(pooled)), _relative_variance(tested), tuple(others))


def fields_needed(
    share: float, limit: float, cells: Sequence[int], effect: float, level: float, rule: Rule
) -> int | None:
    """Return how many fields like these are expected to tell `share` from `limit`, both 0 to 1.

    At least the rule's `fields_min`; None where more than its `fields_max` would be needed. `cells` are those
    of each field so far, at least one in all, `effect` their design effect, `level` that of the bounds.

    Notes
    -----
    F = z^2 p (1-p) (1 + (m-1) rho) / (m d^2) with d the distance to the limit and z the normal quantile.
    """
    per_field = cells_per_field(cells)
    variance_per_field = max(effect, 1 + (per_field - 1) * rule.rho_min) * share * (1 - share) / per_field
    return _within(variance_per_field, ((share - limit) / t_quantile(level, math.inf)) ** 2, rule)


def cells_per_field(cells: Sequence[int]) -> float:
    """Return the mean size of a field as a cell sees it, sum n^2 / N, of at least one cell."""
    return sum(n * n for n in cells) / sum(cells)


def _within(variance_per_field: float, room: float, rule: Rule) -> int | None:
    """Return the fewest fields whose mean has a variance of at most `room`."""
    if room <= 0 or variance_per_field > rule.fields_max * room:
        return None
    return max(rule.fields_min, math.ceil(variance_per_field / room))


def _relative_variance(amounts: Sequence[float]) -> tuple[float, int]:
    """Squared standard error of the mean over the squared mean, and its degrees of freedom."""
    mean = fmean(amounts)
    return variance(amounts) / (len(amounts) * mean**2), len(amounts) - 1
