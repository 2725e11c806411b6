"""What the fields of a well add up to: shares, bounds, growth inhibition and the range of grades.

Nothing here decides; `verdict` does. Every number is the same whatever the order of the fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from statistics import fmean

from device.analysis.evidence import HEALTHY, Evidence, mean_p_toxic, n_counted
from device.analysis.grading import Rule, correct_background, grade_well, growth_inhibition, is_destroyed
from device.analysis.intervals import (
    UNKNOWN,
    cells_per_field,
    compare_growth,
    correct_interval,
    design_effect,
    fields_needed,
    share_above,
    share_interval,
)
from device.records import FieldCount, Interval, Reason, Reference

REPORTED_LEVEL = 0.975
"""Of each end of `ci95`."""
LEAST_CONFLUENCE = 0.001
"""About one cell in a field: stands for an empty well where growth is told from the confluence."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One way in which a well may be toxic, and how far its truth is known."""

    reason: Reason | None
    """What a toxic well is told by it; None for affected cells, which need no further word."""
    value: float
    """Share, 0 to 1."""
    limit: float
    bounds: Interval
    p_above: float | None
    """Probability that the truth is above the limit, 0 to 1; None where nothing is known."""
    n_fields_needed: int | None
    """Fields in all that are expected to tell it from the limit; None where no number would."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The numbers of a well on which the verdict stands; the names are those of `Verdict`."""

    n_used: int
    """Accepted fields that were used: all of them, or those up to the last look."""
    n_fields_counted: int
    n_cells: int
    n_dead: int
    p_toxic: float | None = None
    affected: float | None = None
    affected_corrected: float | None = None
    bounds: Interval | None = None
    ci95: Interval | None = None
    design_effect: float | None = None
    rho: float | None = None
    background: float | None = None
    lysed: float | None = None
    lysed_bounds: Interval | None = None
    growth_inhibition: float | None = None
    growth_inhibition_bounds: Interval | None = None
    viability_index: float | None = None
    destroyed: bool = False
    criteria: tuple[Criterion, ...] = ()
    """What decides under the rule, as far as it could be measured."""
    grade: int | None = None
    grade_low: int | None = None
    grade_high: int | None = None


def measure_well(
    evidence: Evidence, reference: Reference | None, rule: Rule, *, looks: tuple[int, ...] = ()
) -> Measures:
    """Return shares, bounds, growth inhibition and grades of a well.

    Blank and negative wells are graded without `reference`: they are what it is made of. Where the number of
    fields is open, `looks` are the ascending numbers of accepted fields at which it is judged: between two
    the earlier one stands, and the error is divided among them (Bonferroni).
    """
    fields = evidence.fields[: max((look for look in looks if look <= len(evidence.fields)), default=None)]
    compared = None if evidence.plan.role in HEALTHY else reference
    level = 1 - (1 - rule.confidence) / max(1, len(looks))
    measures = Measures(
        n_used=len(fields),
        n_fields_counted=n_counted(fields, rule),
        n_cells=sum(field.n_cells for field in fields),
        n_dead=sum(field.n_dead for field in fields),
        p_toxic=mean_p_toxic(fields),
        background=None if compared is None else compared.n_dead / compared.n_cells,
    )
    if compared is not None and rule.counts_growth:
        measures = _with_growth(measures, fields, compared, rule, level)
    if measures.n_cells:
        measures = _with_shares(measures, fields, compared, rule, level)
    return _with_grades(measures, rule)


def _with_growth(
    measures: Measures, fields: Sequence[FieldCount], reference: Reference, rule: Rule, level: float
) -> Measures:
    by_area = all(field.area_mm2 for field in (*fields, *reference.fields))

    def amount(field: FieldCount) -> float:
        return field.n_live / field.area_mm2 if by_area and field.area_mm2 else field.confluence

    controls, tested = map(amount, reference.fields), [amount(field) for field in fields]
    wells = [list(islice(controls, size)) for size in reference.fields_per_well]
    expected = fmean(value for well in wells for value in well)
    if not fields or not expected:
        return measures
    areas = [field.area_mm2 for field in fields if field.area_mm2]
    least = 1 / max(areas) if by_area else LEAST_CONFLUENCE
    value, growth = growth_inhibition(fmean(tested), expected), compare_growth(tested, wells, least=least)
    limit = rule.growth_limit
    criterion = Criterion(
        Reason.GROWTH_INHIBITION,
        value,
        limit,
        UNKNOWN if growth is None else growth.interval(level),
        None if growth is None else growth.above(limit),
        None if growth is None else growth.fields_needed(limit, level, rule),
    )
    destroyed = is_destroyed(measures.n_cells, fmean(tested), expected, rule)
    return replace(
        measures,
        growth_inhibition=value,
        growth_inhibition_bounds=criterion.bounds,
        viability_index=fmean(tested) / expected,
        destroyed=destroyed and len(fields) >= rule.fields_min,
        criteria=(criterion,),
    )


