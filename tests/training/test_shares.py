"""Shares of classes that nobody labeled: how near they are found, and what calls them."""

import numpy as np
import pytest

from device.classifier import softmax
from training.cotraining.shares import estimate_shares, shift_to_shares, temperature_of_error

SHARES = [(0.5, 0.5), (0.9, 0.1), (0.1, 0.9), (0.2, 0.5, 0.3), (0.8, 0.1, 0.1)]


def draw_logits(shares, n=1000, *, bias=0.0, seed=0):
    """Scores of classes 5 deviations apart, with too many calls of the last class by `bias`."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(shares)), np.round(n * np.array(shares)).astype(int))
    z = rng.normal(0, 1, (len(y), len(shares))) + 3.5 * np.eye(len(shares))[y]
    z[:, -1] += bias
    return z.astype(np.float32)


def called(logits):
    return np.bincount(logits.argmax(axis=1), minlength=logits.shape[1]) / len(logits)


@pytest.mark.parametrize("shares", SHARES)
def test_shares_are_found_though_too_many_of_one_class_are_called(shares):
    logits = draw_logits(shares, bias=2.0)
    found = estimate_shares(logits)
    assert found == pytest.approx(shares, abs=0.02)
    assert np.abs(found - shares).max() < np.abs(called(logits) - shares).max() / 2
    assert np.array_equal(found, estimate_shares(logits))


def test_a_spread_class_is_no_mixture_of_two():
    """One covariance for both: the wider class does not take the tail of the narrower for its own."""
    rng = np.random.default_rng(1)
    odds = np.r_[rng.normal(-3, 1.2, 900), rng.normal(3, 0.6, 100)]
    found = estimate_shares(np.stack([np.zeros(1000), odds], axis=1))
    assert found[1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("n_dead", "wanted"), [(0, 0.001 / 1.001), (1, 0.1)])
def test_calls_are_counted_where_a_class_has_fewer_than_two(n_dead, wanted):
    z = np.tile([1.0, -1.0], (10, 1))
    z[:n_dead] *= -1
    assert estimate_shares(z)[1] == pytest.approx(wanted)


def test_two_calls_of_a_class_are_enough_for_a_mixture():
    """Of 2 called dead one is near the many live ones: the mixture tells it, calls do not."""
    rng = np.random.default_rng(0)
    odds = np.r_[rng.normal(-2, 0.7, 98), 0.1, 9.0]
    assert called(np.stack([np.zeros(100), odds], axis=1))[1] == 0.02
    assert estimate_shares(np.stack([np.zeros(100), odds], axis=1))[1] == pytest.approx(0.01)


def test_nothing_to_call_has_no_share_and_does_no_harm():
    assert estimate_shares(np.zeros((0, 2), np.float32)) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_shifted_scores_call_each_class_in_its_share(shares, scale):
    logits = scale * draw_logits((1 / len(shares),) * len(shares), bias=1.0)
    shift = shift_to_shares(logits, np.array(shares))
    assert called(logits + shift) == pytest.approx(shares, abs=0.01)
    assert shift.mean() == pytest.approx(0, abs=1e-9 * scale)
    assert shift == pytest.approx(scale * shift_to_shares(logits / scale, np.array(shares)), rel=0.02)


def test_scores_that_are_right_already_are_not_shifted():
    logits = draw_logits((0.7, 0.3))
    assert np.abs(shift_to_shares(logits, called(logits))).max() < 0.1


def test_equal_scores_are_shifted_by_a_finite_number():
    assert np.isfinite(shift_to_shares(np.zeros((5, 2), np.float32), np.array([0.9, 0.1]))).all()


@pytest.mark.parametrize("error", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_a_temperature_gives_the_wished_error(error, scale):
    logits = scale * draw_logits((0.6, 0.4))
    p = softmax(logits, temperature_of_error(logits, error))
    assert np.mean(1 - p.max(axis=1)) == pytest.approx(error, rel=0.01)


def test_a_temperature_stays_within_its_range():
    flat, sure = np.zeros((4, 2), np.float32), np.tile([1e4, 0.0], (4, 1))
    assert temperature_of_error(flat, 0.1) == pytest.approx(np.exp(-3))
    assert temperature_of_error(sure, 0.1) == pytest.approx(np.exp(3))
