import cv2
import numpy as np
import pytest

from device.analysis.pyramid import build_pyramid


def noise(rows, cols):
    return np.random.default_rng(1).integers(0, 256, (rows, cols)).astype(np.uint8)


@pytest.mark.parametrize("um_per_px", [0.64, 0.65, 0.665])
def test_a_frame_within_3_percent_of_the_working_scale_is_not_resized(um_per_px):
    image = noise(480, 640)
    pyramid = build_pyramid(image, um_per_px)
    assert np.array_equal(pyramid.working, image)
    assert (pyramid.zoom, pyramid.um_per_px) == (1.0, um_per_px)


def test_twice_the_working_resolution_is_one_exact_halving():
    image = noise(8, 10)
    working = build_pyramid(image, 0.325).working
    means = image.reshape(4, 2, 5, 2).astype(int).mean(axis=(1, 3))
    assert np.abs(working - means).max() <= 0.5


@pytest.mark.parametrize("um_per_px", [0.1, 0.1625, 0.31, 0.5])
def test_exact_takes_area_means_of_the_frame_in_one_step(um_per_px):
    image = noise(480, 640)
    quick, exact = (build_pyramid(image, um_per_px, exact=exact) for exact in (False, True))
    assert exact.um_per_px == pytest.approx(quick.um_per_px)
    assert exact.working.shape == pytest.approx(np.array(quick.working.shape), abs=1)
    assert exact.working is exact.levels[1]
    if um_per_px == 0.1625:
        means = image.reshape(120, 4, 160, 4).mean(axis=(1, 3))
        assert np.abs(exact.working - means).max() <= 0.5


@pytest.mark.parametrize(("um_per_px", "shrink"), [(0.1625, 4), (0.1, 4), (0.2, 2)])
def test_a_frame_decoded_at_a_part_of_its_size_has_the_same_pyramid_below(um_per_px, shrink):
    image = noise(480, 640)
    part = cv2.resize(image, (640 // shrink, 480 // shrink), interpolation=cv2.INTER_AREA)
    whole, reduced = build_pyramid(image, um_per_px), build_pyramid(part, um_per_px, shrink=shrink)
    assert reduced.zoom == pytest.approx(whole.zoom)
    assert reduced.um_per_px == pytest.approx(whole.um_per_px)
    assert np.abs(reduced.working.astype(int) - whole.working).max() <= 2


def test_from_frame_undoes_to_frame():
    pyramid = build_pyramid(noise(480, 640), 0.2)
    places = np.array([[3.0, 4.5], [100.25, 7.0]])
    assert pyramid.from_frame(pyramid.to_frame(places)) == pytest.approx(places)


def test_an_odd_last_row_is_dropped_by_a_halving():
    image = noise(9, 11)
    assert np.array_equal(build_pyramid(image, 0.325).working, build_pyramid(image[:8, :10], 0.325).working)


@pytest.mark.parametrize("um_per_px", [0.1, 0.31, 0.5, 0.8, 1.3])
def test_any_scale_comes_to_the_working_scale(um_per_px):
    pyramid = build_pyramid(noise(400, 600), um_per_px)
    assert pyramid.um_per_px == pytest.approx(0.65, rel=0.03)
    assert pyramid.zoom == pytest.approx(pyramid.um_per_px / um_per_px)
    assert pyramid.working.shape == pytest.approx((400 / pyramid.zoom, 600 / pyramid.zoom), abs=1)


@pytest.mark.parametrize("um_per_px", [0.2, 0.325, 0.5, 1.0])
def test_a_spot_keeps_its_place_in_the_frame(um_per_px):
    rows, cols = np.mgrid[:300, :400]
    sigma = 4 / um_per_px
    image = (250 * np.exp(-((rows - 130.0) ** 2 + (cols - 250.0) ** 2) / (2 * sigma**2))).astype(np.uint8)
    pyramid = build_pyramid(image, um_per_px)
    weights = pyramid.working.astype(float)
    grid = np.mgrid[: weights.shape[0], : weights.shape[1]]
    center = (grid * weights).sum(axis=(1, 2)) / weights.sum()
    assert pyramid.to_frame(center[None].astype(np.float32))[0] == pytest.approx((130, 250), abs=0.6)


def test_levels_run_from_the_frame_to_at_least_28_px_and_are_read_only():
    image = noise(480, 640)
    levels = build_pyramid(image, 0.65).levels
    assert np.array_equal(levels[0], image)
    assert levels[-1].shape == (30, 40)
    assert not any(level.flags.writeable for level in levels)
    assert image.flags.writeable


def test_a_one_pixel_image_has_a_pyramid():
    assert build_pyramid(np.zeros((1, 1), np.uint8), 0.1).working.shape == (1, 1)


@pytest.mark.parametrize("um_per_px", [0, -1, 1.31, float("nan"), float("inf"), 1e-9])
def test_an_absurd_scale_is_refused(um_per_px):
    with pytest.raises(ValueError, match=r"um_per_px is .*; expected"):
        build_pyramid(noise(10, 10), um_per_px)


@pytest.mark.parametrize(
    "image", [np.zeros((0, 5), np.uint8), np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5))]
)
def test_what_is_no_gray_image_is_refused(image):
    with pytest.raises(ValueError, match="expected a non-empty"):
        build_pyramid(image, 0.65)
