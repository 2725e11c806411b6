"""Each claim of the paper's counting chain, equation by equation."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from device.analysis.paper.chain import differentiate, magnitude, orientation, segment_as_the_paper
from device.analysis.paper.clusters import find_centroids, split_clusters
from device.analysis.paper.morphology import dilate, disk, erode, fill_holes, opening, top_hat
from device.analysis.paper.otsu import (
    between_class_variance,
    class_probabilities,
    gray_probabilities,
    otsu_threshold,
    within_class_variance,
)
from device.analysis.paper.watershed import distance_to_background, find_markers, flood, section

UM_PER_PX = 0.65
GRAY = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))
MASK = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))


def drawn(*lines):
    return np.array([[mark == "#" for mark in line] for line in lines])


def round_cells(centers, radius, shape=(120, 160), inside=180, outside=90):
    image = np.full(shape, outside, np.uint8)
    for row, col in centers:
        cv2.circle(image, (col, row), radius, inside, cv2.FILLED)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def split(mask, depth_px=0.75):
    distance = distance_to_background(mask)
    return flood(distance, find_markers(distance, depth_px))


def test_equation_1_the_vertical_difference_is_not_zero():
    down, right = differentiate(np.tile(np.arange(10, 60, 5, dtype=np.uint8)[:, None], (1, 8)))
    assert down[1:-1] == pytest.approx(5)
    assert right == pytest.approx(0)


def test_equation_1_a_ramp_along_the_columns_has_its_slope_and_the_border_is_reflected():
    down, right = differentiate(np.tile(np.arange(0, 30, 3, dtype=np.uint8), (8, 1)))
    assert right[:, 1:-1] == pytest.approx(3)
    assert right[:, [0, -1]] == pytest.approx(0)
    assert down == pytest.approx(0)


def test_equation_2_is_the_root_of_the_sum_of_squares():
    assert magnitude(np.float32([3.0]), np.float32([4.0])) == pytest.approx([5])


def test_equation_3_is_the_arc_tangent_of_vertical_and_horizontal():
    down, right = np.float32([0, 1, 0, -1]), np.float32([1, 0, -1, 0])
    assert orientation(down, right) == pytest.approx([0, np.pi / 2, np.pi, -np.pi / 2])


def test_equations_4_and_5_take_the_maximum_over_the_reflected_footprint():
    image = np.zeros((5, 5), np.uint8)
    image[2, 2] = 7
    corner = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 0]], np.uint8)
    expected = np.zeros((5, 5), np.uint8)
    expected[2, 2] = expected[2, 3] = expected[3, 2] = 7
    assert np.array_equal(dilate(image, corner), expected)


@given(GRAY)
def test_dilation_and_erosion_are_dual(image):
    footprint = disk(1.5)
    assert np.array_equal(255 - dilate(image, footprint), erode(255 - image, footprint))


def test_a_footprint_is_a_disk_of_its_radius():
    assert np.array_equal(disk(0), [[1]])
    assert np.array_equal(disk(1), drawn(".#.", "###", ".#."))
    assert disk(3.2).sum() == sum(row**2 + col**2 <= 3.2**2 for row in range(-3, 4) for col in range(-3, 4))


def test_equation_6_fills_what_no_path_joins_to_the_border():
    image = drawn("........", ".####...", ".#..#.##", ".#..#.#.", ".####.##")
    filled = drawn("........", ".####...", ".####.##", ".####.#.", ".####.##")
    assert np.array_equal(fill_holes(image), filled)


def test_equation_6_background_is_4_connected_because_foreground_is_8_connected():
    assert fill_holes(drawn(".#.", "#.#", ".#.")).tolist() == drawn(".#.", "###", ".#.").tolist()


@given(MASK)
@settings(deadline=None)
def test_equation_6_is_the_reconstruction_of_its_marker(image):
    marker = ~image
    marker[1:-1, 1:-1] = False
    grown, cross = marker.astype(np.uint8), disk(1)
    for _ in range(image.size):
        grown = np.minimum(dilate(grown, cross), (~image).astype(np.uint8))
    assert np.array_equal(fill_holes(image), ~grown.astype(bool))


def test_equation_7_an_opening_removes_noise_and_keeps_the_cell():
    image = drawn("#......", "..###..", "..###.#", "..###..", ".......")
    square = np.ones((3, 3), np.uint8)
    assert np.array_equal(opening(image.astype(np.uint8), square).astype(bool), drawn(
        ".......", "..###..", "..###..", "..###..", "......."
    ))  # fmt: skip


@given(GRAY)
def test_equation_7_opening_and_top_hat_add_up_to_the_image(image):
    opened = opening(image, disk(1))
    assert (opened <= image).all()
    assert np.array_equal(opening(opened, disk(1)), opened)
    assert np.array_equal(opened + top_hat(image, disk(1)), image)


def test_a_top_hat_takes_out_a_slope():
    slope = np.tile(np.linspace(50, 150, 80).astype(np.uint8), (40, 1))
    slope[18:22, 38:42] += 60
    flat = top_hat(slope, disk(6))
    assert flat[19, 39] >= 58
    flat[18:22, 38:42] = 0
    assert flat.max() <= 10


@given(GRAY)
def test_equation_9_both_classes_add_up_to_one(image):
    first, second = class_probabilities(gray_probabilities(image))
    assert first + second == pytest.approx(1)
    assert second[-1] == pytest.approx(0)


@given(GRAY)
def test_equations_8_and_10_the_parts_of_the_variance_add_up_and_do_not_depend_on_the_threshold(image):
    shares = gray_probabilities(image)
    total = within_class_variance(shares) + between_class_variance(shares)
    assert total == pytest.approx(float(image.astype(float).var()), abs=1e-6)


@given(GRAY)
def test_the_largest_variance_between_is_the_smallest_within(image):
    shares = gray_probabilities(image)
    within, between = within_class_variance(shares), between_class_variance(shares)
    assert within[between.argmax()] == pytest.approx(within.min(), abs=1e-6)


def test_otsu_splits_two_levels_in_the_middle_and_a_flat_image_at_its_level():
    assert otsu_threshold(np.array([[10, 10, 200]], np.uint8)) == 104
    assert otsu_threshold(np.full((3, 3), 42, np.uint8)) == 42
    with pytest.raises(ValueError, match="expected a non-empty"):
        otsu_threshold(np.zeros((0, 3), np.uint8))


def test_equation_11_measures_to_the_background():
    assert distance_to_background(drawn(".....", ".###.", ".###.", ".###.", ".....")).tolist() == [
        [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 2, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]
    ]  # fmt: skip
    assert np.isfinite(distance_to_background(np.ones((4, 6), bool))).all()


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_equation_12_sections_of_the_distance_are_erosions_by_a_closed_disk(radius):
    mask = np.random.default_rng(radius).random((40, 40)) < 0.97
    mask[[0, -1]] = mask[:, [0, -1]] = False
    eroded = erode(mask.astype(np.uint8), disk(radius)).astype(bool)
    assert np.array_equal(section(distance_to_background(mask), radius), eroded)


def test_touching_cells_are_counted_apart():
    mask = round_cells([(60, 50), (60, 70), (45, 60)], 11, inside=255, outside=0) > 127
    assert split(mask).max() == 3


def test_the_watershed_cuts_unequal_cells_at_their_neck():
    mask = np.zeros((80, 120), np.uint8)
    cv2.circle(mask, (40, 40), 22, 1, cv2.FILLED)
    cv2.circle(mask, (72, 40), 12, 1, cv2.FILLED)
    labels = split(mask.astype(bool))
    assert labels.max() == 2
    neck = int(np.argmin(mask[:, 45:70].sum(axis=0))) + 45
    cut = int(np.flatnonzero(labels[40] == labels[40, 40])[-1])
    assert cut == pytest.approx(neck, abs=2)


def test_the_background_does_not_eat_the_cells_and_no_foreground_is_lost():
    centers = [(12 + 16 * row, 12 + 16 * col) for row in range(6) for col in range(6)]
    mask = round_cells(centers, 9, (110, 110), inside=255, outside=0) > 127
    labels = split(mask)
    assert labels.max() == 36
    assert np.array_equal(labels > 0, mask)


def test_raw_maxima_split_cells_that_h_maxima_keep_whole():
    rows, cols = np.mgrid[:40, :100]
    wavy = (np.abs(rows - 20) < 9 + np.cos(cols / 3)) & (cols > 5) & (cols < 95)
    distance = distance_to_background(wavy)
    assert find_markers(distance, 2.5).max() == 1
    assert find_markers(distance, 0.0).max() >= 4


def test_a_component_lower_than_the_depth_is_still_a_cell():
    assert find_markers(distance_to_background(drawn("......", ".####.", "......")), 5.0).max() == 1


def blobs(seed, shape=(180, 240)):
    """Return an opened random mask: rounded lumps of all sizes, many cut by the border."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, shape), (0, 0), 4 + seed)
    return opening((noise > 0.02).astype(np.uint8), disk(3)).astype(bool)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("depth_px", [0.3, 0.75, 3.0])