def _with_shares(
    measures: Measures, fields: Sequence[FieldCount], reference: Reference | None, rule: Rule, level: float
) -> Measures:
    cells, dead = [field.n_cells for field in fields], [field.n_dead for field in fields]
    lysed = [field.n_lysed for field in fields]
    n_fields, background = measures.n_fields_counted, measures.background or 0.0
    bounds_of = partial(share_interval, n_fields=n_fields, rho_min=rule.rho_min)

    def corrected(at: float) -> Interval:
        return correct_interval(bounds_of(dead, cells, at), _background_interval(reference, rule, at))

    can_correct = background <= rule.background_max
    measures = replace(
        measures,
        affected=sum(dead) / measures.n_cells,
        lysed=sum(lysed) / measures.n_cells,
        lysed_bounds=bounds_of(lysed, cells, level),
    )
    if n_fields > 1:
        effect = design_effect(dead, cells, n_fields=n_fields, rho_min=rule.rho_min)
        measures = replace(measures, design_effect=effect, rho=(effect - 1) / (cells_per_field(cells) - 1))
    criterion = partial(_share_criterion, cells=cells, n_fields=n_fields, level=level, rule=rule)
    criteria = list(measures.criteria)
    if rule.counts_lysis:
        limit, bounds = rule.lysis_limit, bounds_of(lysed, cells, level)
        criteria.append(criterion(Reason.EXTENSIVE_LYSIS, lysed, limit, bounds, background=0.0))
    if not can_correct:
        unknown = Criterion(None, sum(dead) / measures.n_cells, rule.limit, UNKNOWN, None, None)
        return replace(measures, criteria=(*criteria, unknown))
    by_affected = criterion(None, dead, rule.limit, corrected(level), background=background)
    return replace(
        measures,
        affected_corrected=by_affected.value,
        bounds=by_affected.bounds,
        ci95=corrected(REPORTED_LEVEL),
        criteria=(*criteria, by_affected),
    )


def _share_criterion(
    reason: Reason | None,
    counts: Sequence[int],
    limit: float,
    bounds: Interval,
    *,
    background: float,
    cells: Sequence[int],
    n_fields: int,
    level: float,
    rule: Rule,
) -> Criterion:
    share, uncorrected_limit = sum(counts) / sum(cells), background + limit * (1 - background)
    needed = None
    if n_fields > 1:
        effect = design_effect(counts, cells, n_fields=n_fields, rho_min=rule.rho_min)
        needed = fields_needed(share, uncorrected_limit, cells, effect, level, rule)
    above = share_above(counts, cells, uncorrected_limit, n_fields=n_fields, rho_min=rule.rho_min)
    return Criterion(reason, correct_background(share, background), limit, bounds, above, needed)


def _background_interval(reference: Reference | None, rule: Rule, level: float) -> Interval:
    if reference is None:
        return Interval(0.0, 0.0)
    cells, dead = [f.n_cells for f in reference.fields], [f.n_dead for f in reference.fields]
    n_fields = n_counted(reference.fields, rule)
    return share_interval(dead, cells, level, n_fields=n_fields, rho_min=rule.rho_min)


def _with_grades(measures: Measures, rule: Rule) -> Measures:
    if measures.destroyed:
        return replace(measures, grade=4, grade_low=4, grade_high=4)
    share, bounds, lysed = measures.affected_corrected, measures.bounds, measures.lysed_bounds
    if share is None or bounds is None or lysed is None or measures.lysed is None:
        return measures
    growth = measures.growth_inhibition_bounds
    return replace(
        measures,
        grade=grade_well(share, measures.growth_inhibition, measures.lysed, rule),
        grade_low=grade_well(bounds.low, growth.low if growth else None, lysed.low, rule),
        grade_high=grade_well(bounds.high, growth.high if growth else None, lysed.high, rule),
    )
