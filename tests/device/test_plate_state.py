"""Claims about plates: controls, samples, and the state that station and files share."""

import dataclasses

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
from device.analysis.verdict import recompute
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
        assert recompute(verdict) == verdict


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
    wells = [dataclasses.replace(verdict, outcome=outcome, replicate=i) for i, outcome in enumerate(given)]
    assert judge_sample(wells, EXTRACT).outcome is expected


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
        state = start(
            TESTS[:1], VIABILITY, plate="p", assay="adherent", modality="phase", scale_may_be_assumed=allowed
        )
        for i in range(10):
            state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1", source="assumed"))
        assert verdict.outcome is outcome
        assert finish(state)[0][0].outcome is outcome
        assert Reason.SCALE_ASSUMED in verdict.reasons


def test_looks_hold_for_provisional_and_final_verdicts(make_reading):
    state = start(TESTS[:1], VIABILITY, plate="p", assay="adherent", modality="phase", looks=(5, 10, 15, 20))
    for i in range(7):
        state, verdict = add(state, make_reading(*HEALTHY, field=i, well="B1"))
    assert verdict.looks == finish(state)[0][0].looks == (5, 10, 15, 20)
    assert verdict.n_cells == 300


def test_a_simulated_field_marks_well_and_plate(play):
    verdicts, report = play(SEEN, simulated=True)
    assert report.simulated
    assert all(verdict.simulated for verdict in verdicts)
    assert not play(SEEN)[1].simulated


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
