"""Rounded cells blended into real fields: exact truth, and nothing else is touched."""

import numpy as np
import pytest

from training.dataset import circle_cell
from training.dataset.blend import RANGES, blend_rounded

UM_PER_PX = 0.65


@pytest.fixture
def image():
    """An empty dish, slightly uneven."""
    return np.random.default_rng(4).integers(95, 106, (300, 360)).astype(np.uint8)


def blend(image, seed=1, n=6, um_per_px=UM_PER_PX, **options):
    return blend_rounded(image, np.random.default_rng(seed), n, um_per_px, **{"outside": False} | options)


def distance_to(cells, shape):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return np.min([np.hypot(rows - c.row, cols - c.col) - c.radius_px for c in cells], axis=0)


@pytest.mark.parametrize("outside", [False, True])
def test_each_blended_cell_stands_where_the_truth_says(image, outside):
    blended, cells = blend(image, outside=outside)
    assert [cell.label for cell in cells] == ["rounded"] * 6
    change = np.abs(blended.astype(int) - image)
    distance = distance_to(cells, image.shape)
    assert all(0 <= cell.row < 300 and 0 <= cell.col < 360 for cell in cells)
    for cell in cells:
        near = (
            np.hypot(*(np.mgrid[:300, :360] - np.array([cell.row, cell.col])[:, None, None])) < cell.radius_px
        )
        assert np.mean(change[near]) > 30
        rows, cols = np.nonzero(near & (change > 20))
        assert np.hypot(rows.mean() - cell.row, cols.mean() - cell.col) < 3
    assert change[distance > 30 / UM_PER_PX].max() == 0, "farther than a halo nothing changes"
    assert change[distance > 0].mean() < 0.1 * change[distance < 0].mean()


def test_the_same_seed_gives_the_same_field_and_the_real_one_stays(image):
    before = image.copy()
    assert np.array_equal(blend(image)[0], blend(image)[0])
    assert np.array_equal(image, before)
    assert not np.array_equal(blend(image, seed=2)[0], blend(image)[0])
    unchanged, none = blend(image, n=0)
    assert np.array_equal(unchanged, image)
    assert none == ()


def test_no_rounded_cell_is_laid_upon_the_middle_of_a_real_one(image):
    real = [circle_cell("live", row, col, 20) for row in range(20, 300, 40) for col in range(20, 360, 40)]
    _, cells = blend(image, n=4, avoid=real)
    nearest = min(np.hypot(a.row - b.row, a.col - b.col) for a in cells for b in real)
    assert nearest * UM_PER_PX > 0.8 * 10


def test_a_coarser_field_has_smaller_cells(image):
    fine, coarse = (np.mean([c.radius_px for c in blend(image, um_per_px=um)[1]]) for um in (0.65, 1.3))
    assert coarse == pytest.approx(fine / 2, rel=0.15)


def test_evaluation_draws_from_outside_of_the_ranges_of_training():
    for name, (trained, evaluated) in RANGES.items():
        for low, high in trained:
            assert all(high <= start or stop <= low for start, stop in evaluated), name
