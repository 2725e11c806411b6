"""What a model finds familiar is learned from its validation crops."""

import numpy as np
import pytest

from device.analysis.ood import find_odd, measure_distance, measure_energy
from training.export.familiar import learn_familiar, shrink_covariance

MEANS = np.array([[0, 0], [10, 0]], np.float32)


def cloud(n, seed=0):
    """Logits and features of two classes that differ in the first of two features, and their classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    features = MEANS[y] + rng.normal(0, (1, 3), (n, 2))
    logits = 6.0 * (np.arange(2) == y[:, None]) + rng.normal(0, 0.3, (n, 2))
    return logits.astype(np.float32), features.astype(np.float32), y


@pytest.fixture(scope="module")
def familiar():
    return learn_familiar(*cloud(4000), 1.0, None)


def test_distance_is_that_of_the_nearest_class_in_standard_deviations(familiar):
    features = np.array([[0, 0], [0, 6], [3, 0], [10, -3]], np.float32)
    distance = np.sqrt(measure_distance(features, familiar.means, familiar.whitening))
    np.testing.assert_allclose(distance, [0, 2, 3, 1], atol=0.1)


def test_two_in_a_hundred_familiar_crops_are_odd_and_nearly_all_others(familiar):
    logits, features, _ = cloud(4000, seed=1)
    assert find_odd(logits, features, 1.0, familiar).mean() < 0.03
    assert find_odd(logits, features + 20, 1.0, familiar).all()
    assert find_odd(logits * 0, features, 1.0, familiar).all()


def test_thresholds_are_for_cells_and_need_enough_of_each_class():
    logits, features, y = cloud(400)
    logits[y == 1, 1] = 20  # what is no cell has much lower energy
    cells = measure_energy(logits[y == 0], 1.0)
    assert learn_familiar(logits, features, y, 1.0, 1).energy_max == pytest.approx(np.quantile(cells, 0.99))
    assert learn_familiar(logits[:80], features[:80], y[:80], 1.0, None) is None
    assert learn_familiar(logits, features, np.zeros(400, int), 1.0, None) is None


def test_the_covariance_of_few_samples_is_shrunk_and_can_be_inverted():
    rng = np.random.default_rng(0)
    few, many = (rng.normal(0, (1, 2, 3, 0), (n, 4)).astype(np.float32) for n in (3, 20000))
    np.testing.assert_allclose(shrink_covariance(many), np.diag([1, 4, 9, 0]), atol=0.3)
    assert np.linalg.cond(shrink_covariance(few)) < 1e3 < np.linalg.cond(few.T @ few / 3 + 1e-9 * np.eye(4))
    assert np.isfinite(np.linalg.inv(shrink_covariance(np.zeros((5, 4), np.float32)))).all()
