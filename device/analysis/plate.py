"""What wells say together: the controls of a plate, and the wells of one sample."""

from collections.abc import Sequence
from dataclasses import replace

from device.analysis.evidence import HEALTHY, Evidence, pool_reference, pool_wells, unique
from device.analysis.grading import REACTIVITY, Rule
from device.analysis.verdict import judge_well
from device.analysis.well import Measures, measure_well
from device.records import DoseSummary, Outcome, Reason, Reference, SampleVerdict, Stated, Verdict

_SPREAD_WELLS = 3
"""Fewer wells tell next to nothing of how wells differ: with two the quantile of t is 6.3."""
_RISING: tuple[object, ...] = ("non_toxic", "inconclusive", "toxic")
"""Outcomes of wells that say something, the worst last."""


def judge_controls(wells: Sequence[Evidence], rule: Rule) -> tuple[Reference | None, tuple[Reason, ...]]:
    """Return the reference of a plate of `wells`, and what is wrong with its controls.

    Controls are valid where every usable blank and negative well has a grade of at most 1, every usable
    positive well of at least 3, the background is low enough, and one of each kind is usable if the rule
    needs controls or the plate has any of that kind. A well is usable with `fields_min` accepted fields.
    """
    faults: list[Reason] = []
    healthy = [well for well in wells if well.plan.role in HEALTHY]
    positive = [well for well in wells if well.plan.role == "positive"]
    usable = [well for well in healthy if len(well.fields) >= rule.fields_min]
    reference = pool_reference(usable, rule)
    if not healthy and rule.needs_controls:
        faults.append(Reason.NO_CONTROL_REFERENCE)
    if healthy and (reference is None or any(_is_unhealthy(well, rule) for well in usable)):
        faults.append(Reason.NEG_CONTROL_FAILED)
    if reference is not None and reference.n_dead / reference.n_cells > rule.background_max:
        faults.append(Reason.HIGH_BACKGROUND)
    judged = [measure_well(well, reference, rule) for well in positive if len(well.fields) >= rule.fields_min]
    responds = [_is_gradable(m, rule) and (m.grade or 0) >= rule.positive_grade_min for m in judged]
    if (positive or rule.needs_controls) and not (responds and all(responds)):
        faults.append(Reason.POS_CONTROL_FAILED)
    return reference, unique(faults)


def judge_sample(
    wells: Sequence[tuple[Evidence, Verdict]], reference: Reference | None, rule: Rule
) -> SampleVerdict:
    """Return what the wells of one item and dose, at least one, give together, each with its final verdict.

    With policy `any` toxic if any well is, `non_toxic` if all are, else `inconclusive`; with `median` what
    the middle well says, of an even number the worse of the two; with `pooled` what their cells together say,
    wells being the statistical unit. With fewer than `wells_min` usable test wells TOO_FEW_REPLICATES and
    `inconclusive`. `invalid` if every well is, or if the plate's controls failed.
    """
    first, verdicts = wells[0][1], [verdict for _, verdict in wells]
    usable = [(evidence, verdict) for evidence, verdict in wells if verdict.outcome is not Outcome.INVALID]
    pooled = _judge_pooled(usable, reference, rule)
    outcome, reasons = _agree(verdicts, pooled, rule)
    if not usable or any(verdict.control_faults for verdict in verdicts):
        outcome = Outcome.INVALID
    elif first.role == "test" and len(usable) < rule.wells_min:
        outcome = Outcome.INCONCLUSIVE
        reasons = (*reasons, Reason.TOO_FEW_REPLICATES)
    grade, few = _sample_grade(verdicts, pooled, rule), len(usable) < _SPREAD_WELLS
    return SampleVerdict(
        sample=first.sample,
        role=first.role,
        dose=first.dose,
        dose_unit=first.dose_unit,
        outcome=outcome,
        reasons=unique((*reasons, *(reason for verdict in verdicts for reason in verdict.reasons))),
        policy=rule.policy,
        wells=tuple(verdict.well for verdict in verdicts),
        outcomes=tuple(verdict.outcome for verdict in verdicts),
        grade=grade,
        reactivity=None if grade is None else REACTIVITY[grade],
        affected_corrected=None if pooled is None else pooled.affected_corrected,
        bounds=None if pooled is None or few else pooled.bounds,
        growth_inhibition=None if pooled is None else pooled.growth_inhibition,
        growth_inhibition_bounds=None if pooled is None or few else pooled.growth_inhibition_bounds,
    )