def test_splitting_clusters_alone_counts_as_the_watershed_of_the_whole_frame(seed, depth_px):
    mask = blobs(seed)
    whole, (labels, centers) = split(mask, depth_px), split_clusters(mask, depth_px)
    assert labels.max() == whole.max() > 5
    assert np.array_equal(labels > 0, whole > 0)
    pairs, shared = np.unique(np.stack([labels[mask], whole[mask]]), axis=1, return_counts=True)
    assert len(set(pairs[0]) - {0}) == labels.max(), "no label is left out"
    own = np.zeros(labels.max() + 1, int)
    np.maximum.at(own, pairs[0], shared)
    assert own.sum() > 0.9 * mask.sum(), "nearly the same regions in another order"
    assert centers == pytest.approx(find_centroids(labels), abs=1e-3)


def test_a_pair_of_disks_is_split_where_the_whole_frame_splits_it():
    rng, counts = np.random.default_rng(2), []
    for _ in range(100):
        large, angle = rng.uniform(4, 20), rng.uniform(0, np.pi)
        small = large * rng.uniform(0.35, 1)
        rows, cols = np.mgrid[-60:61, -60:61]
        apart = rng.uniform(0.2, 1.1) * (large + small)
        second = np.hypot(rows - apart * np.sin(angle), cols - apart * np.cos(angle)) <= small
        mask = (np.hypot(rows, cols) <= large) | second
        counts.append((split(mask).max(), split_clusters(mask, 0.75)[0].max()))
    whole, quick = np.array(counts).T
    assert np.array_equal(whole, quick)
    assert set(whole) == {1, 2}


