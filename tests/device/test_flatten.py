import numpy as np
import pytest

from device.analysis.flatten import GAIN, MIDDLE, estimate_background, flatten
from device.analysis.pyramid import build_pyramid


def shade(rows=240, cols=320):
    down, right = np.mgrid[:rows, :cols]
    return 150 - 0.15 * down - 0.1 * right


def flat(image):
    return flatten(build_pyramid(image.astype(np.uint8), 0.65))


def contrast(image):
    return (flat(image).astype(float) - MIDDLE) / GAIN


@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_a_flat_image_is_all_background(level):
    relative = flat(np.full((50, 70), level))
    assert relative.dtype == np.uint8
    assert (relative == MIDDLE).all()


def test_background_is_128_black_is_1_and_twice_the_background_or_more_is_255():
    image = np.full((200, 300), 100)
    for col, level in enumerate((0, 60, 200, 250)):
        image[100:104, 50 * col + 40 : 50 * col + 44] = level
    assert [flat(image)[101, 50 * col + 41] for col in range(4)] == [1, 77, 255, 255]


def test_shading_is_taken_out_and_a_cell_stays():
    image = shade()
    image[100:115, 200:215] *= 1.5
    relative = contrast(image)
    assert relative[100:115, 200:215].mean() == pytest.approx(0.5, abs=0.05)
    relative[95:120, 195:220] = 0
    assert np.abs(relative[20:-20, 20:-20]).max() < 0.05


def test_the_lamp_twice_as_bright_gives_the_same_relative_contrast():
    image = (shade() + np.random.default_rng(1).normal(0, 5, (240, 320))) / 2
    assert np.abs(contrast(image) - contrast(2 * image)).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 9)])
def test_any_shape_has_a_background(shape):
    image = np.random.default_rng(1).integers(1, 255, shape).astype(np.uint8)
    assert np.isfinite(estimate_background(image, 5.2)).all()
    assert flat(image).shape == shape


def test_flattening_leaves_its_input_alone():
    image = shade().astype(np.uint8)
    before = image.copy()
    flat(image)
    assert np.array_equal(image, before)
