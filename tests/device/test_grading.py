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
    grade_share,
    grade_well,
    growth_inhibition,
    is_destroyed,
    own_rule_text,
    rule_sha256,
    rule_text,
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
    assert grade_well(0.0, None, boundary, EXTRACT) == lower
    assert grade_well(0.0, None, math.nextafter(boundary, 1), EXTRACT) == upper


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


def test_growth_that_nobody_knows_is_none_at_all():
    strict = dataclasses.replace(EXTRACT, growth_steps=(0.0, 0.2, 0.5, 0.9))
    assert grade_well(0.0, None, 0.0, strict) == 0
    assert grade_well(0.0, 0.001, 0.0, strict) == 1


def test_a_viability_rule_counts_neither_growth_nor_lysis():
    assert grade_well(0.0, 1.0, 1.0, VIABILITY) == 0


def test_more_than_half_affected_is_above_the_passing_grade():
    for rule in (EXTRACT, VIABILITY, dataclasses.replace(EXTRACT, grade_limit=1)):
        at_limit = rule.limit, rule.growth_limit
        assert grade_well(*at_limit, 0.2, rule) <= rule.grade_limit
        assert grade_well(math.nextafter(rule.limit, 1), 0.0, 0.0, rule) > rule.grade_limit
    strict = dataclasses.replace(EXTRACT, grade_limit=1)
    assert (EXTRACT.limit, EXTRACT.growth_limit, EXTRACT.lysis_limit) == (0.5, 0.5, 0.2)
    assert (strict.limit, strict.growth_limit, strict.lysis_limit) == (0.2, 0.2, 0.2)
    lax = dataclasses.replace(EXTRACT, grade_limit=3)
    assert (lax.limit, lax.growth_limit, lax.lysis_limit) == (0.7, 0.9, 0.7)
    assert VIABILITY.limit == 0.3


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
        "needs_controls": True,
        "counts_growth": True,
        "counts_lysis": True,
        "decides": True,
        "policy": "any",
        "grade_limit": 2,
        "affected_steps": (0.05, 0.20, 0.50, 0.70),
        "growth_steps": (0.10, 0.20, 0.50, 0.90),
        "lysis_steps": (0.20, 0.70),
        "background_max": 0.10,
        "destroyed_below": 0.10,
        "discordant_above": 0.30,
        "fields_min": 5,
        "fields_max": 20,
        "looks": (5, 10, 15, 20),
        "field_cells_min": 10,
        "cells_min": 200,
        "wells_min": 3,
        "confidence": 0.95,
        "rho_min": 0.02,
        "p_toxic_low": 0.10,
        "p_toxic_high": 0.90,
        "negative_grade_max": 1,
        "positive_grade_min": 3,
    }
    counts_alone = {"needs_controls": False, "counts_growth": False, "counts_lysis": False}
    changes = {
        "iso10993-5-extract/1": {},
        "usp87/1": {"negative_grade_max": 0},
        "viability-70/1": {"grade_limit": 1, "affected_steps": (0.30, 0.30, 0.50, 0.70)} | counts_alone,
        "paper-2020/1": {"decides": False} | counts_alone,
    }
    agreed = dataclasses.asdict(EXTRACT)
    assert {name: dataclasses.asdict(rule) for name, rule in RULES.items()} == {
        name: agreed | {"id": name} | change for name, change in changes.items()
    }
    assert (default_rule("adherent"), default_rule("suspension")) == (EXTRACT, VIABILITY)


