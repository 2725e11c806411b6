"""Claims about plates: controls, samples, and the state that station and files share."""

import dataclasses

import numpy as np
import pytest

from device.analysis.grading import EXTRACT, VIABILITY, rule_sha256
from device.analysis.plate import judge_sample
from device.analysis.plate_state import (
    LIVE_FIELDS,
    add,
    finish,
    provisional,
    start,
    start_live,
)
from device.messages import payload
from device.messages.recompute import evidence_of, recompute, with_decision
from device.records import Outcome, PlateWell, Reason

TOXIC, NON_TOXIC, INCONCLUSIVE, INVALID = (
    Outcome.TOXIC,
    Outcome.NON_TOXIC,
    Outcome.INCONCLUSIVE,
    Outcome.INVALID,
)
CONTROLS = (
    PlateWell("A1", "medium", "blank", None, None, 1),
    PlateWell("A2", "HDPE", "negative", None, None, 1),
    PlateWell("A3", "ZDEC", "positive", None, None, 1),
)
TESTS = tuple(PlateWell(f"B{i}", "gelatin", "test", 10.0, "ug/mL", i) for i in (1, 2, 3))
HEALTHY, SICK = (58, 2), (6, 54)
SEEN = {"A1": HEALTHY, "A2": HEALTHY, "A3": SICK, "B1": HEALTHY, "B2": HEALTHY, "B3": HEALTHY}


@pytest.fixture
def play(make_reading):
    """A function that fills a plate and finishes it; `seen` says live and dead cells by well."""

    def run(seen, rule=EXTRACT, wells=CONTROLS + TESTS, n=10, refused=(), **other):
        state = start(wells, rule, plate="monday", assay="adherent", modality="phase")
        for well in wells:
            live, dead = seen.get(well.well, (0, 0))
            for i in range(n if well.well in seen else 0):
                why = (Reason.BLUR,) if well.well in refused else ()
                cells = (live + (-1) ** i * (i % 3), dead)
                state, _ = add(state, make_reading(*cells, field=i, well=well.well, refused_by=why, **other))
        return finish(state)

    return run


def wells_like(verdict, given):
    """Wells with the evidence of `verdict` and these outcomes."""
    evidence = evidence_of(payload(verdict))
    return [
        (evidence, dataclasses.replace(verdict, outcome=outcome, replicate=i))
        for i, outcome in enumerate(given)
    ]


def outcomes(verdicts):
    return {verdict.well: verdict.outcome for verdict in verdicts}


def test_a_plate_with_valid_controls_gives_wells_samples_and_reference(play):
    verdicts, report = play(SEEN)
    assert outcomes(verdicts) == dict.fromkeys(SEEN, NON_TOXIC) | {"A3": TOXIC}
    assert all(verdict.stage == "final" for verdict in verdicts)
    assert (report.plate, report.rule, report.rule_sha256) == ("monday", EXTRACT.id, rule_sha256(EXTRACT))
    assert (report.controls_valid, report.reasons, report.n_wells) == (True, (), 6)
    assert (report.reference.wells, report.reference.fields_per_well) == (("A1", "A2"), (10, 10))
    samples = {sample.sample: sample for sample in report.samples}
    assert samples["gelatin"].outcome is NON_TOXIC
    assert samples["gelatin"].wells == ("B1", "B2", "B3")
    assert samples["gelatin"].outcomes == (NON_TOXIC,) * 3
    assert (samples["ZDEC"].outcome, samples["ZDEC"].grade) == (TOXIC, 4)
    assert samples["medium"].outcome is NON_TOXIC


def test_verdicts_of_a_plate_are_recomputed_from_what_they_carry(play):
    for verdict in (*play(SEEN)[0], *play(SEEN | {"A1": SICK})[0]):
        assert recompute(payload(verdict)) == verdict