def summarize_doses(samples: Sequence[SampleVerdict]) -> tuple[DoseSummary, ...]:
    """Return where each test item with doses becomes toxic, in the order of the plate."""
    items: dict[tuple[str, str], list[tuple[float, SampleVerdict]]] = {}
    for sample in samples:
        if sample.role == "test" and sample.dose is not None and sample.dose_unit is not None:
            items.setdefault((sample.sample, sample.dose_unit), []).append((sample.dose, sample))
    return tuple(
        _summarize(name, unit, [(dose, sample.outcome) for dose, sample in doses])
        for (name, unit), doses in items.items()
    )


def _summarize(sample: str, unit: str, doses: Sequence[tuple[float, Stated]]) -> DoseSummary:
    lowest_toxic = min((dose for dose, outcome in doses if outcome is Outcome.TOXIC), default=None)
    passing = [dose for dose, outcome in doses if str(outcome) == "non_toxic"]
    below = [dose for dose in passing if lowest_toxic is None or dose < lowest_toxic]
    return DoseSummary(sample, unit, lowest_toxic, max(below, default=None), len(below) == len(passing))


def _agree(
    verdicts: Sequence[Verdict], pooled: Verdict | None, rule: Rule
) -> tuple[Stated, tuple[Reason, ...]]:
    """Return what wells say together under the rule's policy; only `any` minds that one is invalid."""
    valid = (verdict.outcome for verdict in verdicts if verdict.outcome is not Outcome.INVALID)
    outcomes = sorted(valid, key=_RISING.index)
    if pooled is None:
        return Outcome.INVALID, ()
    if rule.policy == "pooled" and len(outcomes) >= rule.wells_min:
        return pooled.outcome, pooled.reasons
    if rule.policy == "median":
        return outcomes[len(outcomes) // 2], ()
    all_agree = outcomes[0] == outcomes[-1] and len(outcomes) == len(verdicts)
    return (outcomes[-1] if outcomes[-1] is Outcome.TOXIC or all_agree else Outcome.INCONCLUSIVE), ()


def _judge_pooled(
    usable: Sequence[tuple[Evidence, Verdict]], reference: Reference | None, rule: Rule
) -> Verdict | None:
    """Return the verdict of all usable wells as one whose fields they are; None without any.

    Its interval has W - 1 degrees of freedom and the floor of the correlation applies within wells.
    """
    wells = [evidence for evidence, verdict in usable if Reason.TOO_FEW_FIELDS not in verdict.reasons]
    wells = wells or [evidence for evidence, _ in usable]
    if not wells:
        return None
    least = max(2, rule.wells_min)
    return judge_well(
        pool_wells(wells),
        reference,
        replace(rule, fields_min=least, fields_max=max(least, rule.fields_max), looks=(least,)),
        stage="final",
        scale_may_be_assumed=usable[0][1].scale_may_be_assumed,
    )


def _sample_grade(verdicts: Sequence[Verdict], pooled: Verdict | None, rule: Rule) -> int | None:
    grades = sorted(verdict.grade for verdict in verdicts if verdict.grade is not None)
    if rule.policy == "pooled":
        return None if pooled is None else pooled.grade
    if not grades:
        return None
    return grades[len(grades) // 2] if rule.policy == "median" else grades[-1]


def _is_unhealthy(well: Evidence, rule: Rule) -> bool:
    measures = measure_well(well, None, rule)
    return not _is_gradable(measures, rule) or (measures.grade or 0) > rule.negative_grade_max


def _is_gradable(measures: Measures, rule: Rule) -> bool:
    enough = measures.n_fields_counted >= rule.fields_min and measures.n_cells >= rule.cells_min
    return measures.grade is not None and (measures.destroyed or enough)
