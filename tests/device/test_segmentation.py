import cv2
import numpy as np
import pytest

from device.analysis.flatten import flatten
from device.analysis.phantom import render_field
from device.analysis.pyramid import build_pyramid, halve
from device.analysis.segmentation import find_foreground, grow_regions

SCALE = {"um_per_px": 0.65, "reach_um": 30.0}


def disks(shape, centers, radius):
    mask = np.zeros(shape, np.uint8)
    for row, col in centers:
        cv2.circle(mask, (col, row), radius, 1, cv2.FILLED)
    return mask


def places(centers):
    return np.array(centers, np.float32).reshape(-1, 2)


def grow(mask, centers, others=(), **options):
    return grow_regions(mask.astype(np.uint8), places(centers), places(others), **(SCALE | options)).labels


def test_each_center_has_the_region_of_its_number_and_no_other_pixel():
    centers = [(20, 20), (20, 60), (50, 40)]
    labels = grow(disks((80, 80), centers, 9), centers)
    assert np.unique(labels).tolist() == [0, 1, 2, 3]
    assert [labels[center] for center in centers] == [1, 2, 3]
    assert ((labels > 0) == disks((80, 80), centers, 9)).mean() > 0.99


def test_touching_cells_split_half_way_between_their_centers():
    centers = [(40, 30), (40, 46)]
    labels = grow(disks((80, 80), centers, 9), centers)
    assert set(np.unique(labels[:, :37])) <= {0, 1}
    assert set(np.unique(labels[:, 40:])) <= {0, 2}


@pytest.mark.parametrize("n_side", [3, 6])
def test_the_background_does_not_eat_touching_cells(n_side):
    # cv2.watershed on an inverted distance map loses most of these
    centers = [(12 + 14 * row, 12 + 14 * col) for row in range(n_side) for col in range(n_side)]
    shape = (14 * n_side + 10, 14 * n_side + 10)
    sizes = np.bincount(grow(disks(shape, centers, 8), centers).ravel(), minlength=n_side**2 + 1)[1:]
    assert (sizes > 100).all()


def test_a_center_outside_the_foreground_still_has_a_small_region():
    labels = grow(np.zeros((40, 40), bool), [(20, 20), (0, 0), (39, 39)])
    assert np.bincount(labels.ravel()).shape == (4,)
    assert 5 <= (labels == 1).sum() <= 40


def test_centers_a_pixel_apart_keep_a_region_each():
    labels = grow(np.ones((30, 30), bool), [(10, 10), (10, 11), (11, 10)])
    assert [labels[10, 10], labels[10, 11], labels[11, 10]] == [1, 2, 3]


def test_no_region_reaches_farther_than_allowed():
    labels = grow(np.ones((100, 100), bool), [(50, 50)], reach_um=13)
    rows, cols = np.nonzero(labels)
    assert np.hypot(rows - 50, cols - 50).max() == pytest.approx(20, abs=1)


def test_a_region_fills_its_cell_up_to_the_edge_of_the_image():
    labels = grow(np.ones((20, 20), bool), [(10, 10)])
    assert (labels == 1).all()


def test_no_centers_give_no_regions():
    assert not grow(np.ones((20, 20), bool), []).any()


def test_other_regions_are_components_with_a_rejected_center_and_no_cell():
    mask = disks((60, 90), [(20, 20), (20, 50), (20, 80), (50, 20)], 8)
    rejected = [(20, 24), (20, 50), (50, 20), (40, 60)]
    found = grow_regions(mask, places([(20, 20)]), places(rejected), **SCALE)
    assert found.n_other == 2
    assert np.unique(found.labels).tolist() == [0, 1, 2, 3]
    assert (found.labels[20, 20], found.labels[20, 80], found.labels[40, 60]) == (1, 0, 0)
    assert {found.labels[20, 50], found.labels[50, 20]} == {2, 3}


def test_areas_and_centroids_are_those_of_the_labels():
    centers = [(20, 20), (20, 36), (50, 40), (45, 80)]
    found = grow_regions(disks((80, 100), centers, 9), places(centers), places([]), **SCALE)
    for number, (area, centroid) in enumerate(zip(found.areas_px, found.centroids, strict=True), start=1):
        rows, cols = np.nonzero(found.labels == number)
        assert area == len(rows)
        assert centroid == pytest.approx((rows.mean(), cols.mean()), abs=0.6)


def test_the_same_regions_come_from_each_order_of_the_centers():
    centers = [(12 + 14 * row, 12 + 14 * col) for row in range(3) for col in range(3)]
    labels = grow(disks((60, 60), centers, 8), centers)
    turned = grow(disks((60, 60), centers, 8), centers[::-1])
    # a pixel half way between two cells may go to either
    assert ((labels > 0) == (turned > 0)).all()
    assert (labels == np.where(turned > 0, 10 - turned.astype(int), 0)).mean() > 0.95


def test_no_foreground_in_a_flat_or_a_noisy_empty_field():
    noise = np.random.default_rng(1).normal(128, 4, (100, 150)).astype(np.uint8)
    for modality in ("phase", "brightfield"):
        kind = {"assay": "adherent", "modality": modality}
        assert not find_foreground(np.full((50, 50), 128, np.uint8), 1.3, **kind).any()
        assert find_foreground(noise, 1.3, **kind).mean() < 0.005


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (9, 9)])
def test_any_shape_has_a_foreground(shape):
    coarse = np.full(shape, 200, np.uint8)
    assert find_foreground(coarse, 1.3, assay="adherent", modality="brightfield").shape == shape


@pytest.mark.parametrize(("modality", "share"), [("phase", 0.85), ("brightfield", 0.6)])
def test_the_foreground_covers_rendered_cells_and_leaves_the_background(modality, share):
    phantom = render_field(modality=modality, seed=4, n_cells=80, dead_fraction=0.3)
    coarse = halve(flatten(build_pyramid(phantom.image, 0.65)))
    mask = find_foreground(coarse, 1.3, assay="adherent", modality=modality).astype(bool)
    cells = phantom.labels[::2, ::2] > 0
    near = cv2.dilate(cells.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    assert mask[cells].mean() > share
    assert mask[~near].mean() < 0.02
