"""Claims about the numbers of one well, worked out by hand or by the interval that each stands on."""

import dataclasses

import pytest

from device.analysis.evidence import Evidence, mean_p_toxic
from device.analysis.grading import EXTRACT, VIABILITY
from device.analysis.intervals import (
    compare_growth,
    design_effect,
    fields_needed,
    share_above,
    share_interval,
)
from device.analysis.well import measure_well
from device.records import FieldCount, PlateWell, Reason, Reference

TEST = PlateWell("B1", "gelatin", "test", 10.0, "ug/mL", 1)
COUNTS = [(40, 20, 1), (44, 15, 2), (38, 22, 0), (41, 18, 3), (39, 21, 2), (45, 12, 1)]
DEAD, CELLS = [r + y for _, r, y in COUNTS], [sum(c) for c in COUNTS]
LYSED = [y for _, _, y in COUNTS]


def field(live, rounded=0, lysed=0, area_mm2=0.13, confluence=0.5, **other):
    return FieldCount(0, live, rounded, lysed, area_mm2, confluence, **other)


def well(*fields, plan=TEST):
    return Evidence(plan, fields, 0, (), "adherent", "phase", "hybrid", 0.65, "measured")


def reference(*wells):
    fields = tuple(field for several in wells for field in several)
    dead, cells = sum(f.n_dead for f in fields), sum(f.n_cells for f in fields)
    names = tuple(f"A{i}" for i in range(len(wells)))
    return Reference(names, cells, dead, fields, tuple(len(several) for several in wells))


SEEN = well(*(field(*counts) for counts in COUNTS))
BLANK = reference([field(58 + i % 3, 2) for i in range(6)], [field(61 - i % 4, 1) for i in range(6)])
BACKGROUND = BLANK.n_dead / BLANK.n_cells


def criteria_of(measures):
    return {criterion.reason: criterion for criterion in measures.criteria}


def test_bounds_and_reported_interval_stand_on_their_levels():
    measures = measure_well(SEEN, None, VIABILITY)
    for interval, level in ((measures.bounds, 0.95), (measures.ci95, 0.975)):
        assert interval == share_interval(DEAD, CELLS, level, n_fields=6, rho_min=0.02)


def test_the_limit_is_put_where_the_background_moves_it():
    by_affected = criteria_of(measure_well(SEEN, BLANK, EXTRACT))[None]
    limit = BACKGROUND + 0.5 * (1 - BACKGROUND)
    floor = {"n_fields": 6, "rho_min": 0.02}
    effect = design_effect(DEAD, CELLS, **floor)
    assert by_affected.limit == 0.5
    assert by_affected.p_above == share_above(DEAD, CELLS, limit, **floor)
    assert by_affected.n_fields_needed == fields_needed(
        sum(DEAD) / sum(CELLS), limit, CELLS, effect, 0.95, EXTRACT
    )


def test_lysis_is_not_corrected_by_the_background():
    lysis = criteria_of(measure_well(SEEN, BLANK, EXTRACT))[Reason.EXTENSIVE_LYSIS]
    assert lysis.value == sum(LYSED) / sum(CELLS)
    assert lysis.p_above == share_above(LYSED, CELLS, 0.2, n_fields=6, rho_min=0.02)


def test_two_fields_have_a_design_effect_and_one_has_none():
    two, one = (measure_well(well(*SEEN.fields[:n]), None, VIABILITY) for n in (2, 1))
    assert two.design_effect == design_effect(DEAD[:2], CELLS[:2], n_fields=2, rho_min=0.02)
    assert (one.design_effect, one.rho) == (None, None)
    far = well(field(58, 2), field(57, 3))
    assert criteria_of(measure_well(far, None, VIABILITY))[None].n_fields_needed == 5
    assert criteria_of(measure_well(well(field(58, 2)), None, VIABILITY))[None].n_fields_needed is None


@pytest.mark.parametrize(
    ("areas", "amounts", "least"),
    [
        ((0.13, 0.26), [], 1 / 0.26),
        ((None, None), [0.0, 0.0], 0.001),
        ((0.13, None), [0.0, 0.0], 0.001),
    ],
    ids=["by area", "by confluence", "by confluence where one area is unknown"],
)
def test_an_empty_well_is_as_if_each_field_held_one_cell(areas, amounts, least):
    empty = well(*(field(0, area_mm2=area, confluence=0.0) for area in areas))
    amount = (lambda f: f.n_live / f.area_mm2) if not amounts else (lambda f: f.confluence)
    wells = [[amount(f) for f in BLANK.fields[:6]], [amount(f) for f in BLANK.fields[6:]]]
    growth = compare_growth([0.0, 0.0], wells, least=least)
    assert measure_well(empty, BLANK, EXTRACT).growth_inhibition_bounds == growth.interval(0.95)


def test_one_unknown_area_makes_confluence_the_measure_of_all():
    seen = well(field(30, confluence=0.2), field(30, area_mm2=None, confluence=0.4))
    assert measure_well(seen, BLANK, EXTRACT).growth_inhibition == pytest.approx(1 - 0.3 / 0.5)


def test_controls_without_a_living_cell_are_no_measure_of_growth():
    dead = reference([field(0, 60, confluence=0.0)] * 6)
    measures = measure_well(SEEN, dead, EXTRACT)
    assert (measures.growth_inhibition, measures.viability_index) == (None, None)
    assert Reason.GROWTH_INHIBITION not in criteria_of(measures)


def test_a_destroyed_layer_has_grade_4_without_a_range():
    measures = measure_well(well(*[field(1)] * 5), BLANK, EXTRACT)
    assert (measures.destroyed, measures.grade, measures.grade_low, measures.grade_high) == (True, 4, 4, 4)


def test_the_range_of_grades_is_that_of_the_worst_bounds():
    measures = measure_well(well(*[field(30 + i, 30 - i) for i in range(6)]), BLANK, EXTRACT)
    assert (measures.bounds.low < 0.5 < measures.bounds.high) is True
    assert (measures.grade, measures.grade_low, measures.grade_high) == (2, 2, 3)


def test_a_look_that_is_just_reached_counts():
    measures = [measure_well(well(*SEEN.fields[:n]), None, VIABILITY, looks=(2, 4)) for n in (1, 2, 3, 4, 6)]
    assert [m.n_used for m in measures] == [1, 2, 2, 4, 4]


def test_certain_opinions_of_the_field_model_are_held_off_the_ends():
    for said, held in ((1.0, 1 - 1e-6), (0.0, 1e-6), (0.3, 0.3)):
        assert mean_p_toxic([field(1, p_toxic=said)]) == pytest.approx(held, rel=1e-9)
        assert 1 - mean_p_toxic([field(1, p_toxic=said)]) == pytest.approx(1 - held, rel=1e-9)
    assert mean_p_toxic([field(1)]) is None


def test_a_rule_without_growth_has_no_measure_of_it():
    measures = measure_well(SEEN, BLANK, dataclasses.replace(EXTRACT, counts_growth=False))
    assert (measures.growth_inhibition, measures.growth_inhibition_bounds) == (None, None)
