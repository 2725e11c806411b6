import numpy as np
import pytest

from device.analysis.flatten import estimate_background, flatten


def shade(rows=240, cols=320):
    down, right = np.mgrid[:rows, :cols]
    return 150 - 0.15 * down - 0.1 * right


@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_a_flat_image_is_all_background(level):
    relative = flatten(np.full((50, 70), level, np.uint8), 0.65)
    assert relative.dtype == np.float32
    assert np.abs(relative).max() < 1e-6


def test_shading_is_taken_out_and_a_cell_stays():
    image = shade()
    image[100:115, 200:215] *= 1.5
    relative = flatten(image.astype(np.uint8), 0.65)
    assert relative[100:115, 200:215].mean() == pytest.approx(0.5, abs=0.05)
    relative[95:120, 195:220] = 0
    assert np.abs(relative[20:-20, 20:-20]).max() < 0.05


def test_the_lamp_twice_as_bright_gives_the_same_relative_contrast():
    image = (shade() + np.random.default_rng(1).normal(0, 5, (240, 320))) / 2
    dim, bright = flatten(image.astype(np.uint8), 0.65), flatten((2 * image).astype(np.uint8), 0.65)
    assert np.abs(dim - bright).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 9)])
def test_any_shape_has_a_background(shape):
    image = np.random.default_rng(1).integers(1, 255, shape).astype(np.uint8)
    assert estimate_background(image, 0.65).shape == shape
    assert np.isfinite(flatten(image, 0.65)).all()


def test_flattening_leaves_its_input_alone():
    image = shade().astype(np.uint8)
    before = image.copy()
    flatten(image, 0.65)
    assert np.array_equal(image, before)
