"""Claims about intervals over fields; the numbers are worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.analysis.grading import EXTRACT
from device.analysis.intervals import (
    UNKNOWN,
    _within,
    compare_growth,
    correct_interval,
    design_effect,
    fields_needed,
    share_above,
    share_interval,
    t_probability,
    t_quantile,
    wilson,
)
from device.records import Interval

fields = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=2, max_size=20).filter(
    lambda pairs: sum(live + dead for live, dead in pairs) > 0
)


def growth_interval(amounts, reference, level, *, least=1.0):
    growth = compare_growth(amounts, reference, least=least)
    return UNKNOWN if growth is None else growth.interval(level)


def draw_well(rng, share, rho, n_fields, cells=60):
    """Beta-binomial fields, correlated by rho: the simulation that chose these intervals."""
    n = np.maximum(1, rng.poisson(cells * rng.lognormal(-0.06, 0.35, n_fields)))
    p = rng.beta(share * (1 - rho) / rho, (1 - share) * (1 - rho) / rho, n_fields)
    return rng.binomial(n, p).tolist(), n.tolist()


def test_t_quantiles_are_those_of_the_tables():
    assert t_quantile(0.95, 9) == pytest.approx(1.833, abs=5e-4)
    assert t_quantile(0.975, 4) == pytest.approx(2.776, abs=5e-4)
    assert t_quantile(0.95, math.inf) == pytest.approx(1.645, abs=5e-4)


def test_wilson_of_34_of_37_is_the_interval_behind_the_92_percent_of_the_paper():
    interval = wilson(34 / 37, 37, 1.959964)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.787, 0.972)


def test_wilson_stays_within_0_and_1_and_holds_its_share():
    assert wilson(0.0, 50, 1.8).low == 0
    assert wilson(1.0, 50, 1.8).high == 1
    assert wilson(0.0, 50, 1.8).high == pytest.approx(1.8**2 / (50 + 1.8**2))


def test_rounding_never_takes_an_interval_beyond_the_ends_of_the_scale():
    assert wilson(1.0, 7, 1.5).high == 1
    assert wilson(0.0, 7, 2.2).low == 0


def test_design_effect_by_hand():
    # p = 10/20; v = 2/1 * (2^2 + 2^2) / 20^2 = 0.04; v0 = 0.25 / 20 = 0.0125
    assert design_effect([3, 7], [10, 10], n_fields=2, rho_min=0.02) == pytest.approx(3.2)
    # a field that is too small to count still spreads, but gives no degree of freedom: 3/2 -> 2/1
    few = design_effect([3, 7, 0], [10, 10, 0], n_fields=2, rho_min=0.02)
    assert few == pytest.approx(3.2)
    # p = 4/20; v = 2 * (2^2 + 2^2) / 20^2 = 0.04; pv = 4.5/21
    rare = design_effect([4, 0], [10, 10], n_fields=2, rho_min=0.0)
    assert rare == pytest.approx(0.04 / (4.5 / 21 * (1 - 4.5 / 21) / 20))


def test_equal_fields_do_not_look_more_certain_than_the_floor():
    assert design_effect([5, 5], [10, 10], n_fields=2, rho_min=0.02) == pytest.approx(1 + 9 * 0.02)
    # fields of unequal size weigh by sum n^2 / N = 1000 / 40 = 25
    assert design_effect([15, 5], [30, 10], n_fields=2, rho_min=0.1) == pytest.approx(1 + 24 * 0.1)
    assert design_effect([5, 5], [10, 10], n_fields=2, rho_min=0.0) == 1


def test_interval_of_ten_equal_fields_by_hand():
    interval = share_interval([30] * 10, [60] * 10, 0.95, n_fields=10, rho_min=0.02)
    effective = 600 / (1 + 59 * 0.02)
    assert interval == wilson(0.5, effective, t_quantile(0.95, 9))
    assert interval.low == pytest.approx(1 - interval.high)


@pytest.mark.parametrize(("affected", "cells"), [([3], [60]), ([0, 0], [0, 0]), ([], [])])
def test_one_field_or_no_cell_tells_nothing(affected, cells):
    assert share_interval(affected, cells, 0.95, n_fields=len(cells), rho_min=0.02) == UNKNOWN
    assert share_interval([9, 9], [30, 30], 0.95, n_fields=1, rho_min=0.02) == UNKNOWN


def test_two_fields_tell_something():
    interval = share_interval([9, 9], [30, 30], 0.95, n_fields=2, rho_min=0.02)
    assert 0 < interval.low < 0.3 < interval.high < 1


def test_all_dead_and_none_dead_are_mirror_images():
    dead = share_interval([60] * 10, [60] * 10, 0.95, n_fields=10, rho_min=0.02)
    live = share_interval([0] * 10, [60] * 10, 0.95, n_fields=10, rho_min=0.02)
    assert dead.high == 1
    assert live.low == 0
    assert dead.low == pytest.approx(1 - live.high)
    assert dead.low > 0.98


@given(fields, st.floats(0.55, 0.99))
def test_an_interval_holds_its_share_and_grows_with_its_level(pairs, level):
    affected, cells = [dead for _, dead in pairs], [live + dead for live, dead in pairs]
    share = sum(affected) / sum(cells)
    narrow = share_interval(affected, cells, level, n_fields=len(cells), rho_min=0.02)
    wide = share_interval(affected, cells, 0.995, n_fields=len(cells), rho_min=0.02)
    assert 0 <= wide.low <= narrow.low <= share <= narrow.high <= wide.high <= 1


@given(fields, st.randoms(use_true_random=False))
def test_the_order_of_fields_changes_no_bit(pairs, shuffle):
    other = list(pairs)
    shuffle.shuffle(other)
    first, second = (
        share_interval([d for _, d in p], [n + d for n, d in p], 0.95, n_fields=len(p), rho_min=0.02)
        for p in (pairs, other)
    )
    assert first == second


@pytest.mark.parametrize(("share", "rho"), [(0.5, 0.03), (0.5, 0.08), (0.2, 0.03)])
def test_ci95_covers_the_truth_in_93_to_99_of_100_wells(share, rho):
    rng = np.random.default_rng(20)
    intervals = [
        share_interval(*draw_well(rng, share, rho, 10), 0.975, n_fields=10, rho_min=0.02) for _ in range(2000)
    ]
    covered = np.mean([interval.low <= share <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.99


def test_pooled_cells_would_cover_far_too_little():
    rng = np.random.default_rng(21)
    wells = [draw_well(rng, 0.5, 0.03, 10) for _ in range(500)]
    naive = [wilson(sum(dead) / sum(n), sum(n), 1.96) for dead, n in wells]
    assert np.mean([interval.low <= 0.5 <= interval.high for interval in naive]) < 0.85


@pytest.mark.parametrize("share", [0.40, 0.60])
def test_ten_fields_decide_40_and_60_percent_on_the_right_side(share):
    rng = np.random.default_rng(22)
    wrong = decided = 0
    for _ in range(2000):
        bounds = share_interval(*draw_well(rng, share, 0.03, 10), 0.95, n_fields=10, rho_min=0.02)
        below, above = bounds.high <= 0.5, bounds.low > 0.5
        wrong += above if share < 0.5 else below
        decided += above or below
    assert wrong / 2000 <= 0.01
    assert decided / 2000 > 0.7


def test_at_the_limit_each_side_is_wrong_in_at_most_5_of_100_wells():
    rng = np.random.default_rng(23)
    bounds = [
        share_interval(*draw_well(rng, 0.5, 0.03, 10), 0.95, n_fields=10, rho_min=0.02) for _ in range(2000)
    ]
    assert np.mean([b.low > 0.5 for b in bounds]) <= 0.06
    assert np.mean([b.high < 0.5 for b in bounds]) <= 0.06


def test_an_uncertain_background_widens_the_bounds():
    bounds = Interval(0.40, 0.60)
    assert correct_interval(bounds, Interval(0.1, 0.1)) == Interval(
        pytest.approx(0.3 / 0.9), pytest.approx(0.5 / 0.9)
    )
    wide = correct_interval(bounds, Interval(0.05, 0.2))
    assert wide == Interval(pytest.approx(0.25), pytest.approx(0.55 / 0.95))


def test_a_well_healthier_than_its_controls_is_no_surer_than_they_are():
    healthier = correct_interval(Interval(0.002, 0.01), Interval(0.02, 0.05))
    assert healthier == Interval(0.0, pytest.approx(0.03 / 0.98))
    assert healthier == correct_interval(Interval(0.002, 0.05), Interval(0.02, 0.05))


def test_growth_interval_by_hand():
    interval = growth_interval([40.0, 60.0], [[90.0, 110.0]], 0.95, least=1.0)
    # relative variances of the means: 200/2/50^2 = 0.04 and 200/2/100^2 = 0.01, 1 degree of freedom each
    degrees = 0.05**2 / (0.04**2 + 0.01**2)
    half = t_quantile(0.95, degrees) * math.sqrt(0.05)
    assert interval.low == pytest.approx(max(0.0, 1 - 0.5 * math.exp(half)))
    assert interval.high == pytest.approx(1 - 0.5 * math.exp(-half))


def test_growth_interval_of_more_fields_by_hand():
    # ratio .5; variances 100 and 400/3: relative ones of the means 100/5/50^2 = .008 and 1/300
    tested, control = [40.0, 40.0, 50.0, 60.0, 60.0], [[90.0, 90.0, 110.0, 110.0]]
    parts = (0.008, 4), (1 / 300, 3)
    error = math.sqrt(sum(part for part, _ in parts))
    degrees = error**4 / sum(part**2 / n for part, n in parts)
    low, high = (1 - 0.5 * math.exp(s * t_quantile(0.95, degrees) * error) for s in (1, -1))
    assert 0 < low < 0.5 < high < 1
    assert growth_interval(tested, control, 0.95) == Interval(pytest.approx(low), pytest.approx(high))


def test_the_variation_between_wells_by_hand():
    def between(*wells):
        return compare_growth([18.0, 22.0], wells, least=1.0).others[1:]

    wells = [8.0, 12.0], [18.0, 22.0], [28.0, 32.0]
    # variance of means 100 less 8/2 within, over 20^2; with the 4/3 of three wells
    assert between(*wells) == ((pytest.approx((100 - 4) / 400 * 4 / 3), 2),)
    assert between(*[[18.0, 22.0]] * 3) == ((0.0, 2),)
    assert between(*wells[:2]) == ()
    assert between(*wells, [20.0]) == ()


def test_a_field_without_live_cells_among_others_stays_empty():
    growth = compare_growth([0.0, 50.0], [[90.0, 110.0]], least=40.0)
    assert growth.log_ratio == pytest.approx(math.log(25 / 100))


def test_growth_does_not_depend_on_the_unit():
    small = growth_interval([40.0, 60.0, 55.0], [[90.0, 110.0, 95.0]], 0.95, least=1.0)
    large = growth_interval([400.0, 600.0, 550.0], [[900.0, 1100.0, 950.0]], 0.95, least=1.0)
    assert small.low == pytest.approx(large.low)
    assert small.high == pytest.approx(large.high)


def test_growth_of_one_field_is_unknown_and_more_cells_than_the_controls_inhibit_nothing():
    assert growth_interval([40.0], [[90.0, 110.0]], 0.95, least=1.0) == UNKNOWN
    assert growth_interval([40.0, 50.0], [[90.0]], 0.95, least=1.0) == UNKNOWN
    assert growth_interval([200.0, 201.0], [[90.0, 91.0]], 0.95, least=1.0) == Interval(0, 0)
    assert growth_interval([50.0, 50.0], [[100.0, 100.0]], 0.95, least=1.0) == Interval(0.5, 0.5)


def test_a_well_without_live_cells_is_as_if_each_field_held_one():
    empty = growth_interval([0.0] * 5, [[95.0, 105.0, 100.0]], 0.95, least=2.0)
    assert empty == growth_interval([2.0] * 5, [[95.0, 105.0, 100.0]], 0.95, least=2.0)
    assert empty.low > 0.97


def test_three_differing_control_wells_widen_the_growth_interval():
    tested, even = [50.0, 52.0, 48.0], [[99.0, 101.0, 100.0]] * 3
    uneven = [[79.0, 81.0, 80.0], [99.0, 101.0, 100.0], [119.0, 121.0, 120.0]]
    narrow = growth_interval(tested, even, 0.95, least=1.0)
    wide = growth_interval(tested, uneven, 0.95, least=1.0)
    pooled = growth_interval(tested, [[amount for well in uneven for amount in well]], 0.95, least=1.0)
    assert narrow.high - narrow.low < pooled.high - pooled.low < wide.high - wide.low


def test_growth_interval_covers_the_truth():
    rng = np.random.default_rng(24)
    covered = 0
    for _ in range(500):
        tested, control = (rng.lognormal(math.log(mean), 0.35, 10).tolist() for mean in (50, 100))
        interval = growth_interval(tested, [control], 0.975, least=1.0)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.92 <= covered / 500 <= 0.99


@pytest.mark.parametrize(
    ("cells", "distance", "rho", "expected"),
    [
        (20, 0.1, 0.01, 6),
        (20, 0.1, 0.03, 8),
        (20, 0.1, 0.08, 13),
        (60, 0.1, 0.01, 3),
        (60, 0.1, 0.03, 5),
        (60, 0.1, 0.08, 10),
        (60, 0.05, 0.01, 11),
        (60, 0.05, 0.03, 18),
        (60, 0.05, 0.08, 37),
    ],
)
def test_fields_needed_are_those_of_the_table(cells, distance, rho, expected):
    rule = dataclasses.replace(EXTRACT, fields_min=2, fields_max=40, rho_min=rho)
    assert fields_needed(0.5, 0.5 + distance, [cells] * 10, 1.0, 0.975, rule) == expected
    assert fields_needed(0.5, 0.5 - distance, [cells] * 10, 1.0, 0.975, rule) == expected


def test_no_number_of_fields_tells_a_share_at_the_limit_from_it():
    assert fields_needed(0.5, 0.5, [60] * 10, 1.0, 0.95, EXTRACT) is None
    assert fields_needed(0.49, 0.5, [60] * 10, 1.0, 0.95, EXTRACT) is None
    assert fields_needed(0.1, 0.5, [60] * 10, 1.0, 0.95, EXTRACT) == EXTRACT.fields_min
    assert fields_needed(0.0, 0.0, [60] * 10, 1.0, 0.95, EXTRACT) is None
    assert (_within(20.0, 1.0, EXTRACT), _within(20.1, 1.0, EXTRACT)) == (20, None)


@pytest.mark.parametrize(("affected", "above"), [(20, False), (24, False), (36, True), (40, True)])
@pytest.mark.parametrize("level", [0.95, 0.975])
def test_a_bound_that_meets_a_limit_is_the_probability_of_that_side(affected, above, level):
    dead = [affected + k for k in (-2, 2, 0, 1, -1)]
    bounds = share_interval(dead, [60] * 5, level, n_fields=5, rho_min=0.02)
    limit = bounds.low if above else bounds.high
    p_above = share_above(dead, [60] * 5, limit, n_fields=5, rho_min=0.02)
    assert p_above == pytest.approx(level if above else 1 - level, abs=1e-9)


def test_the_side_of_nothing_is_unknown_and_of_an_end_of_the_scale_certain():
    assert share_above([5], [10], 0.5, n_fields=1, rho_min=0.02) is None
    assert share_above([0, 0], [0, 0], 0.5, n_fields=2, rho_min=0.02) is None
    assert share_above([5, 5], [10, 10], 0.5, n_fields=2, rho_min=0.02) == pytest.approx(0.5)
    assert share_above([0, 0], [10, 10], 0.0, n_fields=2, rho_min=0.02) == 0.0
    assert share_above([1, 0], [10, 10], 0.0, n_fields=2, rho_min=0.02) == 1.0
    assert share_above([9, 9], [10, 10], 1.0, n_fields=2, rho_min=0.02) == 0.0


def test_t_probabilities_are_the_inverse_of_quantiles():
    assert t_probability(0.0, 4) == pytest.approx(0.5)
    assert t_probability(t_quantile(0.95, 7.5), 7.5) == pytest.approx(0.95)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_growth_is_above_a_bound_with_the_probability_of_that_bound(level):
    growth = compare_growth([40.0, 60.0, 55.0, 48.0], [[90.0, 110.0, 95.0, 101.0]], least=1.0)
    bounds = growth.interval(level)
    assert growth.above(bounds.low) == pytest.approx(level)
    assert growth.above(bounds.high) == pytest.approx(1 - level)


def test_equal_fields_leave_no_doubt_about_growth():
    growth = compare_growth([50.0, 50.0], [[100.0, 100.0]], least=1.0)
    assert (growth.above(0.49), growth.above(0.5), growth.above(0.51)) == (1.0, 0.0, 0.0)
    assert growth.fields_needed(0.6, 0.95, EXTRACT) == EXTRACT.fields_min


def test_fields_that_growth_needs_by_hand():
    tested, control = [40.0, 50.0, 60.0], [[100.0, 110.0, 90.0] * 10]
    growth = compare_growth(tested, control, least=1.0)
    z, fixed = t_quantile(0.95, math.inf), growth.others[0][0]
    room = (math.log(0.6 / 0.5) / z) ** 2 - fixed  # from a ratio of .5 to one of .6
    expected = math.ceil((100 / 50**2) / room)
    rule = dataclasses.replace(EXTRACT, fields_min=2)
    assert growth.fields_needed(0.4, 0.95, rule) == expected == 4
    assert growth.fields_needed(0.4, 0.95, EXTRACT) == 5
    assert growth.fields_needed(0.4, 0.99, rule) > expected
    assert growth.fields_needed(0.5, 0.95, rule) is None
    few = compare_growth(tested, [[100.0, 40.0, 160.0]], least=1.0)
    assert few.fields_needed(0.4, 0.95, rule) is None  # the controls leave more open than that
