"""Verdicts of wells. Whatever is missing, refused or in doubt, the outcome is not `non_toxic`.

`judge_well` decides by counts; the field model is a second opinion that can only hold a decision back. One
function, `_non_toxic`, constructs that outcome, after checking everything it stands on once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from device.analysis.grading import REACTIVITY, RULES, TOXIC_ABOVE_GRADE, Rule, rule_sha256
from device.analysis.intervals import fields_needed
from device.analysis.well import Evidence, Measures, measure_well, unique
from device.records import Outcome, PlateWell, Reason, Reference, Verdict

Stage = Literal["provisional", "final"]
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


def judge_well(
    evidence: Evidence,
    reference: Reference | None,
    rule: Rule,
    *,
    stage: Stage,
    control_faults: tuple[Reason, ...] = (),
    looks: tuple[int, ...] = (),
    scale_may_be_assumed: bool = False,
) -> Verdict:
    """Return the verdict of one well, compared with the blank and negative wells of its plate.

    A final verdict needs the controls that the rule asks for; a provisional one without may be `toxic`. Any
    fault of the controls makes the well `invalid`. `looks` as in `measure_well`, empty where the number of
    fields was fixed beforehand. `scale_may_be_assumed` lets an assumed scale give `non_toxic`: files, never
    a live camera.
    """
    measures = measure_well(evidence, reference, rule, looks=looks)
    if measures.background is not None and measures.background > rule.background_max:
        control_faults = unique((*control_faults, Reason.HIGH_BACKGROUND))
    case = Case(evidence, measures, reference, rule, stage, control_faults, looks, scale_may_be_assumed)
    outcome, reasons = _decide(case)
    remarks = _standing(case)
    if outcome is not Outcome.INVALID and _is_discordant(case):
        remarks.append(Reason.QUAL_QUANT_DISCORDANT)
    return _verdict(case, outcome, unique((*reasons, *remarks)))


def recompute(verdict: Verdict, rule: Rule | None = None) -> Verdict:
    """Return the verdict that follows from what `verdict` itself carries: an equal one.

    `rule` is the one it names, where that is none of `RULES`; ValueError if its hash is not the verdict's.
    """
    rule = RULES.get(verdict.rule) if rule is None else rule
    if rule is None or rule_sha256(rule) != verdict.rule_sha256:
        raise ValueError(
            f"rule {verdict.rule} with hash {verdict.rule_sha256} is unknown; "
            f"expected one of {', '.join(RULES)} as of this version"
        )
    plan = PlateWell(**{name: getattr(verdict, name) for name in PLANNED})
    return judge_well(
        Evidence(plan=plan, **_shared(verdict, Evidence)),
        verdict.reference,
        rule,
        stage=verdict.stage,
        control_faults=verdict.control_faults,
        looks=verdict.looks,
        scale_may_be_assumed=verdict.scale_may_be_assumed,
    )


def _decide(case: Case) -> tuple[Outcome, tuple[Reason, ...]]:
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


def _non_toxic(case: Case) -> tuple[Outcome, tuple[Reason, ...]]:
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
    return (Outcome.NON_TOXIC, ()) if proven and not doubts else (Outcome.INCONCLUSIVE, doubts)


def _harm(case: Case) -> tuple[Reason, ...] | None:
    """Return why the well is surely toxic (empty: by affected cells alone), None where that is not sure."""
    m, rule = case.measures, case.rule
    reasons: list[Reason] = []
    if m.destroyed:
        reasons.append(Reason.LAYER_DESTROYED)
    growth = m.growth_inhibition_bounds
    if m.n_used >= rule.fields_min and growth is not None and growth.low > rule.limit:
        reasons.append(Reason.GROWTH_INHIBITION)
    enough = not _too_few(case)
    lysed = m.lysed_bounds.low if enough and rule.counts_lysis and m.lysed_bounds is not None else 0.0
    if lysed > rule.lysis_steps[0]:
        reasons.append(Reason.EXTENSIVE_LYSIS)
    by_affected = enough and m.bounds is not None and m.bounds.low > rule.limit
    return tuple(reasons) if reasons or by_affected else None


def _too_few(case: Case) -> tuple[Reason, ...]:
    m, rule = case.measures, case.rule
    few_fields = m.n_fields_counted < rule.fields_min
    few_cells = m.n_cells < rule.cells_min
    return (Reason.TOO_FEW_FIELDS,) * few_fields + (Reason.TOO_FEW_CELLS,) * few_cells


def _is_under_limits(case: Case) -> bool:
    m, rule = case.measures, case.rule
    if m.bounds is None or m.lysed_bounds is None:
        return False
    growth = m.growth_inhibition_bounds
    return (
        m.bounds.high <= rule.limit
        and (growth is None or growth.high <= rule.limit)
        and (not rule.counts_lysis or m.lysed_bounds.high <= rule.lysis_steps[0])
    )


def _doubts_of_toxic(case: Case) -> tuple[Reason, ...]:
    p_toxic = case.measures.p_toxic
    disagree = p_toxic is not None and p_toxic <= case.rule.p_toxic_low
    by_paper = case.evidence.method == "paper"
    return (Reason.METHOD_DISAGREE,) * disagree + (Reason.METHOD_UNVERIFIED,) * by_paper


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
    if evidence.method == "paper":
        reasons.append(Reason.METHOD_UNVERIFIED)
    if case.rule.needs_controls and case.reference is None:
        reasons.append(Reason.NO_CONTROL_REFERENCE)
    if sum(field.odd for field in evidence.fields) > len(evidence.fields) / 2:
        reasons.append(Reason.OOD_CELLS)
    return reasons


def _is_discordant(case: Case) -> bool:
    """Return whether the grade passes where a viability assay would see a cytotoxic potential."""
    m, rule = case.measures, case.rule
    worst = max(m.affected_corrected or 0.0, m.growth_inhibition or 0.0)
    return (
        rule.limit > rule.discordant_above
        and m.grade is not None
        and m.grade <= TOXIC_ABOVE_GRADE
        and worst > rule.discordant_above
    )


def _fields_more(case: Case, reasons: Sequence[Reason]) -> int | None:
    m, rule = case.measures, case.rule
    if Reason.TOO_FEW_FIELDS not in reasons and Reason.INTERVAL_STRADDLES_LIMIT not in reasons:
        return None
    have, needed = m.n_fields_counted, rule.fields_min
    if m.affected is not None and m.design_effect is not None and have >= rule.fields_min:
        background = m.background or 0.0
        limit = background + rule.limit * (1 - background)
        cells = [field.n_cells for field in case.evidence.fields[: m.n_used]]
        expected = fields_needed(m.affected, limit, cells, m.design_effect, rule)
        if expected is None:
            return None
        needed = max(expected, have + 1)
    if case.looks:
        needed = min((look for look in case.looks if look >= needed), default=rule.fields_max + 1)
        have = len(case.evidence.fields)
    return needed - have if have < needed <= rule.fields_max else None


def _verdict(case: Case, outcome: Outcome, reasons: tuple[Reason, ...]) -> Verdict:
    evidence, grade = case.evidence, case.measures.grade
    return Verdict(
        **{name: getattr(evidence.plan, name) for name in PLANNED},
        **_shared(evidence, Verdict),
        **_shared(case.measures, Verdict),
        stage=case.stage,
        outcome=outcome,
        reasons=reasons,
        rule=case.rule.id,
        rule_sha256=rule_sha256(case.rule),
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
