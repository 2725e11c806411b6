"""What the fields of a well add up to: shares, bounds, growth inhibition and the range of grades.

Nothing here decides; `verdict` does. Every number is the same whatever the order of the fields.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from statistics import fmean
from typing import TypeVar

from device.analysis.grading import Rule, correct_background, grade_well, growth_inhibition, is_destroyed
from device.analysis.intervals import correct_interval, design_effect, growth_interval, share_interval
from device.records import (
    Assay,
    FieldCount,
    Interval,
    Method,
    Modality,
    ModelId,
    Outcome,
    PlateWell,
    Reading,
    Reason,
    Reference,
    ScaleSource,
)

T = TypeVar("T")

HEALTHY = ("blank", "negative")
"""Roles of wells that show a healthy culture."""
REPORTED_LEVEL = 0.975
"""Of each end of `ci95`."""
LEAST_CONFLUENCE = 0.001
"""About one cell in a field: stands for an empty well where growth is told from the confluence."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen in one well: its accepted fields, in order, and where they come from."""

    plan: PlateWell
    fields: tuple[FieldCount, ...]
    n_fields_refused: int
    refused_by: tuple[Reason, ...]
    assay: Assay
    modality: Modality
    method: Method
    um_per_px: float | None = None
    """Null where fields differ or none was accepted."""
    um_per_px_source: ScaleSource | None = None
    """The least certain of its fields; null where none was accepted."""
    cell_model: ModelId | None = None
    """Null where more than one model read the well, or none."""
    field_model: ModelId | None = None
    simulated: bool = False


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
    background: float | None = None
    lysed: float | None = None
    lysed_bounds: Interval | None = None
    growth_inhibition: float | None = None
    growth_inhibition_bounds: Interval | None = None
    destroyed: bool = False
    grade: int | None = None
    grade_low: int | None = None
    grade_high: int | None = None


def gather_well(
    plan: PlateWell, readings: Sequence[Reading], *, assay: Assay, modality: Modality, method: Method
) -> Evidence:
    """Return what `readings` say of the well `plan`.

    A reading enters only if its quality passed, its scale is known, it was made for this assay, modality and
    method, and its numbers are possible; any other is counted as refused, with the reason.
    """
    faults = [_refusals(reading, assay, modality, method) for reading in readings]
    accepted = [reading for reading, refusals in zip(readings, faults, strict=True) if not refusals]
    counts = [
        FieldCount(
            number if r.field is None else r.field,
            **asdict(r.tally),
            p_toxic=r.p_toxic,
            odd=Reason.OOD_CELLS in r.quality.flags,
        )
        for number, r in enumerate(readings)
        if not faults[number]
    ]
    sources = {r.quality.um_per_px_source for r in accepted}
    least_certain = (source for source in ("assumed", "published", "measured") if source in sources)
    return Evidence(
        plan=plan,
        fields=tuple(sorted(counts, key=lambda count: count.field)),
        n_fields_refused=len(readings) - len(accepted),
        refused_by=unique(reason for refusals in faults for reason in refusals),
        assay=assay,
        modality=modality,
        method=method,
        um_per_px=_only(r.quality.um_per_px for r in accepted),
        um_per_px_source=next(least_certain, None),
        cell_model=_only(r.cell_model for r in accepted),
        field_model=_only(r.field_model for r in accepted),
        simulated=any(r.simulated for r in readings),
    )


def pool_reference(controls: Iterable[Evidence], rule: Rule) -> Reference | None:
    """Return what blank and negative wells say of a healthy culture; None with too few fields or cells."""
    wells = [well for well in controls if well.plan.role in HEALTHY and well.fields]
    fields = tuple(field for well in wells for field in well.fields)
    reference = Reference(
        wells=tuple(well.plan.well for well in wells),
        n_cells=sum(field.n_cells for field in fields),
        n_dead=sum(field.n_dead for field in fields),
        fields=fields,
        fields_per_well=tuple(len(well.fields) for well in wells),
        cell_model=_only(well.cell_model for well in wells),
    )
    enough = _n_counted(fields, rule) >= rule.fields_min and reference.n_cells >= rule.cells_min
    return reference if enough else None


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
        n_fields_counted=_n_counted(fields, rule),
        n_cells=sum(field.n_cells for field in fields),
        n_dead=sum(field.n_dead for field in fields),
        p_toxic=_mean_p_toxic(fields),
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
    least = 1 / max(field.area_mm2 or 1 for field in fields) if by_area else LEAST_CONFLUENCE
    destroyed = is_destroyed(measures.n_cells, fmean(tested), expected, rule)
    return replace(
        measures,
        growth_inhibition=growth_inhibition(fmean(tested), expected),
        growth_inhibition_bounds=growth_interval(tested, wells, level, least=least),
        destroyed=destroyed and len(fields) >= rule.fields_min,
    )


