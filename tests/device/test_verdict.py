"""Claims about the verdict of one well: what decides, what holds back, and who may say non_toxic."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import device
from device.analysis.evidence import gather_well, pool_reference
from device.analysis.grading import EXTRACT, PAPER, RULES, USP87, VIABILITY, rule_sha256, rule_text
from device.analysis.intervals import UNKNOWN
from device.analysis.verdict import Case, _fields_in_all, _non_toxic, judge_well
from device.analysis.well import Criterion, measure_well
from device.messages import payload
from device.messages.recompute import recompute
from device.records import (
    FieldCount,
    Interval,
    ModelId,
    Outcome,
    PlateWell,
    Reason,
    Reference,
)

TOXIC, NON_TOXIC, INCONCLUSIVE, INVALID = (
    Outcome.TOXIC,
    Outcome.NON_TOXIC,
    Outcome.INCONCLUSIVE,
    Outcome.INVALID,
)
TEST = PlateWell("B1", "gelatin", "test", 10.0, "ug/mL", 1)
BLANK = PlateWell("A1", "medium", "blank", None, None, 1)
SHARES = {"healthy": (54, 6), "half": (30, 30), "dead": (6, 54)}


def uneven(n):
    """A little spread between fields, so that no variance is zero."""
    return [(-1) ** i * (i % 3) for i in range(n)]


@pytest.fixture(scope="module")
def readings(make_reading):
    def build(live, dead, n=10, lysed=0, **other):
        return [
            make_reading(live + k, dead - lysed, lysed, field=i, **other) for i, k in enumerate(uneven(n))
        ]

    return build


@pytest.fixture(scope="module")
def reference(readings):
    return pool_reference([evidence_of(readings(60, 1), plan=BLANK)], EXTRACT)


def evidence_of(seen, *, plan=TEST, assay="adherent", modality="phase", method="hybrid"):
    return gather_well(plan, seen, assay=assay, modality=modality, method=method)


def judge(seen, reference, rule=EXTRACT, *, stage="final", plan=TEST, method="hybrid", **other):
    return judge_well(evidence_of(seen, plan=plan, method=method), reference, rule, stage=stage, **other)


def limited(rule, limit):
    """The rule with its limit somewhere else."""
    low, high = min(limit, 0.05), max(limit, 0.7)
    return dataclasses.replace(rule, affected_steps=(low, limit, limit, high), grade_limit=1)


@pytest.mark.parametrize(
    ("kind", "outcome"), [("healthy", NON_TOXIC), ("half", INCONCLUSIVE), ("dead", TOXIC)]
)
def test_ten_good_fields_decide_away_from_the_limit(readings, reference, kind, outcome):
    verdict = judge(readings(*SHARES[kind]), reference)
    assert verdict.outcome is outcome
    straddles = Reason.INTERVAL_STRADDLES_LIMIT in verdict.reasons
    assert straddles is (outcome is INCONCLUSIVE)


def test_a_verdict_says_grade_range_numbers_and_rule(readings, reference):
    verdict = judge(readings(42, 18), reference)
    assert (verdict.grade, verdict.grade_low, verdict.grade_high, verdict.reactivity) == (2, 2, 2, "mild")
    assert (verdict.n_fields, verdict.n_fields_counted, verdict.n_fields_refused) == (10, 10, 0)
    assert verdict.n_cells == sum(f.n_cells for f in verdict.fields)
    assert verdict.n_dead == 180
    assert verdict.background == pytest.approx(10 / reference.n_cells)
    assert 0 < verdict.affected_corrected < verdict.affected < 1
    assert verdict.bounds.low < verdict.affected_corrected < verdict.bounds.high
    assert verdict.ci95.low < verdict.bounds.low
    assert verdict.ci95.high > verdict.bounds.high
    assert verdict.growth_inhibition == pytest.approx(0.3, abs=0.02)
    assert verdict.lysed == 0
    assert (verdict.rule, verdict.rule_sha256) == (EXTRACT.id, rule_sha256(EXTRACT))
    assert (verdict.um_per_px, verdict.um_per_px_source) == (0.65, "measured")


# What was seen, what else holds -> outcome, a reason that must be there
TRUTH = [
    ("no field at all", {"n": 0}, INVALID, Reason.TOO_FEW_FIELDS),
    ("every field refused", {"refused_by": (Reason.BLUR,)}, INVALID, Reason.BLUR),
    ("four fields", {"n": 4}, INCONCLUSIVE, Reason.TOO_FEW_FIELDS),
    ("untrusted model", {"cell_model": ModelId("mine", "1" * 64, trusted=False)}, INCONCLUSIVE, "MODEL"),
    ("no model", {"cell_model": None}, INCONCLUSIVE, Reason.MODEL_UNVERIFIED),
    ("assumed scale", {"source": "assumed"}, INCONCLUSIVE, Reason.SCALE_ASSUMED),
    ("no scale", {"source": None}, INVALID, Reason.NO_CALIBRATION),
    ("field model says toxic", {"p_toxic": 0.95}, INCONCLUSIVE, Reason.METHOD_DISAGREE),
    ("other assay", {"assay": "suspension"}, INVALID, Reason.ANALYSIS_FAILED),
    ("other modality", {"modality": "brightfield"}, INVALID, Reason.ANALYSIS_FAILED),
    ("impossible area", {"area_mm2": 0.0}, INVALID, Reason.ANALYSIS_FAILED),
    ("impossible confluence", {"confluence": 1.5}, INVALID, Reason.ANALYSIS_FAILED),
    ("impossible probability", {"p_toxic": float("nan")}, INVALID, Reason.ANALYSIS_FAILED),
    ("invalid reading", {"outcome": INVALID, "reasons": (Reason.DRIFT,)}, INVALID, Reason.DRIFT),
    ("published scale", {"source": "published"}, NON_TOXIC, None),
    ("odd cells", {"odd": True}, INCONCLUSIVE, Reason.OOD_CELLS),
    ("field model agrees", {"p_toxic": 0.05}, NON_TOXIC, None),
    ("field model is unsure", {"p_toxic": 0.5}, NON_TOXIC, None),
]


@pytest.mark.parametrize(("what", "seen", "outcome", "reason"), TRUTH, ids=[row[0] for row in TRUTH])
def test_a_healthy_well_is_non_toxic_only_if_nothing_speaks_against_it(
    readings, reference, what, seen, outcome, reason
):
    verdict = judge(readings(*SHARES["healthy"], **seen), reference)
    assert verdict.outcome is outcome, what
    assert reason is None or any(str(reason) in found for found in verdict.reasons)


@pytest.mark.parametrize(
    ("what", "seen", "outcome"),
    [
        ("untrusted model", {"cell_model": None}, TOXIC),
        ("odd cells", {"odd": True}, TOXIC),
        ("assumed scale", {"source": "assumed"}, TOXIC),
        ("field model says non-toxic", {"p_toxic": 0.05}, INCONCLUSIVE),
        ("field model is unsure", {"p_toxic": 0.5}, TOXIC),
        ("four fields", {"n": 4}, INCONCLUSIVE),
        ("refused", {"refused_by": (Reason.BLUR,)}, INVALID),
    ],
)
def test_a_dead_well_stays_toxic_unless_it_cannot_be_judged(readings, reference, what, seen, outcome):
    assert judge(readings(*SHARES["dead"], **seen), reference).outcome is outcome, what


@pytest.mark.parametrize(
    ("kind", "outcome", "p_toxic"), [("dead", TOXIC, 0.501), ("healthy", NON_TOXIC, 0.499)]
)
def test_the_field_model_holds_back_from_its_limits_on(readings, reference, kind, outcome, p_toxic):
    rule = dataclasses.replace(EXTRACT, p_toxic_low=0.5, p_toxic_high=0.5)
    opposed = judge(readings(*SHARES[kind], p_toxic=0.5), reference, rule)
    assert (opposed.outcome, opposed.reasons) == (INCONCLUSIVE, (Reason.METHOD_DISAGREE,))
    assert judge(readings(*SHARES[kind], p_toxic=p_toxic), reference, rule).outcome is outcome


def test_opinions_of_the_field_model_are_averaged_as_logits(make_reading, reference):
    seen = [make_reading(54, 6, field=i, p_toxic=p) for i, p in enumerate([0.5, 0.9, 0.1, 1.0, 0.0, None])]
    assert judge(seen, reference).p_toxic == pytest.approx(0.5)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", SHARES)
def test_the_papers_method_never_decides_alone(readings, reference, rule, kind):
    seen = readings(*SHARES[kind], method="paper")
    verdict = judge(seen, reference, rule, method="paper")
    assert verdict.outcome is INCONCLUSIVE
    assert Reason.METHOD_UNVERIFIED in verdict.reasons


def test_without_a_reference_a_provisional_verdict_may_be_toxic_but_never_non_toxic(readings):
    for kind, outcome in (("healthy", INCONCLUSIVE), ("dead", TOXIC)):
        verdict = judge(readings(*SHARES[kind]), None, stage="provisional")
        assert verdict.outcome is outcome
        assert Reason.NO_CONTROL_REFERENCE in verdict.reasons


@pytest.mark.parametrize("kind", SHARES)
def test_without_a_reference_a_final_verdict_is_invalid(readings, kind):
    verdict = judge(readings(*SHARES[kind]), None)
    assert verdict.outcome is INVALID
    assert verdict.reasons == (Reason.NO_CONTROL_REFERENCE,)


@pytest.mark.parametrize(
    ("live", "dead", "outcome"),
    [(48, 12, NON_TOXIC), (42, 18, INCONCLUSIVE), (34, 26, TOXIC)],
)
def test_viability_needs_no_controls_and_has_its_limit_at_30_percent(readings, live, dead, outcome):
    assert judge(readings(live, dead), None, VIABILITY).outcome is outcome


@pytest.mark.parametrize("fault", [Reason.NEG_CONTROL_FAILED, Reason.POS_CONTROL_FAILED])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", SHARES)
def test_failed_controls_make_every_well_invalid(readings, reference, rule, kind, fault):
    verdict = judge(readings(*SHARES[kind]), reference, rule, control_faults=(fault,))
    assert verdict.outcome is INVALID
    assert fault in verdict.reasons
    assert verdict.control_faults == (fault,)


def test_a_high_background_is_never_subtracted(readings):
    at_limit = Reference(("A1",), 1000, 100, (FieldCount(0, 900, 100, 0, 0.13, 0.5),) * 10, (10,))
    above = dataclasses.replace(at_limit, n_dead=101)
    assert judge(readings(*SHARES["healthy"]), above).outcome is INVALID
    verdict = judge(readings(*SHARES["dead"]), above)
    assert (verdict.outcome, verdict.control_faults) == (INVALID, (Reason.HIGH_BACKGROUND,))
    assert (verdict.affected_corrected, verdict.bounds, verdict.grade) == (None, None, None)
    assert Reason.HIGH_BACKGROUND not in judge(readings(*SHARES["dead"]), at_limit).reasons


def test_the_background_of_few_control_cells_widens_the_bounds(readings, make_reading):
    def pooled(live, dead):
        seen = [make_reading(live, dead, field=i) for i in range(10)]
        return pool_reference([evidence_of(seen, plan=BLANK)], EXTRACT)

    seen = evidence_of(readings(42, 18))
    many, few = pooled(280, 20), pooled(28, 2)
    narrow, wide = (measure_well(seen, ref, EXTRACT).bounds for ref in (many, few))
    alone = measure_well(seen, None, EXTRACT).bounds
    assert wide.high - wide.low > narrow.high - narrow.low > (alone.high - alone.low) / 0.95


def test_growth_inhibition_alone_makes_a_well_toxic(readings, reference):
    verdict = judge(readings(20, 0), reference)
    assert verdict.outcome is TOXIC
    assert verdict.reasons == (Reason.GROWTH_INHIBITION,)
    assert (verdict.grade, verdict.affected) == (3, 0)
    assert judge(readings(20, 0), reference, dataclasses.replace(EXTRACT, counts_growth=False)).grade == 0


def test_an_uncertain_growth_inhibition_keeps_a_well_from_passing(make_reading, reference):
    seen = [make_reading(live, 0, field=i) for i, live in enumerate([60, 10, 50, 15, 60, 12, 55, 20, 30, 40])]
    verdict = judge(seen, reference)
    assert verdict.bounds.high < 0.05
    assert verdict.growth_inhibition_bounds.low < 0.5 < verdict.growth_inhibition_bounds.high
    assert verdict.outcome is INCONCLUSIVE


def test_growth_is_told_from_the_confluence_where_the_scale_is_assumed(readings):
    control = pool_reference([evidence_of(readings(60, 1, source="assumed"), plan=BLANK)], EXTRACT)
    verdict = judge(readings(20, 0, source="assumed"), control)
    assert verdict.growth_inhibition == pytest.approx(1 - 20 / 60, abs=0.02)
    assert verdict.fields[0].area_mm2 is None


def test_extensive_lysis_makes_a_well_toxic_below_half_affected(readings, reference):
    verdict = judge(readings(36, 24, lysed=22), reference)
    assert verdict.bounds.high <= 0.5
    assert verdict.outcome is TOXIC
    assert verdict.reasons == (Reason.EXTENSIVE_LYSIS, Reason.QUAL_QUANT_DISCORDANT)[: len(verdict.reasons)]
    assert judge(readings(36, 24, lysed=2), reference).outcome is NON_TOXIC
    assert judge(readings(36, 24, lysed=12), reference).outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    ("live", "n", "outcome", "reason"),
    [
        (3, 10, TOXIC, Reason.LAYER_DESTROYED),
        (3, 5, TOXIC, Reason.LAYER_DESTROYED),
        (3, 4, INCONCLUSIVE, Reason.TOO_FEW_FIELDS),
        (0, 5, TOXIC, Reason.LAYER_DESTROYED),
    ],
)
def test_a_destroyed_layer_is_tested_first_on_accepted_fields(
    make_reading, reference, live, n, outcome, reason
):
    verdict = judge([make_reading(live, 1, field=i) for i in range(n)], reference)
    assert verdict.outcome is outcome
    assert reason in verdict.reasons
    assert verdict.n_fields_counted == 0
    assert verdict.grade == 4


def test_too_few_cells_without_a_control_are_inconclusive(make_reading):
    verdict = judge([make_reading(1, 18, field=i) for i in range(10)], None, VIABILITY)
    assert (verdict.n_cells, verdict.outcome, verdict.reasons) == (190, INCONCLUSIVE, (Reason.TOO_FEW_CELLS,))
    enough = judge([make_reading(2, 18, field=i) for i in range(10)], None, VIABILITY)
    assert (enough.n_cells, enough.outcome) == (200, TOXIC)


def test_fields_with_few_cells_enter_the_share_but_do_not_count(make_reading):
    big = [make_reading(50, 10, field=i) for i in range(5)]
    small = [make_reading(0, 9, field=5 + i) for i in range(5)]
    verdict = judge(big + small, None, VIABILITY)
    assert (verdict.n_fields, verdict.n_fields_counted) == (10, 5)
    assert verdict.n_dead == 95
    four = judge(big[:4] + small, None, VIABILITY)
    assert (four.outcome, four.reasons) == (INCONCLUSIVE, (Reason.TOO_FEW_FIELDS,))
    assert judge([*big[:4], make_reading(10, 0, field=9)], None, VIABILITY).n_fields_counted == 5


def test_a_refused_reading_never_enters_a_well(readings, reference, make_reading):
    good = readings(*SHARES["healthy"])
    bad = [make_reading(0, 500, field=20 + i, refused_by=(Reason.BLUR,)) for i in range(5)]
    mixed = judge([*good, *bad], reference)
    assert (mixed.n_fields, mixed.n_fields_refused, mixed.refused_by) == (10, 5, (Reason.BLUR,))
    plain = judge(good, reference)
    assert mixed == dataclasses.replace(plain, n_fields_refused=5, refused_by=(Reason.BLUR,))


def test_a_well_read_by_two_models_or_compared_across_models_is_unverified(readings, reference):
    other = ModelId("phase-cell", "2" * 64, trusted=True)
    seen = readings(*SHARES["healthy"])
    mixed = [dataclasses.replace(seen[0], cell_model=other), *seen[1:]]
    assert judge(mixed, reference).reasons == (Reason.MODEL_UNVERIFIED,)
    assert judge(mixed, reference).cell_model is None
    across = judge(readings(*SHARES["healthy"], cell_model=other), reference)
    assert (across.outcome, across.reasons) == (INCONCLUSIVE, (Reason.MODEL_UNVERIFIED,))


def test_the_least_certain_scale_of_a_well_counts(readings, make_reading, reference):
    seen = [*readings(*SHARES["healthy"]), make_reading(54, 6, field=11, source="assumed")]
    assert judge(seen, reference).um_per_px_source == "assumed"
    assert judge(seen, reference).outcome is INCONCLUSIVE


def test_files_with_an_assumed_scale_may_pass_with_the_flag(readings):
    seen = readings(*SHARES["healthy"], source="assumed")
    verdict = judge(seen, None, VIABILITY, scale_may_be_assumed=True)
    assert (verdict.outcome, verdict.reasons) == (NON_TOXIC, (Reason.SCALE_ASSUMED,))
    assert judge(seen, None, VIABILITY).outcome is INCONCLUSIVE


@pytest.mark.parametrize(("dead", "discordant"), [(17, False), (24, True), (54, False)])
def test_a_pass_that_a_viability_assay_would_fail_is_marked(readings, reference, dead, discordant):
    verdict = judge(readings(60 - dead, dead), reference)
    assert (Reason.QUAL_QUANT_DISCORDANT in verdict.reasons) is discordant
    viability = judge(readings(60 - dead, dead), None, VIABILITY)
    assert Reason.QUAL_QUANT_DISCORDANT not in viability.reasons


def test_control_wells_are_graded_without_themselves(readings, reference):
    verdict = judge(readings(51, 9), reference, plan=BLANK)
    assert verdict.background is None
    assert verdict.growth_inhibition is None
    assert verdict.affected_corrected == verdict.affected


def test_a_bound_on_its_limit_passes_and_is_not_toxic(readings):
    """A limit is moved onto the bound, to the last bit: `not more than` passes, `more than` is toxic."""
    seen = readings(42, 18)
    bounds = judge(seen, None, VIABILITY).bounds
    on_high, on_low = (limited(VIABILITY, end) for end in (bounds.high, bounds.low))
    assert judge(seen, None, on_high).outcome is NON_TOXIC
    assert judge(seen, None, on_low).outcome is INCONCLUSIVE


def test_lysis_and_growth_on_their_limit_pass_and_are_not_toxic(readings, reference):
    seen = readings(50, 10, lysed=6)
    lysed = measure_well(evidence_of(seen), reference, EXTRACT).lysed_bounds
    for end, outcome in ((lysed.high, NON_TOXIC), (lysed.low, INCONCLUSIVE)):
        rule = dataclasses.replace(EXTRACT, lysis_steps=(end, 0.7))
        assert judge(seen, reference, rule).outcome is outcome
    halved = readings(30, 0)
    growth = measure_well(evidence_of(halved), reference, EXTRACT).growth_inhibition_bounds
    for end, outcome in ((growth.high, NON_TOXIC), (growth.low, INCONCLUSIVE)):
        rule = dataclasses.replace(EXTRACT, growth_steps=(0.1, 0.2, end, 0.9))
        assert judge(halved, reference, rule).outcome is outcome


@pytest.mark.parametrize(("n", "outcome"), [(4, INCONCLUSIVE), (5, TOXIC)])
def test_growth_inhibition_decides_from_the_fewest_fields_on(make_reading, reference, n, outcome):
    assert judge([make_reading(12, 0, field=i) for i in range(n)], reference).outcome is outcome


def test_a_few_more_fields_are_asked_for_where_they_would_help(readings, reference):
    assert judge(readings(*SHARES["healthy"], n=3), reference).fields_more == 2
    near = judge(readings(34, 26, n=5), None, limited(VIABILITY, 0.5))
    assert near.outcome is INCONCLUSIVE
    assert 1 <= near.fields_more <= 15
    assert judge(readings(*SHARES["half"]), reference).fields_more is None
    assert judge(readings(*SHARES["healthy"]), reference).fields_more is None


def test_a_well_that_should_have_decided_is_asked_for_one_field_more(make_reading):
    seen = [make_reading(36, 24, field=i) for i in range(5)]
    rule = limited(VIABILITY, 0.479)
    (affected,) = measure_well(evidence_of(seen), None, rule).criteria
    assert affected.n_fields_needed == 5
    assert judge(seen, None, rule).fields_more == 1


def test_fields_are_asked_for_up_to_the_most_and_the_next_look(readings, make_reading):
    most = dataclasses.replace(VIABILITY, fields_min=20, looks=(20,))
    assert judge(readings(*SHARES["healthy"], n=3), None, most).fields_more == 17
    small = [make_reading(5, 4, field=20 + i) for i in range(2)]
    seen = [make_reading(36, 24, field=i) for i in range(8)]
    at_look = judge([*seen, *small], None, limited(VIABILITY, 0.47), looks=LOOKS)
    assert (at_look.n_fields, at_look.n_fields_counted, at_look.fields_more) == (10, 8, 5)
    few = judge([*seen[:4], *small], None, VIABILITY, looks=LOOKS)
    assert (few.reasons, few.fields_more) == ((Reason.TOO_FEW_FIELDS,), 4)


def test_growth_says_how_many_fields_it_still_needs(make_reading, reference):
    seen = [make_reading(live, 0, field=i) for i, live in enumerate([55, 20, 45, 25, 50, 30])]
    verdict = judge(seen, reference)
    assert verdict.reasons == (Reason.INTERVAL_STRADDLES_LIMIT, Reason.QUAL_QUANT_DISCORDANT)
    criteria = {c.reason: c for c in measure_well(evidence_of(seen), reference, EXTRACT).criteria}
    growth, affected = criteria[Reason.GROWTH_INHIBITION], criteria[None]
    assert affected.bounds.high < affected.limit
    assert growth.n_fields_needed > 6
    assert verdict.fields_more == growth.n_fields_needed - 6


def test_one_criterion_is_enough_to_be_toxic_and_passing_takes_all(make_reading):
    above, below = ((0.6, Interval(0.45, 0.75)), (0.4, Interval(0.3, 0.55)))
    sure = Criterion(None, 0.1, 0.5, Interval(0.05, 0.2), 0.0, 5)

    def criterion(kind, needed):
        return Criterion(Reason.GROWTH_INHIBITION, kind[0], 0.5, kind[1], None, needed)

    assert _fields_in_all([sure, criterion(above, 12), criterion(above, 9), criterion(below, 8)]) == 9
    assert _fields_in_all([criterion(above, None), criterion(above, 9)]) == 9
    assert _fields_in_all([criterion(above, None), criterion(below, 9)]) is None
    assert _fields_in_all([sure, criterion(below, 12), criterion(below, 9)]) == 12
    assert _fields_in_all([sure, criterion(below, None), criterion(below, 9)]) is None
    assert _fields_in_all([sure]) is None
    on_its_limit = Criterion(None, 0.5, 0.5, Interval(0.4, 0.6), 0.5, 7)
    assert _fields_in_all([on_its_limit]) == 7
    assert _fields_in_all([on_its_limit, criterion(below, 9)]) == 9
    passes_just = Criterion(None, 0.4, 0.5, Interval(0.3, 0.5), 0.05, None)
    assert _fields_in_all([passes_just, criterion(below, 9)]) == 9


@pytest.mark.parametrize(("kind", "decided"), [("healthy", True), ("half", False), ("dead", True)])
def test_a_decided_well_says_how_sure_it_is(readings, reference, kind, decided):
    verdict = judge(readings(*SHARES[kind]), reference)
    assert (verdict.confidence is not None) is decided
    assert verdict.confidence is None or 0.95 <= verdict.confidence <= 1


def test_confidence_is_that_of_the_surest_harm_and_of_the_least_sure_safety(
    readings, make_reading, reference
):
    def criteria_of(seen):
        return {c.reason: c.p_above for c in measure_well(evidence_of(seen), reference, EXTRACT).criteria}

    passing = [
        make_reading(live, 2, field=i) for i, live in enumerate([50, 44, 36, 52, 46, 40, 38, 50, 49, 40])
    ]
    p_above = criteria_of(passing)
    assert set(p_above) == {None, Reason.GROWTH_INHIBITION, Reason.EXTENSIVE_LYSIS}
    assert judge(passing, reference).confidence == 1 - max(p_above.values())
    toxic = readings(20, 34)
    harm = criteria_of(toxic)
    assert harm[Reason.EXTENSIVE_LYSIS] < 0.5
    assert judge(toxic, reference).confidence == max(harm[None], harm[Reason.GROWTH_INHIBITION])


def test_a_destroyed_layer_is_as_sure_as_its_growth(make_reading, reference):
    destroyed = judge([make_reading(0, 1, field=i) for i in range(6)], reference)
    assert (destroyed.outcome, destroyed.grade) == (TOXIC, 4)
    assert destroyed.confidence > 0.99


@pytest.mark.parametrize(
    ("p_toxic", "leans"), [(0.91, True), (0.89, None), (0.5, None), (0.11, None), (0.09, False), (None, None)]
)
def test_an_undecided_well_says_which_way_the_field_model_leans(readings, reference, p_toxic, leans):
    verdict = judge(readings(*SHARES["half"], p_toxic=p_toxic), reference)
    assert (verdict.outcome, verdict.leans_toxic) == (INCONCLUSIVE, leans)
    ends = {} if leans is None else {"p_toxic_high" if leans else "p_toxic_low": verdict.p_toxic}
    at_end = dataclasses.replace(EXTRACT, **ends)
    assert judge(readings(*SHARES["half"], p_toxic=p_toxic), reference, at_end).leans_toxic is leans
    decided = judge(readings(*SHARES["dead"], p_toxic=0.95), reference)
    assert (decided.outcome, decided.leans_toxic) == (TOXIC, None)


@pytest.mark.parametrize("kind", SHARES)
def test_the_papers_rule_grades_and_never_decides(readings, kind):
    verdict = judge(readings(*SHARES[kind]), None, PAPER)
    assert verdict.outcome is INCONCLUSIVE
    assert Reason.METHOD_UNVERIFIED in verdict.reasons
    assert verdict.grade == {"healthy": 1, "half": 2, "dead": 4}[kind]


def test_a_stricter_house_rule_fails_what_iso_passes(readings, reference):
    seen = readings(40, 20)
    strict = dataclasses.replace(EXTRACT, id="our-lab/1", grade_limit=1)
    assert judge(seen, reference).outcome is NON_TOXIC
    assert judge(seen, reference, strict).outcome is TOXIC
    assert judge(seen, reference, USP87).outcome is NON_TOXIC


def test_a_well_tells_its_viability_index_and_its_correlation(readings, reference):
    verdict = judge(readings(90, 6), reference)
    assert verdict.viability_index == pytest.approx(90 / 60, rel=1e-2)
    assert verdict.growth_inhibition == 0.0
    cells = [field.n_cells for field in verdict.fields]
    per_field = sum(n * n for n in cells) / sum(cells)
    assert verdict.rho == pytest.approx((verdict.design_effect - 1) / (per_field - 1))
    assert verdict.rho >= EXTRACT.rho_min
    assert judge(readings(90, 6), None, VIABILITY).viability_index is None


LOOKS = (5, 10, 15, 20)


def test_an_open_ended_well_is_judged_at_its_looks_only(readings, reference):
    seen = readings(*SHARES["healthy"], n=24)
    by_n = {n: judge(seen[:n], reference, looks=LOOKS) for n in (4, 5, 9, 10, 24)}
    assert by_n[9].bounds == by_n[5].bounds
    assert by_n[10].bounds != by_n[9].bounds
    assert by_n[24].n_fields == 24
    assert by_n[24].n_cells == sum(reading.tally.n_cells for reading in seen[:20])
    assert by_n[4].outcome is INCONCLUSIVE
    assert by_n[4].fields_more == 1


def test_an_open_ended_well_divides_its_error_among_the_looks(readings, reference):
    seen = evidence_of(readings(42, 18))
    fixed, open_ended = (
        measure_well(seen, reference, EXTRACT),
        measure_well(seen, reference, EXTRACT, looks=LOOKS),
    )
    strict = dataclasses.replace(EXTRACT, confidence=1 - 0.05 / 4)
    assert open_ended.bounds == measure_well(seen, reference, strict).bounds
    assert open_ended.bounds.low < fixed.bounds.low
    assert open_ended.ci95 == fixed.ci95


def test_one_field_knows_nothing(make_reading, reference):
    verdict = judge([make_reading(0, 60)], reference, stage="provisional")
    assert verdict.outcome is INCONCLUSIVE
    assert (verdict.bounds, verdict.growth_inhibition_bounds) == (UNKNOWN, UNKNOWN)
    assert (verdict.grade, verdict.grade_low, verdict.grade_high) == (4, 0, 4)


def test_a_field_without_cells_has_no_share(make_reading):
    verdict = judge([make_reading(0, 0, field=i) for i in range(6)], None, VIABILITY)
    assert (verdict.affected, verdict.bounds, verdict.grade, verdict.reactivity) == (None, None, None, None)
    assert verdict.outcome is INCONCLUSIVE


counts = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(0, 40)), min_size=1, max_size=12
)


@given(counts, st.integers(0, 11), st.integers(1, 200), st.booleans(), st.sampled_from(list(RULES.values())))
def test_more_dead_cells_never_turn_toxic_to_non_toxic(
    make_reading, reference, seen, which, more, replaces_live, rule
):
    which %= len(seen)
    live, rounded, lysed = seen[which]
    worse = list(seen)
    worse[which] = (max(0, live - more) if replaces_live else live, rounded + more, lysed)
    before, after = (
        judge([make_reading(*c, field=i) for i, c in enumerate(cells)], reference, rule)
        for cells in (seen, worse)
    )
    assert not (before.outcome is TOXIC and after.outcome is NON_TOXIC)
    if replaces_live and more <= live:
        assert after.grade is None or before.grade is None or after.grade >= before.grade or before.grade == 4


@given(counts.flatmap(lambda seen: st.tuples(st.just(seen), st.permutations(range(len(seen))))))
def test_the_order_of_fields_changes_nothing(make_reading, reference, drawn):
    seen, order = drawn
    fields = [make_reading(*cells, field=i, p_toxic=0.3 + 0.01 * i) for i, cells in enumerate(seen)]
    assert judge(fields, reference) == judge([fields[i] for i in order], reference)


@given(
    counts,
    st.sampled_from(list(RULES.values())),
    st.sampled_from(["provisional", "final"]),
    st.sampled_from([(), LOOKS]),
    st.booleans(),
    st.sampled_from(["measured", "assumed", None]),
)
def test_a_verdict_is_recomputed_from_what_it_carries(
    make_reading, reference, seen, rule, stage, looks, compared, source
):
    fields = [make_reading(*cells, field=i, source=source) for i, cells in enumerate(seen)]
    verdict = judge(fields, reference if compared else None, rule, stage=stage, looks=looks)
    assert recompute(payload(verdict)) == verdict
    assert verdict.outcome is not NON_TOXIC or (
        verdict.n_fields_counted >= 5 and verdict.bounds.high <= rule.limit
    )


def test_a_tampered_verdict_is_noticed(readings, reference):
    verdict = judge(readings(*SHARES["dead"]), reference)
    said = payload(verdict)
    assert recompute(said | {"outcome": "non_toxic", "bounds": {"low": 0.0, "high": 0.1}}) == verdict
    with pytest.raises(ValueError, match=r"rule mine/1 .* is unknown; expected one of iso10993-5-extract/1"):
        recompute(said | {"rule": "mine/1"})
    with pytest.raises(ValueError, match="is unknown"):
        recompute(said | {"rule_sha256": "0" * 64})
    with pytest.raises(ValueError, match="9 of 10 fields are here; expected all of them"):
        recompute(said | {"fields": said["fields"][1:]})


def test_a_rule_of_the_lab_recomputes_from_its_text(readings, reference):
    rule = dataclasses.replace(EXTRACT, id="mine/1", grade_limit=1)
    verdict = judge(readings(42, 18), reference, rule)
    said = payload(verdict)
    assert verdict.rule_text == rule_text(rule)
    assert recompute(said) == verdict
    other = rule_text(dataclasses.replace(rule, cells_min=201))
    with pytest.raises(ValueError, match=r"rule mine/1 .* is unknown"):
        recompute(said | {"rule_text": other})
    with pytest.raises(ValueError, match=r"rule iso10993-5-extract/1 .* is unknown"):
        recompute(said | {"rule": EXTRACT.id})


def test_every_number_of_a_verdict_fits_into_json(readings, reference):
    for kind in SHARES:
        verdict = judge(readings(*SHARES[kind]), reference)
        json.dumps(dataclasses.asdict(verdict), allow_nan=False, default=str)


def _constructs_non_toxic(tree):
    """Names of the functions in which the outcome stands other than in a comparison."""
    compared = {id(x) for node in ast.walk(tree) if isinstance(node, ast.Compare) for x in ast.walk(node)}
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "NON_TOXIC" and id(node) not in compared:
            inside = [f.name for f in functions if node in ast.walk(f)]
            yield inside[-1] if inside else "module"
        if isinstance(node, ast.Call | ast.Subscript):
            called = node.func if isinstance(node, ast.Call) else node.value
            if isinstance(called, ast.Name) and called.id in {"Outcome", "NonToxic"}:
                inside = [f.name for f in functions if node in ast.walk(f)]
                yield f"{called.id} made in {inside[-1] if inside else 'module'}"


def test_exactly_one_function_constructs_non_toxic():
    root = Path(device.__file__).parent
    found = [
        (path.relative_to(root).as_posix(), name)
        for path in sorted(root.rglob("*.py"))
        for name in _constructs_non_toxic(ast.parse(path.read_text("utf-8")))
    ]
    assert found == [("analysis/verdict.py", "NonToxic made in _non_toxic"), ("records/words.py", "__new__")]


@pytest.mark.parametrize(
    ("of", "changed"),
    [
        ("evidence", {"fields": ()}),
        ("evidence", {"um_per_px_source": None}),
        ("case", {"control_faults": (Reason.POS_CONTROL_FAILED,)}),
        ("measures", {"n_fields_counted": 4}),
        ("measures", {"n_cells": 199}),
        ("measures", {"destroyed": True}),
        ("measures", {"criteria": ()}),
        ("measures", {"criteria": (Criterion(None, 0.1, 0.5, UNKNOWN, None, None),)}),
    ],
    ids=str,
)
def test_non_toxic_is_not_constructed_where_any_one_thing_is_missing(readings, reference, of, changed):
    evidence = evidence_of(readings(*SHARES["healthy"]))
    measures = measure_well(evidence, reference, EXTRACT)
    case = Case(evidence, measures, reference, EXTRACT, "final", (), (), False, None)
    assert _non_toxic(case) == (NON_TOXIC, ())
    parts = {"evidence": evidence, "measures": measures}
    without = changed if of == "case" else {of: dataclasses.replace(parts[of], **changed)}
    assert _non_toxic(dataclasses.replace(case, **without)) == (INCONCLUSIVE, ())


def test_a_pass_is_discordant_by_damage_that_is_there_and_only_below_the_limit(readings, make_reading):
    """The rule that calls any damage discordant finds none in a well without; see also the marked passes."""
    control = pool_reference([evidence_of(readings(58, 0), plan=BLANK)], EXTRACT)
    sensitive = dataclasses.replace(EXTRACT, discordant_above=0.005)
    assert judge(readings(60, 0), control, sensitive).reasons == ()
    assert judge(readings(60, 1), control, sensitive).reasons == (Reason.QUAL_QUANT_DISCORDANT,)
    inhibited = [make_reading(36, 0, field=i) for i in range(10)]
    assert judge(inhibited, control).reasons == (Reason.QUAL_QUANT_DISCORDANT,)
    at = dataclasses.replace(EXTRACT, discordant_above=judge(inhibited, control).growth_inhibition)
    assert judge(inhibited, control, at).reasons == ()
    as_strict = dataclasses.replace(EXTRACT, affected_steps=(0.05, 0.2, 0.3, 0.7))
    assert judge(inhibited, control, as_strict).reasons == ()


@pytest.mark.parametrize(("n_odd", "outcome"), [(5, NON_TOXIC), (6, INCONCLUSIVE)])
def test_a_majority_of_odd_fields_rules_out_non_toxic(readings, reference, n_odd, outcome):
    healthy, odd = readings(*SHARES["healthy"]), readings(*SHARES["healthy"], odd=True)
    verdict = judge(odd[:n_odd] + healthy[n_odd:], reference)
    assert verdict.outcome is outcome
    assert (Reason.OOD_CELLS in verdict.reasons) is (outcome is INCONCLUSIVE)
    assert recompute(payload(verdict)) == verdict
