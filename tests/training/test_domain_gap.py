"""Two-sample tests: equal images cannot be told apart, different ones can."""

import numpy as np
import pytest

from training.evaluation.domain_gap import c2st_auc, draw_patches


def noise(rng, blur, n=15):
    """Gray fields whose noise is averaged over `blur` pixels."""
    images = rng.normal(100, 30, (n, 100, 100 * blur)).reshape(n, 100, 100, blur).mean(axis=-1)
    return [(np.clip(image, 0, 255).astype(np.uint8), f"g{i}") for i, image in enumerate(images)]


@pytest.mark.parametrize(("blur", "low", "high"), [(1, 0.3, 0.7), (3, 0.95, 1.0)])
def test_only_different_images_are_told_apart(blur, low, high):
    rng = np.random.default_rng(5)
    (real, real_groups), (other, other_groups) = (
        draw_patches(noise(rng, b), 0.65, n=4, rng=rng) for b in (1, blur)
    )
    assert real.shape == (60, other.shape[1])
    auc, interval = c2st_auc(real, other, real_groups, other_groups)
    assert low <= auc <= high
    assert interval.low <= auc <= interval.high
    assert (auc, interval) == c2st_auc(real, other, real_groups, other_groups)


def test_what_tells_one_group_from_another_does_not_tell_the_sides():
    # a mark of each group, which a fit that saw the group would know again
    rng = np.random.default_rng(6)
    marks = np.repeat(rng.normal(0, 5, (20, 3)), 10, axis=0)
    groups = [str(i // 10) for i in range(100)]
    auc, _ = c2st_auc(marks[:100], marks[100:], groups, groups)
    assert 0.2 < auc < 0.8
