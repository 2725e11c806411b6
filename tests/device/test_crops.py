import numpy as np
import pytest

from device.analysis.crops import CROP_PX, OUTSIDE, cut_crops, view_field
from device.analysis.pyramid import halve


@pytest.fixture
def relative():
    return np.random.default_rng(3).integers(60, 200, (60, 90)).astype(np.uint8)


def test_an_inner_crop_is_the_plain_cut_around_its_center(relative):
    crop = cut_crops(relative, np.array([[30.5, 40.5]]))[0]
    assert np.array_equal(crop, relative[17:45, 27:55])


@pytest.mark.parametrize("center", [(0, 0), (59, 89), (-5, 200), (0.4, 88.6)])
def test_crops_at_the_border_show_where_the_image_ends(relative, center):
    crop = cut_crops(relative, np.array([center]))[0]
    padded = np.pad(relative, 28, constant_values=OUTSIDE)
    row, col = np.floor(np.clip(center, 0, [59, 89]) - np.array(13.0)).astype(int) + 28
    assert np.array_equal(crop, padded[row : row + 28, col : col + 28])
    assert (crop == OUTSIDE).any()


def test_no_centers_give_no_crops(relative):
    assert cut_crops(relative, np.zeros((0, 2))).shape == (0, CROP_PX, CROP_PX)


def test_a_one_pixel_image_has_crops():
    crops = cut_crops(np.full((1, 1), 128, np.uint8), np.array([[0, 0]]))
    assert crops.shape == (1, 28, 28)
    assert (crops > OUTSIDE).sum() == 1


def test_cropping_leaves_its_input_alone(relative):
    before = relative.copy()
    cut_crops(relative, np.array([[3.0, 4.0]]))
    assert np.array_equal(before, relative)


@pytest.mark.parametrize(
    ("size", "rows", "cols"),
    [
        ((160, 160), [0], [0]),  # one tile of 80 px at half the scale
        ((240, 320), [0, 40], [0, 80]),
        ((161, 250), [0], [0, 45]),
        ((4000, 160), [0, 384, 768, 1152, 1536, 1920], [0]),  # a large field is sampled
        ((159, 320), [], []),
    ],
)
def test_tiles_lie_evenly_from_border_to_border(size, rows, cols):
    relative = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    tiles = view_field(relative, "relative/2 tiles")
    half = halve(relative)
    expected = [half[row : row + 80, col : col + 80] for row in rows for col in cols]
    assert tiles.shape == (len(expected), 80, 80)
    assert all(np.array_equal(tile, seen) for tile, seen in zip(tiles, expected, strict=True))


def test_the_whole_field_is_squeezed_to_28_by_28_by_area():
    pattern = np.where(np.eye(28), 200, 100)
    relative = np.kron(pattern, np.ones((4, 8))).astype(np.uint8)
    assert np.array_equal(view_field(relative, "relative/2 squeezed")[0], pattern)