def test_viability_has_the_bands_of_the_assay():
    shares = (0.0, 0.3, 0.31, 0.5, 0.51, 0.7, 0.71)
    words = ("none", "none", "mild", "mild", "moderate", "moderate", "severe")
    assert tuple(REACTIVITY[grade_well(share, None, 0.0, VIABILITY)] for share in shares) == words


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": "our lab"}, "id is 'our lab'; expected a name and a version"),
        ({"id": "lab"}, "id is 'lab'"),
        ({"id": 'a"/1'}, "id is"),
        ({"background_max": 1.0}, r"background_max is 1.0; expected 0 to less than 1"),
        ({"destroyed_below": -0.1}, "destroyed_below is -0.1"),
        ({"discordant_above": 1.0}, "discordant_above is 1.0"),
        ({"rho_min": 1.0}, "rho_min is 1.0"),
        ({"affected_steps": (0.2, 0.1, 0.5, 0.7)}, "affected_steps is .* none below the one before"),
        ({"affected_steps": (0.1, 0.2, 0.5)}, "affected_steps is .* expected 4 shares"),
        ({"growth_steps": (0.1, 0.2, 0.5, 1.001)}, "growth_steps is"),
        ({"lysis_steps": (-0.1, 0.5)}, "lysis_steps is .* expected 2 shares"),
        ({"p_toxic_low": 0.91}, "p_toxic_low and p_toxic_high is"),
        ({"grade_limit": 4}, "grade_limit is 4; expected 0 to 3"),
        ({"grade_limit": -1}, "grade_limit is -1"),
        ({"negative_grade_max": 3}, "negative_grade_max is 3; expected 0 to 2"),
        ({"positive_grade_min": 0}, "positive_grade_min is 0; expected 1 to 4"),
        ({"fields_min": 1, "looks": (5,)}, "fields_min is 1; expected 2 to 20"),
        ({"fields_min": 21, "looks": (21,)}, "fields_min is 21"),
        ({"field_cells_min": 1}, "field_cells_min is 1; expected 2 to 1000"),
        ({"cells_min": 0}, "cells_min is 0; expected 1 to 100000"),
        ({"wells_min": 0}, "wells_min is 0; expected 1 to 100"),
        ({"confidence": 0.49}, "confidence is 0.49; expected 0.5 to 0.9999"),
        ({"looks": ()}, "looks is .* expected ascending numbers of fields from 5 on"),
        ({"looks": (10, 5)}, "looks is"),
        ({"looks": (4, 10)}, "looks is"),
    ],
)
def test_a_rule_that_cannot_decide_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(EXTRACT, **changed)


def test_all_faults_of_a_rule_are_said_at_once():
    with pytest.raises(ValueError, match=r"cells_min is 0.*wells_min is 0"):
        dataclasses.replace(EXTRACT, cells_min=0, wells_min=0)


def test_the_ends_of_what_a_rule_may_say_are_allowed():
    low = {"grade_limit": 0, "negative_grade_max": 0, "positive_grade_min": 1, "fields_min": 2, "looks": (2,)}
    low |= {"field_cells_min": 2, "cells_min": 1, "wells_min": 1, "confidence": 0.5, "rho_min": 0.0}
    high = {"grade_limit": 3, "negative_grade_max": 2, "positive_grade_min": 4, "fields_min": 20}
    high |= {"looks": (20,), "field_cells_min": 1000, "cells_min": 100_000, "wells_min": 100}
    high |= {"confidence": 0.9999, "affected_steps": (0.0, 0.0, 1.0, 1.0), "p_toxic_high": 1.0}
    for changed in (low, high):
        assert dataclasses.replace(EXTRACT, **changed).fields_min == changed["fields_min"]


def test_only_a_rule_of_the_labs_own_carries_its_text():
    own = dataclasses.replace(EXTRACT, id="our-lab/1", grade_limit=1)
    assert own_rule_text(own) == rule_text(own)
    assert [own_rule_text(rule) for rule in RULES.values()] == [None] * len(RULES)
    disguised = dataclasses.replace(EXTRACT, grade_limit=1)
    assert own_rule_text(disguised) is not None


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_hash_of_a_rule_is_that_of_its_canonical_json(rule):
    text = json.dumps(dataclasses.asdict(rule), sort_keys=True, separators=(",", ":"))
    assert rule_sha256(rule) == hashlib.sha256(text.encode()).hexdigest()


def test_any_other_number_in_a_rule_has_another_hash():
    other = {"id": "iso10993-5-extract/2", "policy": "pooled", "looks": (5, 10, 15, 21), "fields_min": 4}
    seen = {rule_sha256(EXTRACT)}
    for field in dataclasses.fields(EXTRACT):
        value = getattr(EXTRACT, field.name)
        if field.name not in other:
            nudged = value + (1 if isinstance(value, int) else 0.01) if not isinstance(value, tuple) else None
            changed = not value if isinstance(value, bool) else nudged
            other[field.name] = (*value[:-1], value[-1] + 0.01) if isinstance(value, tuple) else changed
        seen.add(rule_sha256(dataclasses.replace(EXTRACT, **{field.name: other[field.name]})))
    assert len(seen) == 1 + len(dataclasses.fields(EXTRACT))
