"""Claims about rules and grades; every number of a rule has a test that fails when it changes."""

import dataclasses
import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.analysis.grading import (
    EXTRACT,
    REACTIVITY,
    RULES,
    VIABILITY,
    correct_background,
    default_rule,
    grade_lysis,
    grade_share,
    grade_well,
    growth_inhibition,
    is_destroyed,
    rule_sha256,
)

shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("boundary", "grade"), [(0.05, 0), (0.20, 1), (0.50, 2), (0.70, 3)], ids=lambda value: str(value)
)
def test_a_boundary_of_affected_cells_is_in_the_lower_grade_to_the_ulp(boundary, grade):
    below, above = math.nextafter(boundary, 0), math.nextafter(boundary, 1)
    assert [grade_well(x, None, 0.0, EXTRACT) for x in (below, boundary, above)] == [grade, grade, grade + 1]


@pytest.mark.parametrize(("boundary", "grade"), [(0.10, 0), (0.20, 1), (0.50, 2), (0.90, 3)])
def test_a_boundary_of_growth_inhibition_is_in_the_lower_grade_to_the_ulp(boundary, grade):
    below, above = math.nextafter(boundary, 0), math.nextafter(boundary, 1)
    assert [grade_well(0.0, x, 0.0, EXTRACT) for x in (below, boundary, above)] == [grade, grade, grade + 1]


@pytest.mark.parametrize(("boundary", "lower", "upper"), [(0.20, 0, 3), (0.70, 3, 4)])
def test_extensive_lysis_is_at_least_grade_3(boundary, lower, upper):
    assert grade_lysis(boundary, EXTRACT) == lower
    assert grade_lysis(math.nextafter(boundary, 1), EXTRACT) == upper


def test_the_ends_of_the_scale():
    assert grade_share(0.0, EXTRACT.affected_steps) == 0
    assert grade_share(1.0, EXTRACT.affected_steps) == 4
    assert REACTIVITY[grade_well(1.0, 1.0, 1.0, EXTRACT)] == "severe"
    assert REACTIVITY == ("none", "slight", "mild", "moderate", "severe")


def test_the_grade_is_the_worst_of_the_criteria():
    assert grade_well(0.1, 0.0, 0.0, EXTRACT) == 1
    assert grade_well(0.1, 0.4, 0.0, EXTRACT) == 2
    assert grade_well(0.1, 0.4, 0.3, EXTRACT) == 3
    assert grade_well(0.8, 0.4, 0.3, EXTRACT) == 4


def test_a_viability_rule_counts_neither_growth_nor_lysis():
    assert grade_well(0.0, 1.0, 1.0, VIABILITY) == 0


def test_more_than_half_affected_is_above_the_passing_grade():
    assert TOXIC_ABOVE_GRADE == 2
    assert grade_well(EXTRACT.limit, EXTRACT.limit, EXTRACT.lysis_steps[0], EXTRACT) == TOXIC_ABOVE_GRADE


@given(shares, shares, shares, shares)
def test_more_damage_never_lowers_the_grade(x, y, growth, lysed):
    low, high = sorted((x, y))
    assert grade_well(low, growth, lysed, EXTRACT) <= grade_well(high, growth, lysed, EXTRACT)
    assert grade_well(growth, low, lysed, EXTRACT) <= grade_well(growth, high, lysed, EXTRACT)
    assert grade_well(growth, lysed, low, EXTRACT) <= grade_well(growth, lysed, high, EXTRACT)


def test_abbott_takes_the_background_off():
    assert correct_background(0.55, 0.10) == pytest.approx(0.5)
    assert correct_background(0.05, 0.10) == 0
    assert correct_background(1.0, 0.10) == 1
    assert correct_background(0.37, 0.0) == 0.37


@pytest.mark.parametrize("background", [-0.01, 1.0, math.nan])
def test_an_impossible_background_is_refused(background):
    with pytest.raises(ValueError, match="expected 0 to less than 1"):
        correct_background(0.5, background)


def test_growth_inhibition_is_the_missing_share_of_the_controls():
    assert growth_inhibition(75.0, 100.0) == 0.25
    assert growth_inhibition(0.0, 100.0) == 1
    assert growth_inhibition(130.0, 100.0) == 0


def test_a_layer_is_destroyed_with_few_cells_and_hardly_any_live_ones():
    assert is_destroyed(199, 9.9, 100.0, EXTRACT)
    assert not is_destroyed(200, 9.9, 100.0, EXTRACT)
    assert not is_destroyed(199, 10.0, 100.0, EXTRACT)


def test_rules_are_what_the_lab_agreed_on():
    assert dataclasses.asdict(EXTRACT) == {
        "id": "iso10993-5-extract/1",
        "limit": 0.50,
        "needs_controls": True,
        "counts_growth": True,
        "counts_lysis": True,
        "affected_steps": (0.05, 0.20, 0.50, 0.70),
        "growth_steps": (0.10, 0.20, 0.50, 0.90),
        "lysis_steps": (0.20, 0.70),
        "background_max": 0.10,
        "destroyed_below": 0.10,
        "discordant_above": 0.30,
        "fields_min": 5,
        "fields_max": 20,
        "field_cells_min": 10,
        "cells_min": 200,
        "wells_min": 3,
        "confidence": 0.95,
        "rho_min": 0.02,
        "background_cells_min": 300,
        "p_toxic_low": 0.10,
        "p_toxic_high": 0.90,
        "negative_grade_max": 1,
        "positive_grade_min": 3,
    }
    changed = {"id": "viability-70/1", "limit": 0.30, "needs_controls": False}
    changed |= {"counts_growth": False, "counts_lysis": False}
    assert dataclasses.asdict(VIABILITY) == dataclasses.asdict(EXTRACT) | changed
    assert RULES == {"iso10993-5-extract/1": EXTRACT, "viability-70/1": VIABILITY}
    assert (default_rule("adherent"), default_rule("suspension")) == (EXTRACT, VIABILITY)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_hash_of_a_rule_is_that_of_its_canonical_json(rule):
    text = json.dumps(dataclasses.asdict(rule), sort_keys=True, separators=(",", ":"))
    assert rule_sha256(rule) == hashlib.sha256(text.encode()).hexdigest()


def test_any_other_number_in_a_rule_has_another_hash():
    seen = {rule_sha256(EXTRACT)}
    for field in dataclasses.fields(EXTRACT):
        value = getattr(EXTRACT, field.name)
        if isinstance(value, tuple):
            other = (*value[:-1], value[-1] + 0.01)
        else:
            other = (
                value + "x" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1
            )
        seen.add(rule_sha256(dataclasses.replace(EXTRACT, **{field.name: other})))
    assert len(seen) == 1 + len(dataclasses.fields(EXTRACT))
