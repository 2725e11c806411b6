"""Claims about controls, samples and doses that hold for any rule of a lab."""

import dataclasses

import pytest

from device.analysis.evidence import Evidence
from device.analysis.grading import EXTRACT, USP87, VIABILITY
from device.analysis.plate import _summarize, judge_controls, judge_sample, summarize_doses
from device.analysis.verdict import judge_well
from device.records import FieldCount, ModelId, Outcome, PlateWell, Reason

TOXIC, NON_TOXIC, INCONCLUSIVE, INVALID = (
    Outcome.TOXIC,
    Outcome.NON_TOXIC,
    Outcome.INCONCLUSIVE,
    Outcome.INVALID,
)
MODEL = ModelId("phase-cell", "0" * 64, trusted=True)
HEALTHY, SICK = (58, 2), (6, 54)


def well(name, role, live, dead, n=10, *, dose=None, dose_unit=None, source="measured"):
    fields = tuple(FieldCount(i, live + (-1) ** i * (i % 3), dead, 0, 0.13, 0.5) for i in range(n))
    plan = PlateWell(name, f"{role} item", role, dose, dose_unit, 1)
    return Evidence(plan, fields, 0, (), "adherent", "phase", "hybrid", 0.65, source, MODEL)


def sample_of(wells, rule, *, reference=None, given=(), **other):
    """The sample of `wells`, with the outcomes `given` put over what they are judged to be."""
    judged = [(seen, judge_well(seen, reference, rule, stage="final", **other)) for seen in wells]
    outcomes = given or [verdict.outcome for _, verdict in judged]
    stated = [
        (seen, dataclasses.replace(verdict, outcome=outcome))
        for (seen, verdict), outcome in zip(judged, outcomes, strict=True)
    ]
    return judge_sample(stated, reference, rule)


def items_of(*counts, **other):
    return [well(f"B{i}", "test", *count, **other) for i, count in enumerate(counts)]


BLANK, POSITIVE = well("A1", "blank", *HEALTHY), well("A3", "positive", *SICK)


def faults(*wells, rule=EXTRACT):
    return judge_controls(wells, rule)[1]


def test_a_spotless_negative_is_valid_where_grade_0_is_asked_for():
    assert faults(well("A1", "negative", 60, 0), POSITIVE, rule=USP87) == ()
    assert faults(well("A1", "negative", 54, 6), POSITIVE, rule=USP87) == (Reason.NEG_CONTROL_FAILED,)


def test_a_positive_of_grade_0_never_answers():
    lax = dataclasses.replace(EXTRACT, positive_grade_min=1)
    assert faults(BLANK, well("A3", "positive", 52, 8), rule=lax) == ()
    assert faults(BLANK, well("A3", "positive", 60, 0), rule=lax) == (Reason.POS_CONTROL_FAILED,)


def test_each_positive_must_answer():
    silent = well("A4", "positive", *HEALTHY)
    assert faults(BLANK, POSITIVE, well("A4", "positive", *SICK)) == ()
    assert faults(BLANK, POSITIVE, silent) == (Reason.POS_CONTROL_FAILED,)
    assert faults(BLANK, silent, POSITIVE) == (Reason.POS_CONTROL_FAILED,)


def test_each_blank_must_be_healthy():
    sick = well("A2", "negative", 44, 16)
    assert Reason.NEG_CONTROL_FAILED in faults(BLANK, sick, POSITIVE)
    assert Reason.NEG_CONTROL_FAILED in faults(sick, BLANK, POSITIVE)


def test_controls_of_one_kind_are_judged_where_a_rule_needs_none():
    assert faults(rule=VIABILITY) == ()
    assert faults(BLANK, rule=VIABILITY) == ()
    assert faults(POSITIVE, rule=VIABILITY) == ()
    assert faults(well("A3", "positive", *HEALTHY), rule=VIABILITY) == (Reason.POS_CONTROL_FAILED,)
    assert faults(well("A1", "blank", *SICK), rule=VIABILITY)[0] is Reason.NEG_CONTROL_FAILED


@pytest.mark.parametrize("order", [(TOXIC, INCONCLUSIVE, NON_TOXIC), (INCONCLUSIVE, NON_TOXIC, TOXIC)])
def test_the_order_of_wells_changes_no_sample(order):
    wells = items_of(HEALTHY, HEALTHY, HEALTHY)
    median = dataclasses.replace(VIABILITY, id="our-lab/1", policy="median")
    assert sample_of(wells, VIABILITY, given=order).outcome is TOXIC
    assert sample_of(wells, median, given=order).outcome is INCONCLUSIVE
    undecided = sample_of(wells, VIABILITY, given=(INCONCLUSIVE, NON_TOXIC, NON_TOXIC))
    assert undecided.outcome is INCONCLUSIVE


def test_a_fault_of_the_controls_in_one_well_is_one_of_its_sample():
    wells = items_of(HEALTHY, HEALTHY, HEALTHY)
    judged = [(seen, judge_well(seen, None, VIABILITY, stage="final")) for seen in wells]
    judged[1] = (wells[1], dataclasses.replace(judged[1][1], control_faults=(Reason.POS_CONTROL_FAILED,)))
    assert judge_sample(judged, None, VIABILITY).outcome is INVALID


