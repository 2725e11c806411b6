"""Figures over fields: means over seeds, intervals over groups, who was called what."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from training.dataset import circle_cell
from training.evaluation.detection import Matches, match_regions
from training.export.acceptance import (
    ANY,
    FieldResult,
    count_mae,
    dead_mape,
    f1_of,
    figure,
    match_reading,
    recall_of,
    score_station,
    share_called_dead,
    viability_mae,
)


def matches(tp, fp=0, fn=0):
    return Matches(np.zeros((tp, 2), np.intp), tp + fn, tp + fp)


def result(group, *, live=(5, 0, 0), dead=(2, 0, 0), called=(), passed=True):
    """A field with tp, fp and fn of both classes."""
    both = tuple(a + b for a, b in zip(live, dead, strict=True))
    reading = SimpleNamespace(quality=SimpleNamespace(passed=passed))
    by_class = {"live": matches(*live), "dead": matches(*dead), ANY: matches(*both)}
    return FieldResult(reading, by_class, group, Counter(dict(called)))


def test_a_figure_is_the_mean_over_seeds_and_says_what_it_stands_on():
    good = [result(f"g{i}") for i in range(6)]
    poor = [result(f"g{i}", dead=(1, 1, 1)) for i in range(6)]
    found = figure([good, poor], f1_of("dead"), n=12, what="dead cells")
    assert found.value == pytest.approx((1 + 0.5) / 2)
    assert str(found) == "0.75 (95 % 0.75-0.75, 12 dead cells)"
    assert figure([good[:1]], f1_of("dead")).interval is None


def test_runs_of_different_fields_have_no_mean():
    with pytest.raises(ValueError, match="expected the same fields"):
        figure([[result("a")], [result("b")]], f1_of("dead"))


def test_a_figure_that_does_not_exist_says_so():
    healthy = [result("a", dead=(0, 0, 0)), result("b", dead=(0, 0, 0))]
    assert str(figure([healthy], recall_of("dead"), n=0, what="dead cells")) == "none (0 dead cells)"


def test_count_errors_are_per_field_and_do_not_cancel():
    fields = [result("a", live=(5, 2, 0)), result("b", live=(5, 0, 2))]
    assert count_mae(fields) == 2
    assert count_mae([result("a", live=(4, 1, 1))]) == 0
    assert dead_mape([result("a", dead=(10, 0, 0)), result("b", dead=(8, 0, 2))]) == pytest.approx(0.1)


def test_the_viability_of_mosaics_is_that_of_their_summed_cells():
    # each field finds one dead cell too few and one live cell too many: every mosaic is off by one in ten
    fields = [result(f"g{i}", live=(5, 1, 0), dead=(4, 0, 1)) for i in range(8)]
    assert viability_mae(fields) == pytest.approx(0.1)
    assert viability_mae([result("a", live=(0, 0, 0), dead=(0, 0, 0))]) is None
    # single fields are far off, but either way: a mosaic of 16 is not
    mixed = [result(f"g{i}", live=(5, 2 * (i % 2), 2 * (1 - i % 2))) for i in range(8)]
    assert viability_mae(mixed) < 0.03


def test_live_cells_called_dead_are_counted_among_those_found():
    fields = [result("a", called={("live", "live"): 8, ("live", "dead"): 2, ("dead", "dead"): 9}.items())]
    assert share_called_dead(fields) == pytest.approx(0.2)
    assert share_called_dead([]) is None


def test_scores_of_a_station_have_counts_and_viability():
    scores = score_station([result("a"), result("b", live=(4, 1, 1), passed=False)])
    assert (scores.n_fields, scores.n_refused) == (2, 1)
    assert scores.detection["live"].fp == 1
    assert scores.counts.mae == 0
    assert scores.viability_mae == 0
    assert score_station([]).counts is None


def test_a_cell_that_nobody_could_tell_excuses_what_is_found_there():
    cells = (circle_cell("live", 20, 20, 9), circle_cell("", 60, 60, 9), circle_cell("rounded", 20, 60, 9))
    found = [SimpleNamespace(row=r, col=c, label=k) for r, c, k in ((21, 20, "dead"), (60, 61, "dead"))]
    by_class, called = match_reading(SimpleNamespace(cells=tuple(found)), cells, 0.65)
    assert (by_class[ANY].tp, by_class[ANY].fp, by_class[ANY].fn) == (1, 0, 1)
    assert called == {("live", "dead"): 1}


def test_regions_match_where_more_than_half_of_their_union_is_shared():
    true = np.zeros((4, 9), int)
    true[:, :3], true[:, 3:6], true[:2, 6:] = 4, 2, 9
    split = true.copy()
    split[:2, :3] = 7  # half of a region has not more than half of the union
    assert (match_regions(true, true).tp, match_regions(true, split).tp) == (3, 2)
    assert match_regions(true, split).n_found == 4
    assert match_regions(true, np.zeros_like(true)).fn == 3
    assert match_regions(np.ones((2, 2), int), np.ones((2, 2), int)).tp == 1, "no background at all"
    with pytest.raises(ValueError, match="expected one shape"):
        match_regions(true, split[1:])
