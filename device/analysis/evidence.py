"""What was seen in the wells of a plate: which fields enter, and what a healthy culture looks like today."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TypeVar

from device.analysis.grading import Rule
from device.records import (
    Assay,
    FieldCount,
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
    calibrations: tuple[str, ...] = ()
    """Ids that its fields refer to, sorted."""


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
    return Evidence(
        plan=plan,
        fields=tuple(sorted(counts, key=lambda count: count.field)),
        n_fields_refused=len(readings) - len(accepted),
        refused_by=unique(reason for refusals in faults for reason in refusals),
        assay=assay,
        modality=modality,
        method=method,
        um_per_px=_only(r.quality.um_per_px for r in accepted),
        um_per_px_source=_least_certain({r.quality.um_per_px_source for r in accepted}),
        cell_model=_only(r.cell_model for r in accepted),
        field_model=_only(r.field_model for r in accepted),
        simulated=any(r.simulated for r in readings),
        calibrations=tuple(sorted({name for r in accepted for name in r.calibrations})),
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
    enough = n_counted(fields, rule) >= rule.fields_min and reference.n_cells >= rule.cells_min
    return reference if enough else None


def pool_wells(wells: Sequence[Evidence]) -> Evidence:
    """Return the evidence of at least one well of a sample as one well whose fields they are."""
    first = wells[0]
    sources = {well.um_per_px_source for well in wells}
    return replace(
        first,
        fields=tuple(_pool_fields(number, well.fields) for number, well in enumerate(wells)),
        n_fields_refused=sum(well.n_fields_refused for well in wells),
        refused_by=unique(reason for well in wells for reason in well.refused_by),
        um_per_px=_only(well.um_per_px for well in wells),
        um_per_px_source=_least_certain(sources),
        cell_model=_only(well.cell_model for well in wells),
        field_model=_only(well.field_model for well in wells),
        simulated=any(well.simulated for well in wells),
    )


def _pool_fields(number: int, fields: Sequence[FieldCount]) -> FieldCount:
    areas = [field.area_mm2 for field in fields]
    known = [area for area in areas if area is not None]
    return FieldCount(
        number,
        n_live=sum(field.n_live for field in fields),
        n_rounded=sum(field.n_rounded for field in fields),
        n_lysed=sum(field.n_lysed for field in fields),
        area_mm2=math.fsum(known) if len(known) == len(areas) else None,
        confluence=fmean(field.confluence for field in fields),
        p_toxic=mean_p_toxic(fields),
        odd=is_mostly_odd(fields),
    )


def is_mostly_odd(fields: Collection[FieldCount]) -> bool:
    """Return whether more than half of `fields` carry OOD_CELLS."""
    return sum(field.odd for field in fields) > len(fields) / 2


def mean_p_toxic(fields: Iterable[FieldCount]) -> float | None:
    """Return the field model's opinion over `fields`, 0 to 1, None without one.

    The logistic of the mean logit, with probabilities held off 0 and 1.
    """
    held = [min(1 - 1e-6, max(1e-6, field.p_toxic)) for field in fields if field.p_toxic is not None]
    return 1 / (1 + math.exp(-fmean(math.log(p / (1 - p)) for p in held))) if held else None


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


def n_counted(fields: Iterable[FieldCount], rule: Rule) -> int:
    """Return how many fields have enough cells to count as one."""
    return sum(field.n_cells >= rule.field_cells_min for field in fields)


def _least_certain(sources: Collection[ScaleSource | None]) -> ScaleSource | None:
    ranked: tuple[ScaleSource, ...] = ("assumed", "published", "measured")
    return next((source for source in ranked if source in sources), None)


def _only(values: Iterable[T | None]) -> T | None:
    """Return the one value that all have, None where they differ or there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def unique(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return each reason once, in the order of their list, whatever the order of the fields."""
    present = set(reasons)
    return tuple(reason for reason in Reason if reason in present)