def test_three_wells_have_bounds_and_two_have_none():
    three, two = (sample_of(items_of(*[HEALTHY] * n), VIABILITY) for n in (3, 2))
    assert three.bounds.low < three.affected_corrected < three.bounds.high < 0.3
    assert (two.bounds, two.growth_inhibition_bounds, two.affected_corrected is None) == (None, None, False)


def test_a_sample_without_a_valid_well_has_no_numbers():
    empty = [well("B1", "test", *HEALTHY, n=0)]
    sample = sample_of(empty, VIABILITY)
    assert (sample.outcome, sample.grade, sample.affected_corrected, sample.bounds) == (
        INVALID,
        None,
        None,
        None,
    )
    pooling = dataclasses.replace(VIABILITY, id="our-lab/1", policy="pooled")
    assert sample_of(empty, pooling).grade is None


@pytest.mark.parametrize(
    ("wells_min", "reason"),
    [
        (1, Reason.INTERVAL_STRADDLES_LIMIT),
        (2, Reason.INTERVAL_STRADDLES_LIMIT),
        (30, Reason.TOO_FEW_REPLICATES),
    ],
)
def test_any_number_of_wells_may_be_asked_for(wells_min, reason):
    rule = dataclasses.replace(VIABILITY, id="our-lab/1", wells_min=wells_min, policy="pooled")
    sample = sample_of(items_of(HEALTHY, HEALTHY), rule)
    assert (sample.outcome, sample.reasons) == (INCONCLUSIVE, (reason,))


@pytest.mark.parametrize(("policy", "grade"), [("any", 4), ("median", 1), ("pooled", 2)])
def test_the_grade_of_a_sample_follows_its_policy(policy, grade):
    rule = dataclasses.replace(EXTRACT, id="our-lab/1", policy=policy, needs_controls=False)
    wells = items_of((50, 10), (50, 10), (6, 54), (50, 10), (50, 10))
    sample = sample_of(wells, rule)
    assert (sample.grade, sample.policy) == (grade, policy)
    middle = dataclasses.replace(rule, policy="median")
    assert sample_of(wells[:4], middle).grade == 1
    assert sample_of(items_of((6, 54), (50, 10), (40, 20), (50, 10), (6, 54)), middle).grade == 2


def test_a_pooled_sample_of_too_few_valid_wells_is_not_pooled():
    rule = dataclasses.replace(VIABILITY, id="our-lab/1", policy="pooled")
    wells = items_of(HEALTHY, HEALTHY, HEALTHY, HEALTHY)
    assert sample_of(wells, rule).outcome is NON_TOXIC
    one_lost = sample_of(wells, rule, given=(INVALID, NON_TOXIC, NON_TOXIC, NON_TOXIC))
    assert one_lost.outcome is NON_TOXIC
    two_lost = sample_of(wells, rule, given=(INVALID, INVALID, NON_TOXIC, NON_TOXIC))
    assert two_lost.outcome is INCONCLUSIVE


def test_wells_with_too_few_fields_stay_out_of_what_is_pooled():
    few = well("B9", "test", *SICK, n=4)
    wells = items_of(HEALTHY, HEALTHY, HEALTHY)
    assert (
        sample_of([*wells, few], VIABILITY).affected_corrected
        == sample_of(wells, VIABILITY).affected_corrected
    )
    assert sample_of([few], VIABILITY).affected_corrected == pytest.approx(0.9, abs=0.01)


def test_a_pooled_sample_of_files_may_pass_with_an_assumed_scale():
    rule = dataclasses.replace(VIABILITY, id="our-lab/1", policy="pooled")
    wells = items_of(HEALTHY, HEALTHY, HEALTHY, source="assumed")
    for allowed, outcome in ((True, NON_TOXIC), (False, INCONCLUSIVE)):
        sample = sample_of(wells, rule, scale_may_be_assumed=allowed)
        assert sample.outcome is outcome
        assert Reason.SCALE_ASSUMED in sample.reasons


def doses_of(**plan):
    return summarize_doses([sample_of([well("B1", plan.pop("role", "test"), *SICK, **plan)], VIABILITY)])


def test_only_test_items_with_doses_are_summarized():
    assert [d.sample for d in doses_of(dose=5.0, dose_unit="%")] == ["test item"]
    assert doses_of(dose=5.0, dose_unit="%", role="positive") == ()
    assert doses_of() == ()
    assert doses_of(dose=5.0) == ()
    assert doses_of(dose_unit="%") == ()


@pytest.mark.parametrize(
    ("doses", "said"),
    [
        ([(30.0, TOXIC), (20.0, TOXIC), (10.0, NON_TOXIC), (5.0, NON_TOXIC)], (20.0, 10.0, True)),
        ([(20.0, TOXIC), (20.0, NON_TOXIC), (10.0, NON_TOXIC)], (20.0, 10.0, False)),
        ([(20.0, INVALID), (10.0, INCONCLUSIVE)], (None, None, True)),
        ([(20.0, INCONCLUSIVE), (10.0, NON_TOXIC), (5.0, NON_TOXIC)], (None, 10.0, True)),
    ],
)
def test_the_first_toxic_dose_and_the_last_passing_one_below_it(doses, said):
    summary = _summarize("item", "%", doses)
    assert (summary.lowest_toxic, summary.highest_non_toxic, summary.is_monotone) == said