@pytest.mark.parametrize(
    ("what", "changed", "refused", "reasons"),
    [
        ("dead blank", {"A1": SICK}, (), (Reason.NEG_CONTROL_FAILED, Reason.HIGH_BACKGROUND)),
        ("dead negative", {"A2": SICK}, (), (Reason.NEG_CONTROL_FAILED, Reason.HIGH_BACKGROUND)),
        ("negative of grade 2", {"A2": (46, 14)}, (), (Reason.NEG_CONTROL_FAILED, Reason.HIGH_BACKGROUND)),
        ("background of 11 %", {"A1": (53, 7), "A2": (53, 7)}, (), (Reason.HIGH_BACKGROUND,)),
        ("empty blank", {"A1": (1, 0)}, (), (Reason.NEG_CONTROL_FAILED,)),
        ("living positive", {"A3": HEALTHY}, (), (Reason.POS_CONTROL_FAILED,)),
        ("positive of grade 2", {"A3": (32, 28)}, (), (Reason.POS_CONTROL_FAILED,)),
        ("blurred positive", {}, ("A3",), (Reason.POS_CONTROL_FAILED,)),
        ("blurred blank and negative", {}, ("A1", "A2"), (Reason.NEG_CONTROL_FAILED,)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failed_controls_make_every_well_and_sample_invalid(play, what, changed, refused, reasons):
    verdicts, report = play(SEEN | changed, refused=refused)
    assert set(outcomes(verdicts).values()) == {INVALID}, what
    assert {sample.outcome for sample in report.samples} == {INVALID}
    assert not report.controls_valid
    assert set(reasons) <= set(report.reasons)


def test_a_negative_of_grade_1_and_a_positive_of_grade_3_are_valid(play):
    assert play(SEEN | {"A1": (58, 2), "A2": (52, 8), "A3": (20, 35)})[1].reasons == ()


def test_controls_with_the_fewest_fields_and_cells_and_the_highest_background_are_valid(make_reading):
    cells = {"A1": (36, 4), "A2": (36, 4), "A3": (4, 36)}
    for n, valid in ((5, True), (4, False)):
        state = start(CONTROLS, EXTRACT, plate="p", assay="adherent", modality="phase")
        for well, (live, dead) in cells.items():
            for i in range(n):
                state, _ = add(state, make_reading(live, dead, field=i, well=well))
        report = finish(state)[1]
        assert report.controls_valid is valid
        assert report.reference is None or report.reference.n_dead / report.reference.n_cells == 0.1
        assert (Reason.NEG_CONTROL_FAILED in report.reasons) is not valid
        assert (Reason.POS_CONTROL_FAILED in report.reasons) is not valid


@pytest.mark.parametrize("field", [(9, 0), (39, 0)], ids=["a field too small to count", "a cell too few"])
def test_a_blank_with_too_little_to_grade_fails(make_reading, field):
    state = start(CONTROLS, EXTRACT, plate="p", assay="adherent", modality="phase")
    for i in range(5):
        big = (60, 0) if field == (9, 0) else (40, 0)
        state, _ = add(state, make_reading(*(field if i == 0 else big), field=i, well="A1"))
        state, _ = add(state, make_reading(60, 1, field=i, well="A2"))
        state, _ = add(state, make_reading(4, 56, field=i, well="A3"))
    assert finish(state)[1].reasons == (Reason.NEG_CONTROL_FAILED,)


def test_one_blurred_blank_is_left_out_while_another_control_stands(play):
    verdicts, report = play(SEEN, refused=("A1",))
    assert report.controls_valid
    assert report.reference.wells == ("A2",)
    assert outcomes(verdicts)["A1"] is INVALID
    assert outcomes(verdicts)["B1"] is NON_TOXIC


def test_a_destroyed_positive_control_is_a_valid_one(play):
    verdicts, report = play(SEEN | {"A3": (2, 3)})
    assert report.controls_valid
    assert Reason.LAYER_DESTROYED in verdicts[2].reasons


@pytest.mark.parametrize(
    ("missing", "reason"), [((0, 1), Reason.NO_CONTROL_REFERENCE), ((2,), Reason.POS_CONTROL_FAILED)]
)
def test_missing_controls_are_failed_controls_where_the_rule_needs_them(play, missing, reason):
    wells = tuple(well for i, well in enumerate(CONTROLS + TESTS) if i not in missing)
    verdicts, report = play(SEEN, wells=wells)
    assert set(outcomes(verdicts).values()) == {INVALID}
    assert reason in report.reasons
    _, viability = play(SEEN, VIABILITY, wells=wells)
    assert viability.controls_valid


def test_viability_without_controls_gives_verdicts_and_with_failed_controls_none(play):
    verdicts, report = play(SEEN, VIABILITY, wells=TESTS)
    assert set(outcomes(verdicts).values()) == {NON_TOXIC}
    assert (report.controls_valid, report.reference) == (True, None)
    assert set(outcomes(play(SEEN | {"A3": HEALTHY}, VIABILITY)[0]).values()) == {INVALID}


def test_a_well_nobody_looked_at_is_invalid(play):
    seen = {well: cells for well, cells in SEEN.items() if well != "B2"}
    verdicts, report = play(seen)
    assert outcomes(verdicts)["B2"] is INVALID
    assert report.controls_valid


def test_two_wells_are_too_few_for_a_sample(play):
    _, report = play(SEEN, wells=CONTROLS + TESTS[:2])
    gelatin = report.samples[-1]
    assert (gelatin.outcome, gelatin.reasons) == (INCONCLUSIVE, (Reason.TOO_FEW_REPLICATES,))
    _, toxic = play(SEEN | {"B1": SICK}, wells=CONTROLS + TESTS[:2])
    assert toxic.samples[-1].outcome is INCONCLUSIVE
    assert Reason.TOO_FEW_REPLICATES in toxic.samples[-1].reasons


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([NON_TOXIC] * 3, NON_TOXIC),
        ([NON_TOXIC, NON_TOXIC, TOXIC], TOXIC),
        ([INCONCLUSIVE, INCONCLUSIVE, TOXIC], TOXIC),
        ([NON_TOXIC, NON_TOXIC, INCONCLUSIVE], INCONCLUSIVE),
        ([INCONCLUSIVE] * 3, INCONCLUSIVE),
        ([TOXIC] * 3, TOXIC),
        ([INVALID] * 3, INVALID),
        ([NON_TOXIC, NON_TOXIC, INVALID], INCONCLUSIVE),
        ([TOXIC, TOXIC, INVALID], INCONCLUSIVE),
        ([NON_TOXIC] * 3 + [INVALID], INCONCLUSIVE),
        ([TOXIC] * 3 + [INVALID], TOXIC),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_sample_is_toxic_if_any_well_is_and_passes_if_all_do(play, given, expected):
    verdict = play(SEEN)[0][3]
    assert judge_sample(wells_like(verdict, given), verdict.reference, EXTRACT).outcome is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([NON_TOXIC, NON_TOXIC, TOXIC], NON_TOXIC),
        ([NON_TOXIC, INCONCLUSIVE, TOXIC], INCONCLUSIVE),
        ([NON_TOXIC, NON_TOXIC, TOXIC, TOXIC], TOXIC),
        ([NON_TOXIC, NON_TOXIC, INCONCLUSIVE, INCONCLUSIVE], INCONCLUSIVE),
        ([NON_TOXIC, NON_TOXIC, NON_TOXIC, INVALID], NON_TOXIC),
        ([NON_TOXIC, NON_TOXIC, INVALID], INCONCLUSIVE),
        ([INVALID] * 3, INVALID),
    ],
)
def test_with_policy_median_the_middle_well_speaks_and_the_worse_of_two(play, given, expected):
    rule = dataclasses.replace(EXTRACT, id="our-lab/1", policy="median")
    verdict = play(SEEN)[0][3]
    sample = judge_sample(wells_like(verdict, given), verdict.reference, rule)
    assert (sample.outcome, sample.policy) == (expected, "median")


@pytest.mark.parametrize(
    ("wells", "any_says", "pooled_says"),
    [
        ({"B1": (57, 3), "B2": (57, 3), "B3": (57, 3)}, NON_TOXIC, NON_TOXIC),
        ({"B1": (31, 29), "B2": (31, 29), "B3": (31, 29)}, INCONCLUSIVE, INCONCLUSIVE),
        ({"B1": (10, 50), "B2": (50, 10), "B3": (50, 10)}, TOXIC, INCONCLUSIVE),
        ({"B1": (6, 54), "B2": (7, 53), "B3": (5, 55)}, TOXIC, TOXIC),
    ],
    ids=["healthy", "at the limit", "one well apart", "dead"],
)
def test_with_policy_pooled_all_cells_decide_with_wells_as_the_unit(play, wells, any_says, pooled_says):
    pooling = dataclasses.replace(EXTRACT, id="our-lab/1", policy="pooled", rho_min=0.001)
    for rule, expected in ((dataclasses.replace(pooling, policy="any"), any_says), (pooling, pooled_says)):
        sample = next(s for s in play(SEEN | wells, rule=rule)[1].samples if s.sample == "gelatin")
        assert sample.outcome is expected
        assert sample.policy == rule.policy


def test_a_sample_carries_the_numbers_of_its_wells_together(play):
    sample = next(s for s in play(SEEN | {"B3": (46, 14)})[1].samples if s.sample == "gelatin")
    background = 40 / 1202
    together = (20 + 20 + 140) / sum(10 * 60 + 2 for _ in range(3))
    assert sample.affected_corrected == pytest.approx((together - background) / (1 - background), abs=2e-3)
    assert sample.bounds.low < sample.affected_corrected < sample.bounds.high
    assert sample.growth_inhibition == pytest.approx(1 - (58 + 58 + 46) / (3 * 58), abs=2e-3)
    assert sample.growth_inhibition_bounds.low <= sample.growth_inhibition
    assert (sample.grade, sample.reactivity) == (2, "mild")
    two = play(SEEN, wells=CONTROLS + TESTS[:2])[1].samples[-1]
    assert (two.sample, two.bounds, two.growth_inhibition_bounds) == ("gelatin", None, None)
    assert two.affected_corrected is not None


def test_the_first_toxic_dose_is_named(play):
    def doses(outcomes):
        wells = tuple(PlateWell(f"C{i}", "item", "test", dose, "%", 1) for i, dose in enumerate(outcomes))
        seen = SEEN | {f"C{i}": cells for i, cells in enumerate(outcomes.values())}
        rule = dataclasses.replace(EXTRACT, id="our-lab/1", wells_min=1)
        report = play(seen, rule=rule, wells=CONTROLS + wells)[1]
        (summary,) = report.doses
        assert (summary.sample, summary.dose_unit) == ("item", "%")
        return summary.lowest_toxic, summary.highest_non_toxic, summary.is_monotone

    assert doses({100.0: SICK, 25.0: HEALTHY, 50.0: (30, 30), 12.5: HEALTHY}) == (100.0, 25.0, True)
    assert doses({25.0: SICK, 50.0: HEALTHY, 12.5: HEALTHY}) == (25.0, 12.5, False)
    assert doses({25.0: HEALTHY, 50.0: HEALTHY}) == (None, 50.0, True)
    assert doses({25.0: SICK}) == (25.0, None, True)
    assert doses({25.0: (30, 30)}) == (None, None, True)


def test_two_ways_of_reading_one_plate_agree_in_their_decision(play):
    verdicts, report = play(SEEN)
    decision = with_decision(verdicts, report).decision_sha256
    renamed = [dataclasses.replace(v, plate="tuesday", calibrations=("pixel_size-1",)) for v in verdicts]
    other = dataclasses.replace(report, plate="tuesday", operator="A. Fell")
    assert with_decision(renamed, other).decision_sha256 == decision
    changed = play(SEEN | {"B3": (57, 3)})
    assert with_decision(*changed).decision_sha256 != decision


def test_doses_of_one_item_are_samples_of_their_own(play):
    other = tuple(dataclasses.replace(well, well=f"C{i}", dose=100.0) for i, well in enumerate(TESTS))
    _, report = play(SEEN | dict.fromkeys(("C0", "C1", "C2"), SICK), wells=CONTROLS + TESTS + other)
    assert [(s.dose, s.outcome) for s in report.samples[-2:]] == [(10.0, NON_TOXIC), (100.0, TOXIC)]


def test_provisional_verdicts_wait_for_the_controls(make_reading):
    state = start(CONTROLS + TESTS, EXTRACT, plate="p", assay="adherent", modality="phase")
    for i in range(10):
        state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1"))
    assert (verdict.stage, verdict.outcome) == ("provisional", INCONCLUSIVE)
    assert verdict.reasons == (Reason.NO_CONTROL_REFERENCE,)
    for i in range(5):
        state, blank = add(state, make_reading(*HEALTHY, field=i, well="A1"))
    assert blank.outcome is NON_TOXIC
    assert provisional(state, "B1").outcome is NON_TOXIC


def test_provisional_verdicts_are_invalid_above_a_high_background(make_reading):
    state = start(CONTROLS + TESTS, EXTRACT, plate="p", assay="adherent", modality="phase")
    for i in range(5):
        state, _ = add(state, make_reading(*SICK, field=i, well="A1"))
        state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1"))
    assert (verdict.outcome, verdict.reasons) == (INVALID, (Reason.HIGH_BACKGROUND,))


def test_a_state_is_never_changed_and_a_reading_counts_once(make_reading):
    empty = start(TESTS, VIABILITY, plate="p", assay="adherent", modality="phase")
    reading = make_reading(*HEALTHY, well="B1")
    once, first = add(empty, reading)
    twice, second = add(once, reading)
    assert [provisional(state, "B1").n_fields for state in (empty, once, twice)] == [0, 1, 1]
    assert first == second
    assert provisional(once, "B2").n_fields == 0


def test_a_reading_of_another_well_or_of_none_is_left_out(make_reading):
    state = start(TESTS, VIABILITY, plate="p", assay="adherent", modality="phase")
    for well in ("Z9", None):
        after, verdict = add(state, make_reading(*HEALTHY, well=well))
        assert verdict is None
        assert after is state
    with pytest.raises(ValueError, match="well Z9 is not on plate p"):
        provisional(state, "Z9")


@pytest.mark.parametrize("wells", [(), (TESTS[0], TESTS[0])])
def test_a_plate_needs_wells_with_names_of_their_own(wells):
    with pytest.raises(ValueError, match="expected at least one, each with a name of its own"):
        start(wells, EXTRACT, plate="p", assay="adherent", modality="phase")


def test_an_assumed_scale_passes_only_where_it_may(make_reading):
    for allowed, outcome in ((True, NON_TOXIC), (False, INCONCLUSIVE)):
        state = start(TESTS[:1], VIABILITY, plate="p", assay="adherent", modality="phase", live=not allowed)
        for i in range(10):
            state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1", source="assumed"))
        assert verdict.outcome is outcome
        assert finish(state)[0][0].outcome is outcome
        assert Reason.SCALE_ASSUMED in verdict.reasons


def test_looks_hold_for_provisional_and_final_verdicts(make_reading):
    state = start(TESTS[:1], VIABILITY, plate="p", assay="adherent", modality="phase", live=True)
    for i in range(7):
        state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1"))
    assert verdict.looks == finish(state)[0][0].looks == (5, 10, 15, 20)
    assert verdict.n_cells == 300


@pytest.mark.parametrize(
    ("planned", "accepted", "refused", "live", "fixed"),
    [
        (10, 10, 0, True, True),
        (10, 8, 2, True, True),
        (10, 10, 2, True, True),
        (10, 9, 0, True, False),
        (10, 7, 2, True, False),
        (10, 11, 0, True, False),
        (None, 10, 0, True, False),
        (None, 10, 0, False, True),
        (10, 7, 0, False, True),
    ],
)
def test_a_live_well_is_fixed_only_where_its_plan_was_kept(
    make_reading, planned, accepted, refused, live, fixed
):
    well = dataclasses.replace(TESTS[0], fields=planned)
    state = start([well], VIABILITY, plate="p", assay="adherent", modality="phase", live=live)
    for i in range(accepted + refused):
        why = (Reason.BLUR,) * (i >= accepted)
        state, _ = add(state, make_reading(*HEALTHY, field=i, well="B1", refused_by=why))
    verdict = finish(state)[0][0]
    assert verdict.looks == (() if fixed else (5, 10, 15, 20))
    assert verdict.n_fields_planned == planned


def test_a_simulated_field_marks_well_and_plate(play):
    verdicts, report = play(SEEN, simulated=True)
    assert report.simulated
    assert all(verdict.simulated for verdict in verdicts)
    assert not play(SEEN)[1].simulated


def test_one_simulated_well_marks_the_plate(make_reading):
    state = start(TESTS[:2], VIABILITY, plate="p", assay="adherent", modality="phase")
    for well in ("B1", "B2"):
        state, _ = add(state, make_reading(*HEALTHY, well=well, simulated=well == "B2"))
    verdicts, report = finish(state)
    assert [verdict.simulated for verdict in verdicts] == [False, True]
    assert report.simulated


def test_a_plate_keeps_numbers_and_no_pictures(make_reading):
    state = start(TESTS[:1], VIABILITY, plate="p", assay="adherent", modality="phase")
    labels, glimpse = np.ones((4, 4), np.uint16), np.ones((4, 4), np.uint8)
    reading = make_reading(*HEALTHY, well="B1", labels=labels, glimpse=glimpse)
    ((kept,),) = add(state, reading)[0].readings
    assert (kept.cells, kept.labels.shape, kept.glimpse.shape) == ((), (0, 0), (0, 0))
    assert kept.tally == reading.tally


def test_a_plate_is_one_of_files_unless_it_says_that_it_is_live(make_reading):
    state = start(TESTS[:1], VIABILITY, plate="p", assay="adherent", modality="phase")
    for i in range(10):
        state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1", source="assumed"))
    assert (verdict.outcome, verdict.looks, verdict.scale_may_be_assumed) == (NON_TOXIC, (), True)


def test_a_live_view_never_passes_with_an_assumed_scale(make_reading):
    state = start_live(VIABILITY, assay="adherent", modality="phase")
    for i in range(10):
        state, verdict = add(state, make_reading(*HEALTHY, field=i, source="assumed"))
    assert (verdict.outcome, verdict.reasons) == (INCONCLUSIVE, (Reason.SCALE_ASSUMED,))
    assert (verdict.replicate, verdict.looks) == (1, ())


def live(make_reading, rule, fields):
    state = start_live(rule, assay="adherent", modality="phase")
    verdict = None
    for i, (live_cells, dead, refused_by) in enumerate(fields):
        state, verdict = add(state, make_reading(live_cells, dead, field=i, refused_by=refused_by))
    return state, verdict


def test_a_live_view_rolls_over_its_last_ten_fields(make_reading):
    _, verdict = live(make_reading, VIABILITY, [(*SICK, ())] * 30 + [(*HEALTHY, ())] * LIVE_FIELDS)
    assert (verdict.well, verdict.role, verdict.stage) == ("live", "test", "provisional")
    assert (verdict.n_fields, verdict.outcome) == (LIVE_FIELDS, NON_TOXIC)
    assert [field.field for field in verdict.fields] == list(range(30, 40))


def test_a_live_view_that_went_blind_forgets_what_it_said(make_reading):
    _, verdict = live(make_reading, VIABILITY, [(*HEALTHY, ())] * 10 + [(0, 0, (Reason.BLUR,))] * 10)
    assert (verdict.outcome, verdict.reasons) == (INVALID, (Reason.BLUR,))


def test_a_live_view_without_controls_may_be_toxic_but_never_non_toxic(make_reading):
    _, healthy = live(make_reading, EXTRACT, [(*HEALTHY, ())] * 10)
    _, sick = live(make_reading, EXTRACT, [(*SICK, ())] * 10)
    assert (healthy.outcome, sick.outcome) == (INCONCLUSIVE, TOXIC)
    assert Reason.NO_CONTROL_REFERENCE in healthy.reasons


def test_a_live_view_has_no_end(make_reading):
    state, _ = live(make_reading, VIABILITY, [(*HEALTHY, ())])
    with pytest.raises(ValueError, match="has no final verdict"):
        finish(state)


def test_a_plate_holds_no_picture_of_its_readings(make_reading):
    labels = np.ones((480, 640), np.uint16)
    state = start(CONTROLS, EXTRACT, plate="p", assay="adherent", modality="phase")
    state, _ = add(state, make_reading(9, well="A1", labels=labels[:, :]))
    assert state.readings[0][0].labels.base is None, "a view would keep the whole picture"
