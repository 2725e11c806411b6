import cv2
import numpy as np
import pytest

from device.analysis.flatten import flatten
from device.analysis.phantom import render_field
from device.analysis.proposals import measure_symmetry, propose

SHARP = {"um_per_px": 0.65, "gradient_sigma_um": 0.65, "gradient_half_per_um": 0.01}


def draw(shape, centers, radius_px, value, *, thickness=cv2.FILLED):
    image = np.zeros(shape, np.float32)
    for row, col in centers:
        cv2.circle(image, (col, row), radius_px, value, thickness, cv2.LINE_AA)
    return image


def found(proposals, centers, gate_px=4):
    distance = np.linalg.norm(proposals.centers[:, None] - np.array(centers)[None], axis=2)
    return (distance.min(axis=0) <= gate_px).tolist()


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
@pytest.mark.parametrize("radius_px", [5, 8, 11])
@pytest.mark.parametrize("value", [-0.5, 0.6])
@pytest.mark.parametrize("thickness", [cv2.FILLED, 2])
def test_a_disk_and_a_ring_are_found_dark_or_bright(modality, radius_px, value, thickness):
    centers = [(30, 40), (70, 20), (75, 75)]
    relative = draw((100, 100), centers, radius_px, value, thickness=thickness)
    assert found(propose(relative, modality), centers) == [True, True, True]


def test_touching_cells_are_proposed_apart():
    centers = [(50, 40), (50, 58)]
    assert found(propose(draw((100, 100), centers, 9, 0.5), "phase"), centers) == [True, True]


def test_symmetry_is_high_in_a_disk_low_beside_it_and_nothing_along_a_line():
    symmetry = measure_symmetry(draw((81, 81), [(40, 40)], 5, 1.0), **SHARP)
    assert np.unravel_index(symmetry.argmax(), symmetry.shape) == (40, 40)
    assert 1 < symmetry[40, 40] <= 2
    line = np.zeros((81, 81), np.float32)
    line[40:44] = 1
    assert measure_symmetry(line, **SHARP).max() < 0.25


def test_a_straight_grid_line_gives_no_proposal():
    relative = np.zeros((100, 100), np.float32)
    relative[:, 50:53] = -0.6
    assert len(propose(relative, "phase").centers) == 0


@pytest.mark.parametrize("relative", [np.zeros((60, 60), np.float32), np.zeros((1, 1), np.float32)])
def test_a_flat_image_gives_no_proposals(relative):
    proposals = propose(relative, "brightfield")
    assert proposals.centers.shape == (0, 2)
    assert proposals.strength.shape == (0,)


def test_the_strongest_come_first_and_the_limit_holds():
    relative = np.random.default_rng(2).normal(0, 0.3, (120, 120)).astype(np.float32)
    everything = propose(relative, "phase")
    assert (np.diff(everything.strength) <= 0).all()
    assert np.array_equal(propose(relative, "phase", limit=5).centers, everything.centers[:5])


def test_a_quarter_turn_turns_the_proposals():
    relative = draw((90, 120), [(20, 30), (60, 80), (45, 100)], 8, 0.5)
    turned = propose(np.ascontiguousarray(np.rot90(relative)), "phase")
    centers = propose(relative, "phase").centers
    back = np.stack([centers[:, 1] * -1 + 119, centers[:, 0]], axis=1)
    assert sorted(map(tuple, back)) == sorted(map(tuple, turned.centers))


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_hardly_a_cell_of_a_rendered_field_is_missed(modality):
    hits = n_true = n_proposed = 0
    for seed in (1, 2):
        phantom = render_field(modality=modality, seed=seed, n_cells=90, dead_fraction=0.4)
        proposals = propose(flatten(phantom.image, 0.65), modality)
        truth = [
            (thing.row, thing.col)
            for thing in phantom.objects
            if thing.region and thing.inside and thing.visible_fraction > 0.5
        ]
        hits += sum(found(proposals, truth, gate_px=9.2))
        n_true += len(truth)
        n_proposed += len(proposals.centers)
    assert hits / n_true >= 0.99
    assert n_proposed <= 8 * n_true
