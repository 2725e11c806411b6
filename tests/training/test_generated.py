"""What generated images are worth, and the gate: known sets, literal numbers."""

from dataclasses import replace

import numpy as np
import pytest

from device.records import Interval
from training.evaluation.gate import PairedResult, pass_gate
from training.evaluation.generated import (
    Images,
    find_copies,
    judge_generated,
    measure_coverage,
    measure_kid,
    measure_overfit,
)
from training.evaluation.resampling import corrected_lower


def draw(n, seed, shift=0.0, spread=1.0):
    """Images of noise; features normal around `shift`; each its own group; all called class 1."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 8, 8)).astype(np.uint8)
    features = rng.normal(shift, spread, (n, 6))
    return Images(x, features, [f"{seed}-{i}" for i in range(n)], np.ones(n, np.intp))


def test_kid_is_the_mean_difference_of_the_cubed_kernel():
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
    # kernel between different images of a set: (2 + 1)^3 and 1; between the sets: 1, 8, 1, 27
    assert measure_kid(a, b) == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4)


def test_equal_sets_are_within_the_floor_and_told_apart_by_nothing():
    quality = judge_generated(draw(200, 0), draw(200, 1), draw(200, 2), 1)
    assert quality.verdict == "within the floor of real images"
    assert quality.kid.interval.low < 0 < quality.kid.interval.high
    assert quality.memorized is False
    assert quality.diversity == pytest.approx(1, abs=0.1)
    assert quality.coverage > 0.9
    assert 0.4 < quality.c2st_auc < 0.6
    assert quality.c2st_interval.low < 0.5 < quality.c2st_interval.high
    assert quality.fidelity == 1


def test_a_shifted_set_is_above_the_floor():
    quality = judge_generated(draw(200, 0), draw(200, 1), draw(200, 2, shift=1), 0)
    assert quality.verdict == "above the floor of real images"
    assert quality.c2st_auc > 0.9
    assert quality.fidelity == 0
    assert quality.fidelity_interval.high < 0.03


def test_a_collapsed_set_is_not_diverse_and_covers_little():
    quality = judge_generated(draw(200, 0), draw(200, 1), draw(200, 2, spread=0.05), 1)
    assert quality.diversity < 0.1
    assert quality.coverage < 0.5


@pytest.mark.parametrize("part", ["train", "held_out", "generated"])
def test_few_images_say_little(part):
    sets = {"train": draw(40, 0), "held_out": draw(40, 1), "generated": draw(40, 2)}
    assert judge_generated(*sets.values(), 1).kid is not None
    sets[part] = draw(39, 3)
    quality = judge_generated(*sets.values(), 1)
    assert quality.verdict == "too few images to say"
    assert quality.kid is None
    unsaid = [figure is None for figure in (quality.memorized, quality.coverage, quality.diversity)]
    assert unsaid == [part != "train"] * 3  # whether few training images were copied can be said
    assert quality.c2st_auc is not None


def test_no_held_out_images_leave_the_label_check():
    none = draw(0, 1)
    quality = judge_generated(draw(40, 0), none, draw(10, 2), 1)
    assert quality.fidelity == 1
    assert quality.c2st_auc is quality.fidelity_held_out is None


def test_planted_copies_are_found_however_they_are_turned():
    train, held_out, made = draw(60, 0), draw(60, 1), draw(60, 2)
    ratio, copied, known = find_copies(train.x, held_out.x, made.x)
    assert ratio == pytest.approx(1, abs=0.05)
    assert max(copied, known) <= 0.05
    made.x[:12] = train.x[:12, ::-1].swapaxes(1, 2)
    assert find_copies(train.x, held_out.x, made.x)[1] == pytest.approx(copied + 0.2, abs=0.02)
    quality = judge_generated(train, held_out, made, 1)
    assert quality.memorized  # though most are none
    assert quality.nearest_ratio > 0.9
    assert judge_generated(train, made, made, 1).memorized is False  # as near as what was held out
    made.x[:] = np.clip(train.x.astype(int) + 3, 0, 255)
    ratio, copied, _ = find_copies(train.x, held_out.x, made.x)
    assert ratio < 0.1
    assert copied == 1


def test_coverage_of_the_same_images_is_full_and_of_far_ones_none():
    features, rng = draw(30, 0).features, np.random.default_rng(0)
    assert measure_coverage(features, features, rng)[0] == 1
    assert measure_coverage(features, features + 100, rng) == (0, 0)


def test_density_counts_each_held_out_neighbor_of_a_generated_image():
    # on a line, images 0 to 5 reach their fifth neighbor 5, 4, 3, 3, 4, 5 away: all reach 2.5, none 20
    line, rng = np.arange(6.0)[:, None], np.random.default_rng(0)
    assert measure_coverage(line, np.full((6, 1), 2.5), rng) == (1, 6 * 6 / (5 * 6))
    assert measure_coverage(line, np.array([[2.5], [20.0]] * 3), rng) == (1, 6 * 3 / (5 * 6))


def test_a_discriminator_that_knows_its_training_images_by_heart_is_overfit():
    train, alike, fake = np.array([2.0, 4.0]), np.array([3.0]), np.array([-1.0, 0.0])
    assert measure_overfit(train, alike, fake) == 0
    assert measure_overfit(train, fake, fake) == 1
    assert measure_overfit(fake, train, train) is None
    assert measure_overfit(train, alike[:0], fake) is None


def folds(*gains, over_duplicates=None):
    """Five-fold results with these gains over classical augmentation."""
    over = gains if over_duplicates is None else over_duplicates
    return [PairedResult(0.9, 0.9 - a, 0.9 - b, 80, 20) for a, b in zip(gains, over, strict=True)]


def test_the_corrected_interval_is_wider_than_that_of_independent_folds():
    # mean 2, sd 1 (n - 1); t(0.9; 2) = 1.8856; sqrt(1/3 + 1/4) = 0.7638
    assert corrected_lower([1, 2, 3], 0.25) == pytest.approx(2 - 1.8856 * 0.7638, abs=1e-3)
    assert corrected_lower([1, 2, 3], 0) == pytest.approx(2 - 1.8856 * 0.5774, abs=1e-3)
    assert corrected_lower([0.1], 0.25) is None


def test_the_gate_passes_sure_gains_over_both_controls():
    result = pass_gate(folds(0.02, 0.03, 0.02, 0.03, 0.02), memorized=False, fidelity=0.95)
    assert result.passed
    assert result.note == ""
    assert result.n_folds == 5
    # mean .024, sd .005477, t(0.9; 4) = 1.5332, sqrt(1/5 + 1/4) = .67082
    assert result.lower_classical == pytest.approx(0.024 - 1.5332 * 0.005477 * 0.67082, abs=1e-5)


@pytest.mark.parametrize(
    ("results", "memorized", "fidelity", "note"),
    [
        (folds(0.0, 0.0, 0.0), False, 1.0, "no sure gain over classical; no sure gain over duplicates"),
        (folds(0.05, -0.03, 0.04), False, 1.0, "no sure gain over classical; no sure gain over duplicates"),
        (folds(0.02, 0.02, over_duplicates=(0.0, 0.0)), False, 1.0, "no sure gain over duplicates"),
        (folds(0.0, 0.0, over_duplicates=(0.02, 0.02)), False, 1.0, "no sure gain over classical"),
        (folds(0.02, 0.02), True, 1.0, "copies of training images"),
        (folds(0.02, 0.02), None, 1.0, "too few images to rule copies out"),
        (folds(0.02, 0.02), False, 0.949, "labels not obeyed"),
        (folds(0.02, 0.02), False, None, "labels not checked"),
    ],
)
def test_the_gate_says_why_it_does_not_pass(results, memorized, fidelity, note):
    result = pass_gate(results, memorized=memorized, fidelity=fidelity)
    assert not result.passed
    assert result.note == note


def test_labels_need_not_be_obeyed_better_than_real_images_are_told():
    real = Interval(0.80, 0.92)
    for fidelity, passed in ((0.80, True), (0.799, False)):
        result = pass_gate(folds(0.02, 0.02), memorized=False, fidelity=fidelity, fidelity_real=real)
        assert result.passed is passed
    sure = Interval(0.97, 1.0)
    assert pass_gate(folds(0.02, 0.02), memorized=False, fidelity=0.95, fidelity_real=sure).passed


@pytest.mark.parametrize("n", [0, 1])
def test_the_gate_needs_two_folds(n):
    result = pass_gate(folds(*[0.5] * n), memorized=False, fidelity=1.0)
    assert not result.passed
    assert result.lower_classical == -1
    assert f"{n} folds are too few" in result.note


def test_more_test_images_beside_training_images_make_the_gate_stricter():
    sure = folds(0.02, 0.06, 0.01, 0.04)
    assert pass_gate(sure, memorized=False, fidelity=1.0).passed
    small = [replace(fold, n_train=20, n_test=80) for fold in sure]
    assert not pass_gate(small, memorized=False, fidelity=1.0).passed