def test_cells_cut_by_the_border_are_split_as_in_the_whole_frame():
    mask = round_cells([(0, 30), (0, 52), (60, 159), (119, 0), (80, 80)], 13, inside=255, outside=0) > 127
    labels, _ = split_clusters(mask, 0.75)
    assert labels.max() == split(mask).max() == 5
    assert labels[0, 30] != labels[0, 52]


@pytest.mark.parametrize("mask", [np.zeros((20, 30), bool), np.ones((20, 30), bool)])
def test_an_empty_and_a_full_mask_have_no_cell_and_one(mask):
    labels, centers = split_clusters(mask, 0.75)
    assert labels.max() == len(centers) == int(mask.any())


@pytest.mark.parametrize("um_per_px", [0.65, 0.2])
def test_the_shortcuts_change_no_count(um_per_px):
    zoom = UM_PER_PX / um_per_px
    centers = [(round(row * zoom), round(col * zoom)) for row, col in CENTERS]
    image = round_cells(centers, round(9 * zoom), (round(120 * zoom), round(160 * zoom)))
    quick, exact = (segment_as_the_paper(image, um_per_px, exact=exact) for exact in (False, True))
    assert quick[0].max() == exact[0].max() == 5
    distance = np.linalg.norm(quick[1][:, None] - exact[1][None], axis=2)
    assert distance.min(axis=1).max() < 1


CENTERS = [(30, 30), (30, 47), (80, 40), (70, 120), (30, 100)]


def test_the_chain_counts_round_cells_two_of_them_touching():
    labels, centers = segment_as_the_paper(round_cells(CENTERS, 9), UM_PER_PX)
    assert labels.max() == len(centers) == 5
    distance = np.linalg.norm(centers[:, None] - np.array(CENTERS)[None], axis=2)
    assert distance.min(axis=0).max() < 2


def test_the_stages_are_the_pictures_of_figures_2_to_6():
    seen = {}
    image = round_cells(CENTERS, 9)
    segment_as_the_paper(image, UM_PER_PX, observe=lambda name, picture: seen.update({name: picture}))
    assert list(seen) == ["gradient", "filled", "opened", "clusters", "segmented", "cells"]
    assert all(picture.shape == image.shape for picture in seen.values())
    assert seen["clusters"][30, 38]
    assert not seen["clusters"][80, 40]
    assert seen["gradient"].max() == 255
    assert seen["filled"][80, 40]


@pytest.mark.parametrize("image", [np.full((30, 40), 9, np.uint8), np.zeros((1, 1), np.uint8)])
def test_a_flat_image_gives_no_regions(image):
    labels, centers = segment_as_the_paper(image, UM_PER_PX)
    assert not labels.any()
    assert centers.shape == (0, 2)


def test_the_chain_leaves_its_image_alone():
    image = round_cells(CENTERS, 9)
    before = image.copy()
    segment_as_the_paper(image, UM_PER_PX)
    assert np.array_equal(image, before)


def test_centroids_stand_in_the_order_of_the_labels():
    labels = np.array([[0, 2, 2], [1, 0, 0], [1, 0, 3]])
    assert find_centroids(labels).tolist() == [[1.5, 0], [0, 1.5], [2, 2]]
