"""Claims about scores; Table 1 of Saini et al. (2020) is the fixture that every figure must come out of."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.binary import binary_scores, expected_calibration_error
from training.evaluation.counts import count_errors
from training.evaluation.detection import (
    detection_scores,
    match_cells,
    match_classes,
    match_gate_um,
    pool_matches,
)
from training.evaluation.resampling import group_bootstrap, share_wilson


@pytest.fixture(scope="module")
def table1():
    with (Path(__file__).parent / "table1.csv").open(newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def column(rows, name):
    return np.array([row[name] for row in rows])


def total(rows, name):
    return int(column(rows, name).sum())


def test_table_1_gives_814_of_839_and_its_micro_scores(table1):
    tp, fp, fn = (total(table1, name) for name in ("correct", "intruded", "undetected"))
    scores = detection_scores(tp, fp, fn)
    assert (tp, tp + fp + fn) == (814, 839)
    assert total(table1, "total") == 839
    assert round(scores.precision, 4) == 0.9867
    assert round(scores.recall, 4) == 0.9831
    assert round(scores.f1, 4) == 0.9849
    assert round(scores.jaccard, 4) == 0.9702


def test_total_of_table_1_is_the_union_of_true_and_found_cells(table1):
    parts = column(table1, "correct") + column(table1, "undetected") + column(table1, "intruded")
    assert (column(table1, "total") == parts).all()


def test_macro_scores_and_wilson_intervals_of_table_1(table1):
    rows = [detection_scores(int(r["correct"]), int(r["intruded"]), int(r["undetected"])) for r in table1]
    means = [np.mean([getattr(row, name) for row in rows]) for name in ("precision", "recall", "f1")]
    assert [round(float(mean), 4) for mean in means] == [0.9870, 0.9827, 0.9846]
    precision, recall = share_wilson(814, 825), share_wilson(814, 828)
    assert (round(precision.low, 3), round(precision.high, 3)) == (0.976, 0.993)
    assert (round(recall.low, 3), round(recall.high, 3)) == (0.972, 0.990)


def test_image_bootstrap_of_table_1_f1(table1):
    counts = np.array([[r["correct"], r["intruded"], r["undetected"]] for r in table1])
    groups = [str(int(r["image"])) for r in table1]
    interval = group_bootstrap(groups, lambda i: detection_scores(*map(int, counts[i].sum(0))).f1)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.979, 0.990)


def test_count_errors_of_table_1(table1):
    true = column(table1, "correct") + column(table1, "undetected")
    errors = count_errors(true, column(table1, "correct") + column(table1, "intruded"))
    assert errors.n == 15
    assert errors.bias == pytest.approx(-0.2)
    assert round(errors.mae, 2) == 1.13
    assert round(errors.rmse, 2) == 1.44
    assert round(errors.mape, 4) == 0.0222
    assert round(errors.sd, 2) == 1.47
    assert round(errors.r, 3) == 0.993
    assert (round(errors.limits_low, 1), round(errors.limits_high, 1)) == (-3.1, 2.7)


def test_rows_5_and_8_of_table_1_are_swapped_and_the_recall_of_row_3_is_misprinted(table1):
    wrong = {}
    for row in table1:
        scores = detection_scores(int(row["correct"]), int(row["intruded"]), int(row["undetected"]))
        # The table mixes rounding and truncation to two digits: either is taken as printed right.
        off = [n for n in ("precision", "recall") if not -0.005 <= getattr(scores, n) - row[n] < 0.01]
        if off:
            wrong[int(row["image"])] = off
    assert wrong == {3: ["recall"], 5: ["precision", "recall"], 8: ["precision", "recall"]}
    swapped = {int(r["image"]): (r["recall"], r["precision"]) for r in table1 if r["image"] in (5, 8)}
    assert swapped == {5: (1, 0.97), 8: (1, 0.93)}
    assert round(detection_scores(37, 0, 1).recall, 2) == 0.97
    assert round(detection_scores(43, 0, 3).recall, 2) == 0.93


def test_scores_of_nothing_are_none_and_negative_numbers_are_refused():
    assert detection_scores(0, 0, 0).f1 is None
    assert detection_scores(0, 3, 0).recall is None
    assert detection_scores(0, 3, 2).f1 == 0
    with pytest.raises(ValueError, match="expected numbers of cells"):
        detection_scores(1, -1, 0)


def test_the_gate_is_half_the_mean_diameter_and_at_most_6_um():
    assert match_gate_um([8, 10]) == 4.5
    assert match_gate_um([13, 15]) == 6.0
    assert match_gate_um([]) == 6.0


def test_matching_finds_more_pairs_than_taking_the_closest_first():
    # Greedy would pair the cells 1 um apart and leave both others without a partner.
    true, found = np.array([[0.0, 0.0], [0.0, 4.0]]), np.array([[0.0, 3.0], [0.0, 9.0]])
    matches = match_cells(true, found, gate_um=5.0)
    assert (matches.tp, matches.fp, matches.fn) == (2, 0, 0)
    assert matches.pairs.tolist() == [[0, 0], [1, 1]]


def test_a_pair_at_the_gate_matches_and_beyond_it_does_not():
    true = np.zeros((1, 2))
    assert match_cells(true, np.array([[3.0, 4.0]]), gate_um=5.0).tp == 1
    assert match_cells(true, np.array([[3.0, 4.001]]), gate_um=5.0).tp == 0


def test_no_cells_on_either_side():
    none, one = np.zeros((0, 2)), np.zeros((1, 2))
    assert match_cells(none, none, gate_um=6).tp == 0
    assert match_cells(one, none, gate_um=6).fn == 1
    assert match_cells(none, one, gate_um=6).fp == 1
    with pytest.raises(ValueError, match=r"expected \(N, 2\)"):
        match_cells(np.zeros((2, 3)), one, gate_um=6)
    with pytest.raises(ValueError, match="expected more than 0"):
        match_cells(one, one, gate_um=0)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_true_cells_are_found_or_undetected_whatever_the_order(n_true, n_found, seed):
    rng = np.random.default_rng(seed)
    true, found = rng.uniform(0, 30, (n_true, 2)), rng.uniform(0, 30, (n_found, 2))
    matches = match_cells(true, found, gate_um=6)
    assert matches.tp + matches.fn == n_true
    assert matches.tp + matches.fp == n_found
    assert len(set(matches.pairs[:, 0])) == len(set(matches.pairs[:, 1])) == matches.tp
    assert match_cells(rng.permutation(true), rng.permutation(found), gate_um=6).tp == matches.tp
    assert match_cells(true, true, gate_um=6).tp == n_true


def test_a_cell_with_the_wrong_class_counts_against_both_classes():
    centers = np.array([[0.0, 0.0], [50.0, 0.0]])
    by_class = match_classes(centers, ["live", "dead"], centers, ["dead", "dead"], gate_um=6)
    assert (by_class["live"].fn, by_class["live"].fp) == (1, 0)
    assert (by_class["dead"].tp, by_class["dead"].fp) == (1, 1)
    pooled = pool_matches(by_class.values())
    assert (pooled.tp, pooled.fp, pooled.fn) == (1, 1, 1)


def test_count_errors_of_one_constant_or_small_count():
    one = count_errors([3], [4])
    assert (one.sd, one.r, one.mape, one.limits_low) == (None, None, None, None)
    assert count_errors([4, 4], [4, 5]).r is None
    assert count_errors([5, 4], [6, 9]).mape == pytest.approx(0.2)
    with pytest.raises(ValueError, match="expected one shape"):
        count_errors([], [])


def test_binary_scores_by_hand():
    scores = binary_scores([0.9, 0.6, 0.4, 0.2], [True, False, True, False])
    assert (scores.n, scores.n_dead) == (4, 2)
    assert scores.balanced_accuracy == 0.5
    assert scores.f1_dead == 0.5
    assert scores.auc == 0.75
    assert scores.nll == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.4, 0.8])))
    assert scores.brier == pytest.approx((0.01 + 0.36 + 0.36 + 0.04) / 4)


def test_ties_count_half_in_the_auc():
    assert binary_scores([0.5, 0.5, 0.5], [True, False, True]).auc == 0.5
    assert binary_scores([0.5, 0.5, 0.9], [True, False, True]).auc == 0.75


def test_one_class_alone_has_no_balanced_accuracy_and_certainty_has_finite_loss():
    scores = binary_scores([0.0, 1.0], [True, True])
    assert scores.balanced_accuracy is None
    assert scores.auc is None
    assert scores.sensitivity == 0.5
    assert np.isfinite(scores.nll)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        binary_scores([1.5], [True])
    with pytest.raises(ValueError, match="expected one shape"):
        binary_scores([0.5], [True, False])


def test_calibration_error_of_bins_by_hand(monkeypatch):
    monkeypatch.setattr("training.evaluation.binary.BINS", 2)
    p = np.array([0.0] * 10 + [0.8] * 10)
    dead = np.array([False] * 10 + [True] * 6 + [False] * 4)
    assert expected_calibration_error(p, dead) == pytest.approx(0.1)


def test_a_perfect_model_shows_the_known_bias_of_the_calibration_error():
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 2000)
    scores = binary_scores(p, rng.random(2000) < p)
    assert scores.ece == pytest.approx(scores.ece_perfect, abs=0.015)
    small = binary_scores(p[:37], rng.random(37) < p[:37])
    assert small.ece_perfect > 3 * scores.ece_perfect


def test_group_bootstrap_is_repeatable_and_wider_when_items_share_a_group():
    rng = np.random.default_rng(2)
    effect = np.repeat(rng.normal(size=10), 10)
    groups = [str(i // 10) for i in range(100)]

    def mean(index):
        return float(effect[index].mean())

    grouped = group_bootstrap(groups, mean, n_resamples=400)
    single = group_bootstrap([str(i) for i in range(100)], mean, n_resamples=400)
    assert grouped == group_bootstrap(groups, mean, n_resamples=400)
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_group_bootstrap_of_one_group_or_of_no_figure_is_none():
    assert group_bootstrap(["a", "a"], lambda i: 1.0) is None
    assert group_bootstrap(["a", "b"], lambda i: None, n_resamples=5) is None
    assert share_wilson(0, 0) is None
