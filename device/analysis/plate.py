"""What the wells of a plate say together: its controls, the samples and the report."""

from collections.abc import Sequence

from device.analysis.grading import Rule, rule_sha256
from device.analysis.verdict import judge_well
from device.analysis.well import Evidence, Measures, measure_well, pool_reference, unique
from device.records import Outcome, PlateReport, Reason, Reference, SampleVerdict, Verdict


def judge_controls(wells: Sequence[Evidence], rule: Rule) -> tuple[Reference | None, tuple[Reason, ...]]:
    """Return the reference of a plate, and what is wrong with its controls.

    Parameters
    ----------
    wells : sequence of Evidence
        All wells of the plate.
    rule : Rule
        Whether controls are needed, and the grades they must reach.

    Returns
    -------
    Reference or None
        Blank and negative wells with enough fields, pooled.
    tuple of Reason
        Empty where the controls are valid: every usable blank and negative well has a grade of at most 1,
        every usable positive well of at least 3, the background is low enough, and one of each kind is usable
        if the rule needs controls or the plate has any of that kind. A well is usable with `fields_min`
        accepted fields.
    """
    faults: list[Reason] = []
    healthy = [well for well in wells if well.plan.role in ("blank", "negative")]
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
    """Return what the wells of one item and dose give together, by the policy `any`.

    Parameters
    ----------
    verdicts : sequence of Verdict
        Final verdicts of at least one well, all of one sample, role and dose.
    rule : Rule
        Gives the number of wells a test sample needs.

    Notes
    -----
    `toxic` if any well is, `non_toxic` if all wells are, else `inconclusive`; with fewer than `wells_min`
    wells that say anything, TOO_FEW_REPLICATES and `inconclusive`. Controls may be single wells. `invalid` if
    every well is, or if the plate's controls failed.
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


def judge_plate(
    plate: str,
    wells: Sequence[Evidence],
    rule: Rule,
    *,
    scale_may_be_assumed: bool = False,
    looks: tuple[int, ...] = (),
) -> tuple[tuple[Verdict, ...], PlateReport]:
    """Return the final verdicts of all wells, in their order, and the report of the plate."""
    reference, faults = judge_controls(wells, rule)
    verdicts = tuple(
        judge_well(
            well,
            reference,
            rule,
            stage="final",
            control_faults=faults,
            looks=looks,
            scale_may_be_assumed=scale_may_be_assumed,
        )
        for well in wells
    )
    samples: dict[tuple[object, ...], list[Verdict]] = {}
    for v in verdicts:
        samples.setdefault((v.sample, v.role, v.dose, v.dose_unit), []).append(v)
    report = PlateReport(
        plate=plate,
        rule=rule.id,
        rule_sha256=rule_sha256(rule),
        controls_valid=not faults,
        reasons=faults,
        samples=tuple(judge_sample(group, rule) for group in samples.values()),
        reference=reference,
        n_wells=len(verdicts),
        simulated=any(verdict.simulated for verdict in verdicts),
    )
    return verdicts, report


def _is_unhealthy(well: Evidence, rule: Rule) -> bool:
    measures = measure_well(well, None, rule)
    return not _is_gradable(measures, rule) or (measures.grade or 0) > rule.negative_grade_max


def _is_gradable(measures: Measures, rule: Rule) -> bool:
    enough = measures.n_fields_counted >= rule.fields_min and measures.n_cells >= rule.cells_min
    return measures.grade is not None and (measures.destroyed or enough)
