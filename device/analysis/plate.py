"""What wells say together: the controls of a plate, and the wells of one sample."""

from collections.abc import Sequence

from device.analysis.grading import Rule
from device.analysis.well import HEALTHY, Evidence, Measures, measure_well, pool_reference, unique
from device.records import Outcome, Reason, Reference, SampleVerdict, Verdict


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


def judge_sample(verdicts: Sequence[Verdict], rule: Rule) -> SampleVerdict:
    """Return what the final verdicts of one item and dose, at least one, give together: the policy `any`.

    `toxic` if any well is, `non_toxic` if all wells are, else `inconclusive`; with fewer than `wells_min`
    test wells that say anything, TOO_FEW_REPLICATES and `inconclusive`. `invalid` if every well is, or if the
    plate's controls failed.
    """
    first = verdicts[0]
    outcomes = tuple(verdict.outcome for verdict in verdicts)
    reasons = [reason for verdict in verdicts for reason in verdict.reasons]
    n_valid = sum(outcome is not Outcome.INVALID for outcome in outcomes)
    if not n_valid or any(verdict.control_faults for verdict in verdicts):
        outcome = Outcome.INVALID
    elif first.role == "test" and n_valid < rule.wells_min:
        outcome = Outcome.INCONCLUSIVE
        reasons.append(Reason.TOO_FEW_REPLICATES)
    elif Outcome.TOXIC in outcomes:
        outcome = Outcome.TOXIC
    else:
        outcome = outcomes[0] if len(set(outcomes)) == 1 else Outcome.INCONCLUSIVE
    return SampleVerdict(
        sample=first.sample,
        role=first.role,
        dose=first.dose,
        dose_unit=first.dose_unit,
        outcome=outcome,
        reasons=unique(reasons),
        policy="any",
        wells=tuple(verdict.well for verdict in verdicts),
        outcomes=outcomes,
        grade=max((v.grade for v in verdicts if v.grade is not None), default=None),
    )


def _is_unhealthy(well: Evidence, rule: Rule) -> bool:
    measures = measure_well(well, None, rule)
    return not _is_gradable(measures, rule) or (measures.grade or 0) > rule.negative_grade_max


def _is_gradable(measures: Measures, rule: Rule) -> bool:
    enough = measures.n_fields_counted >= rule.fields_min and measures.n_cells >= rule.cells_min
    return measures.grade is not None and (measures.destroyed or enough)