def _with_shares(
    measures: Measures, fields: Sequence[FieldCount], reference: Reference | None, rule: Rule, level: float
) -> Measures:
    cells, dead = [field.n_cells for field in fields], [field.n_dead for field in fields]
    lysed = [field.n_lysed for field in fields]
    n_fields, background = measures.n_fields_counted, measures.background or 0.0
    share = sum(dead) / measures.n_cells
    can_correct = background <= rule.background_max
    bounds_of = partial(share_interval, n_fields=n_fields, rho_min=rule.rho_min)

    def corrected(at: float) -> Interval:
        return correct_interval(bounds_of(dead, cells, at), _background_interval(reference, rule, at))

    effect = None
    if n_fields > 1:
        effect = design_effect(dead, cells, n_fields=n_fields, rho_min=rule.rho_min)
    return replace(
        measures,
        affected=share,
        affected_corrected=correct_background(share, background) if can_correct else None,
        bounds=corrected(level) if can_correct else None,
        ci95=corrected(REPORTED_LEVEL) if can_correct else None,
        design_effect=effect,
        lysed=sum(lysed) / measures.n_cells,
        lysed_bounds=bounds_of(lysed, cells, level),
    )


def _background_interval(reference: Reference | None, rule: Rule, level: float) -> Interval:
    if reference is None:
        return Interval(0.0, 0.0)
    if reference.n_cells >= rule.background_cells_min:
        share = reference.n_dead / reference.n_cells
        return Interval(share, share)
    cells, dead = [f.n_cells for f in reference.fields], [f.n_dead for f in reference.fields]
    n_fields = _n_counted(reference.fields, rule)
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


def _refusals(reading: Reading, assay: Assay, modality: Modality, method: Method) -> tuple[Reason, ...]:
    quality, tally = reading.quality, reading.tally
    if not quality.passed or quality.refused_by:
        return quality.refused_by or (Reason.ANALYSIS_FAILED,)
    if reading.outcome is Outcome.INVALID:
        return reading.reasons or (Reason.ANALYSIS_FAILED,)
    if quality.um_per_px is None or quality.um_per_px_source is None:
        return (Reason.NO_CALIBRATION,)
    possible = (
        (reading.assay, reading.modality, reading.method) == (assay, modality, method)
        and min(tally.n_live, tally.n_rounded, tally.n_lysed) >= 0
        and 0 <= tally.confluence <= 1
        and (tally.area_mm2 is None or 0 < tally.area_mm2 < math.inf)
        and (reading.p_toxic is None or 0 <= reading.p_toxic <= 1)
    )
    return () if possible else (Reason.ANALYSIS_FAILED,)


def _n_counted(fields: Iterable[FieldCount], rule: Rule) -> int:
    return sum(field.n_cells >= rule.field_cells_min for field in fields)


def _mean_p_toxic(fields: Iterable[FieldCount]) -> float | None:
    """Logistic of the mean logit, with probabilities held off 0 and 1."""
    held = [min(1 - 1e-6, max(1e-6, field.p_toxic)) for field in fields if field.p_toxic is not None]
    return 1 / (1 + math.exp(-fmean(math.log(p / (1 - p)) for p in held))) if held else None


def _only(values: Iterable[T | None]) -> T | None:
    """Return the one value that all have, None where they differ or there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def unique(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return each reason once, in the order of their list, whatever the order of the fields."""
    present = set(reasons)
    return tuple(reason for reason in Reason if reason in present)
