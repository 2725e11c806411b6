"""What the fields of a well add up to: shares, bounds, growth inhibition and the range of grades.

Nothing here decides; `verdict` does. Every number is the same whatever the order of the fields.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeVar

from device.analysis.grading import (
    Rule,
    correct_background,
    grade_well,
    growth_inhibition,
    is_destroyed,
)
from device.analysis.intervals import (
    correct_interval,
    design_effect,
    growth_interval,
    share_interval,
)
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

    Notes
    -----
    A reading enters only if its quality passed, its scale is known, it was made for this assay, modality and
    method, and its numbers are possible; any other is counted as refused, with the reason.
    """
    accepted: list[Reading] = []
    refused_by: list[Reason] = []
    for reading in readings:
        faults = _refusals(reading, assay, modality, method)
        refused_by.extend(faults)
        if not faults:
            accepted.append(reading)
    order = {reading: i for i, reading in enumerate(readings)}
    counts = [_count(r, order[r] if r.field is None else r.field) for r in accepted]
    sources = {r.quality.um_per_px_source for r in accepted}
    return Evidence(
        plan=plan,
        fields=tuple(sorted(counts, key=lambda count: count.field)),
        n_fields_refused=len(readings) - len(accepted),
        refused_by=unique(refused_by),
        assay=assay,
        modality=modality,
        method=method,
        um_per_px=_only(r.quality.um_per_px for r in accepted),
        um_per_px_source=next(
            (source for source in ("assumed", "published", "measured") if source in sources), None
        ),
        cell_model=_only(r.cell_model for r in accepted),
        field_model=_only(r.field_model for r in accepted),
        simulated=any(r.simulated for r in readings),
    )


def pool_reference(controls: Iterable[Evidence], rule: Rule) -> Reference | None:
    """Return what blank and negative wells say of a healthy culture; None with too few fields or cells."""
    wells = [well for well in controls if well.plan.role in ("blank", "negative") and well.fields]
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

    Parameters
    ----------
    evidence : Evidence
        Of the well.
    reference : Reference or None
        Blank and negative wells. Those wells themselves are graded without it: they are what it is made of.
    rule : Rule
        Steps and confidence.
    looks : tuple of int
        Where the number of fields is open: the ascending numbers of accepted fields at which it is judged.
        Between two looks the earlier one stands; the error is divided among them (Bonferroni).
    """
    fields = evidence.fields[: max((look for look in looks if look <= len(evidence.fields)), default=None)]
    compared = None if evidence.plan.role in ("blank", "negative") else reference
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

    wells, start = [], 0
    for size in reference.fields_per_well:
        wells.append([amount(field) for field in reference.fields[start : start + size]])
        start += size
    expected = fmean(value for well in wells for value in well)
    if not fields or not expected:
        return measures
    tested = [amount(field) for field in fields]
    least = 1 / max(field.area_mm2 or 1 for field in fields) if by_area else LEAST_CONFLUENCE
    return replace(
        measures,
        growth_inhibition=growth_inhibition(fmean(tested), expected),
        growth_inhibition_bounds=growth_interval(tested, wells, level, least=least),
        destroyed=len(fields) >= rule.fields_min
        and is_destroyed(measures.n_cells, fmean(tested), expected, rule),
    )


def _with_shares(
    measures: Measures, fields: Sequence[FieldCount], reference: Reference | None, rule: Rule, level: float
) -> Measures:
    cells, dead = [field.n_cells for field in fields], [field.n_dead for field in fields]
    lysed = [field.n_lysed for field in fields]
    n_fields = measures.n_fields_counted
    share = sum(dead) / measures.n_cells

    def corrected(at: float) -> Interval | None:
        raw = share_interval(dead, cells, at, n_fields=n_fields, rho_min=rule.rho_min)
        if measures.background is None or reference is None:
            return raw
        if measures.background > rule.background_max:
            return None
        return correct_interval(raw, _background_interval(measures.background, reference, rule, at))

    def corrected_share() -> float | None:
        if measures.background is None:
            return share
        too_high = measures.background > rule.background_max
        return None if too_high else correct_background(share, measures.background)

    return replace(
        measures,
        affected=share,
        affected_corrected=corrected_share(),
        bounds=corrected(level),
        ci95=corrected(REPORTED_LEVEL),
        design_effect=design_effect(dead, cells, n_fields=n_fields, rho_min=rule.rho_min)
        if n_fields > 1
        else None,
        lysed=sum(lysed) / measures.n_cells,
        lysed_bounds=share_interval(lysed, cells, level, n_fields=n_fields, rho_min=rule.rho_min),
    )


def _background_interval(background: float, reference: Reference, rule: Rule, level: float) -> Interval:
    if reference.n_cells >= rule.background_cells_min:
        return Interval(background, background)
    return share_interval(
        [field.n_dead for field in reference.fields],
        [field.n_cells for field in reference.fields],
        level,
        n_fields=_n_counted(reference.fields, rule),
        rho_min=rule.rho_min,
    )


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


def _count(reading: Reading, field: int) -> FieldCount:
    tally = reading.tally
    return FieldCount(
        field=field,
        n_live=tally.n_live,
        n_rounded=tally.n_rounded,
        n_lysed=tally.n_lysed,
        area_mm2=tally.area_mm2,
        confluence=tally.confluence,
        p_toxic=reading.p_toxic,
    )


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
