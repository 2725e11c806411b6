"""Verdicts of wells. Whatever is missing, refused or in doubt, the outcome is not `non_toxic`.

`judge_well` decides by counts; the field model is a second opinion that can only hold a decision back. One
function, `_non_toxic`, constructs that outcome, after checking everything it stands on once more.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from device.analysis.evidence import Evidence, is_mostly_odd, unique
from device.analysis.grading import REACTIVITY, Rule, own_rule_text, rule_sha256
from device.analysis.well import Criterion, Measures, measure_well
from device.records import NonToxic, Outcome, Reason, Reference, Stage, Stated, Verdict

PLANNED = ("well", "sample", "role", "dose", "dose_unit", "replicate")
"""Fields that a verdict takes over from the plate."""


@dataclass(frozen=True, slots=True)
class Case:
    """One well as it stands before the judge: evidence, what it is compared with, rule and circumstances."""

    evidence: Evidence
    measures: Measures
    reference: Reference | None
    rule: Rule
    stage: Stage
    control_faults: tuple[Reason, ...]
    looks: tuple[int, ...]
    scale_may_be_assumed: bool
    plate: str | None


def judge_well(
    evidence: Evidence,
    reference: Reference | None,
    rule: Rule,
    *,
    stage: Stage,
    control_faults: tuple[Reason, ...] = (),
    looks: tuple[int, ...] = (),
    scale_may_be_assumed: bool = False,
    plate: str | None = None,
) -> Verdict:
    """Return the verdict of one well, compared with the blank and negative wells of its plate.

    A final verdict needs the controls that the rule asks for; a provisional one without may be `toxic`. Any
    fault of the controls makes the well `invalid`. `looks` as in `measure_well`, empty where the number of
    fields was fixed beforehand. `scale_may_be_assumed` lets an assumed scale give `non_toxic`: files, never
    a live camera. `plate` is its name.
    """
    measures = measure_well(evidence, reference, rule, looks=looks)
    if measures.background is not None and measures.background > rule.background_max:
        control_faults = unique((*control_faults, Reason.HIGH_BACKGROUND))
    case = Case(
        evidence, measures, reference, rule, stage, control_faults, looks, scale_may_be_assumed, plate
    )
    outcome, reasons = _decide(case)
    remarks = _standing(case)
    if outcome is not Outcome.INVALID and _is_discordant(case):
        remarks.append(Reason.QUAL_QUANT_DISCORDANT)
    return _verdict(case, outcome, unique((*reasons, *remarks)))


def _decide(case: Case) -> tuple[Stated, tuple[Reason, ...]]:
    evidence, rule = case.evidence, case.rule
    if not evidence.fields:
        return Outcome.INVALID, evidence.refused_by or (Reason.TOO_FEW_FIELDS,)
    if evidence.um_per_px_source is None:
        return Outcome.INVALID, (Reason.NO_CALIBRATION,)
    if case.control_faults:
        return Outcome.INVALID, case.control_faults
    if rule.needs_controls and case.reference is None and case.stage == "final":
        return Outcome.INVALID, (Reason.NO_CONTROL_REFERENCE,)
    harm = _harm(case)
    if harm is not None:
        doubts = _doubts_of_toxic(case)
        return (Outcome.INCONCLUSIVE, doubts) if doubts else (Outcome.TOXIC, harm)
    few = _too_few(case)
    if few:
        return Outcome.INCONCLUSIVE, few
    if not _is_under_limits(case):
        return Outcome.INCONCLUSIVE, (Reason.INTERVAL_STRADDLES_LIMIT,)
    return _non_toxic(case)


def _non_toxic(case: Case) -> tuple[Stated, tuple[Reason, ...]]:
    """Return `non_toxic` if nothing at all speaks against it; no other function constructs that outcome."""
    doubts = _doubts_of_non_toxic(case)
    proven = (
        case.evidence.fields
        and case.evidence.um_per_px_source is not None
        and not case.control_faults
        and not _too_few(case)
        and _harm(case) is None
        and _is_under_limits(case)
    )
    if not proven or doubts:
        return Outcome.INCONCLUSIVE, doubts
    return NonToxic(case), ()  # type: ignore[arg-type]  # the one place that may


def _harm(case: Case) -> tuple[Reason, ...] | None:
    """Return why the well is surely toxic (empty: by affected cells alone), None where that is not sure."""
    harmful = _harmful(case)
    if not case.measures.destroyed and not harmful:
        return None
    destroyed = (Reason.LAYER_DESTROYED,) * case.measures.destroyed
    return destroyed + tuple(c.reason for c in harmful if c.reason is not None)


def _harmful(case: Case) -> list[Criterion]:
    """Return the criteria that are surely above their limit, each with enough fields behind it."""
    enough_for_growth, enough = case.measures.n_used >= case.rule.fields_min, not _too_few(case)
    return [
        c
        for c in case.measures.criteria
        if c.bounds.low > c.limit and (enough_for_growth if c.reason is Reason.GROWTH_INHIBITION else enough)
    ]


def _too_few(case: Case) -> tuple[Reason, ...]:
    m, rule = case.measures, case.rule
    few_fields = m.n_fields_counted < rule.fields_min
    few_cells = m.n_cells < rule.cells_min
    return (Reason.TOO_FEW_FIELDS,) * few_fields + (Reason.TOO_FEW_CELLS,) * few_cells


def _is_under_limits(case: Case) -> bool:
    criteria = case.measures.criteria
    return bool(criteria) and all(c.bounds.high <= c.limit for c in criteria)


def _doubts_of_toxic(case: Case) -> tuple[Reason, ...]:
    p_toxic = case.measures.p_toxic
    disagree = p_toxic is not None and p_toxic <= case.rule.p_toxic_low
    return (Reason.METHOD_DISAGREE,) * disagree + (Reason.METHOD_UNVERIFIED,) * _is_unverified(case)


def _doubts_of_non_toxic(case: Case) -> tuple[Reason, ...]:
    p_toxic = case.measures.p_toxic
    disagree = p_toxic is not None and p_toxic >= case.rule.p_toxic_high
    doubts = _standing(case) + [Reason.METHOD_DISAGREE] * disagree
    tolerated = {Reason.SCALE_ASSUMED} if case.scale_may_be_assumed else set()
    return unique(set(doubts) - tolerated)


def _standing(case: Case) -> list[Reason]:
    """Return what a reader must know of this well whatever its outcome."""
    evidence = case.evidence
    reasons: list[Reason] = []
    if not evidence.fields:
        return reasons
    if evidence.um_per_px_source == "assumed":
        reasons.append(Reason.SCALE_ASSUMED)
    model = evidence.cell_model
    compared = model if case.reference is None else case.reference.cell_model
    if model is None or not model.trusted or compared != model:
        reasons.append(Reason.MODEL_UNVERIFIED)
    if _is_unverified(case):
        reasons.append(Reason.METHOD_UNVERIFIED)
    if case.rule.needs_controls and case.reference is None:
        reasons.append(Reason.NO_CONTROL_REFERENCE)
    if is_mostly_odd(evidence.fields):
        reasons.append(Reason.OOD_CELLS)
    return reasons


def _is_unverified(case: Case) -> bool:
    """Return whether method or rule are kept for comparison only: those of the paper."""
    return case.evidence.method == "paper" or not case.rule.decides


def _is_discordant(case: Case) -> bool:
    """Return whether the grade passes where a viability assay would see a cytotoxic potential."""
    m, rule = case.measures, case.rule
    worst = max(m.affected_corrected or 0.0, m.growth_inhibition or 0.0)
    return (
        rule.limit > rule.discordant_above
        and m.grade is not None
        and m.grade <= rule.grade_limit
        and worst > rule.discordant_above
    )


def _fields_more(case: Case, reasons: Collection[Reason]) -> int | None:
    """Return how many further fields should decide; None where none would, or none are needed."""
    m, rule = case.measures, case.rule
    if Reason.TOO_FEW_FIELDS not in reasons and Reason.INTERVAL_STRADDLES_LIMIT not in reasons:
        return None
    have, needed = m.n_fields_counted, rule.fields_min
    if have >= rule.fields_min:
        expected = _fields_in_all(m.criteria)
        if expected is None:
            return None
        needed = max(expected, have + 1)
    if case.looks:
        have = len(case.evidence.fields)
        later = (look for look in case.looks if look >= max(needed, have + 1))
        needed = min(later, default=rule.fields_max + 1)
    return needed - have if needed <= rule.fields_max else None


def _fields_in_all(criteria: Collection[Criterion]) -> int | None:
    """Return the fields that should decide: one criterion is enough to be toxic, passing takes all."""
    above = [c.n_fields_needed for c in criteria if c.value > c.limit]
    known = [number for number in above if number is not None]
    if above:
        return min(known, default=None)
    undecided = [c.n_fields_needed for c in criteria if c.bounds.high > c.limit]
    return None if None in undecided else max((n for n in undecided if n is not None), default=None)


def _confidence(case: Case, outcome: Stated) -> float | None:
    """Return how probable the stated side is: of the surest harm, or of the least sure safety."""
    if outcome is Outcome.TOXIC:
        return max((c.p_above for c in _harmful(case) if c.p_above is not None), default=None)
    if outcome is Outcome.INCONCLUSIVE or outcome is Outcome.INVALID:
        return None
    return min(1 - c.p_above for c in case.measures.criteria if c.p_above is not None)


def _leans_toxic(case: Case, outcome: Stated) -> bool | None:
    """Return the side that the field model takes where the count is undecided."""
    p_toxic, rule = case.measures.p_toxic, case.rule
    if (
        outcome is not Outcome.INCONCLUSIVE
        or p_toxic is None
        or rule.p_toxic_low < p_toxic < rule.p_toxic_high
    ):
        return None
    return p_toxic >= rule.p_toxic_high


def _verdict(case: Case, outcome: Stated, reasons: tuple[Reason, ...]) -> Verdict:
    evidence, grade = case.evidence, case.measures.grade
    return Verdict(
        **{name: getattr(evidence.plan, name) for name in PLANNED},
        **_shared(evidence, Verdict),
        **_shared(case.measures, Verdict),
        plate=case.plate,
        n_fields_planned=evidence.plan.fields,
        stage=case.stage,
        outcome=outcome,
        reasons=reasons,
        confidence=_confidence(case, outcome),
        leans_toxic=_leans_toxic(case, outcome),
        rule=case.rule.id,
        rule_sha256=rule_sha256(case.rule),
        rule_text=own_rule_text(case.rule),
        reactivity=None if grade is None else REACTIVITY[grade],
        n_fields=len(evidence.fields),
        fields_more=_fields_more(case, reasons),
        reference=case.reference,
        control_faults=case.control_faults,
        looks=case.looks,
        scale_may_be_assumed=case.scale_may_be_assumed,
    )


def _shared(source: Evidence | Measures | Verdict, target: type) -> dict[str, Any]:
    """Return the fields of `source` that `target` has as well."""
    names = {field.name for field in fields(target)} & {field.name for field in fields(source)}
    return {name: getattr(source, name) for name in names}
