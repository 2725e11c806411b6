import cv2
import numpy as np
import pytest

from device.analysis import proposals
from device.analysis.flatten import flatten
from device.analysis.phantom import render_field
from device.analysis.proposals import measure_symmetry, propose
from device.analysis.pyramid import build_pyramid, halve
from device.analysis.segmentation import find_foreground

SHARP = {"um_per_px": 0.65, "gradient_sigma_um": 0.65, "gradient_half_per_um": 0.01}


def draw(shape, centers, radius_px, value, *, thickness=cv2.FILLED):
    """Return relative gray at half scale: 128 is background."""
    image = np.full(shape, 128, np.uint8)
    for row, col in centers:
        cv2.circle(image, (col, row), radius_px, round(128 + 127 * value), thickness, cv2.LINE_AA)
    return image


def search(coarse, modality="phase", *, assay="adherent", **options):
    foreground = find_foreground(coarse, 1.3, assay=assay, modality=modality)
    return propose(coarse, foreground, assay=assay, modality=modality, um_per_px=1.3, **options)


def found(proposed, centers, gate_px=4):
    """Return for each center in pixels of the working scale whether a proposal is near."""
    distance = np.linalg.norm(proposed[:, None] - np.array(centers)[None], axis=2)
    return (distance.min(axis=0) <= gate_px).tolist()


def twice(centers):
    return [(2 * row + 0.5, 2 * col + 0.5) for row, col in centers]


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
@pytest.mark.parametrize("assay", ["adherent", "suspension"])
@pytest.mark.parametrize("radius_px", [3, 4, 6])
@pytest.mark.parametrize("value", [-0.5, 0.6])
@pytest.mark.parametrize("thickness", [cv2.FILLED, 1])
def test_a_disk_and_a_ring_are_found_dark_or_bright(modality, assay, radius_px, value, thickness):
    centers = [(15, 20), (35, 10), (37, 37)]
    coarse = draw((50, 50), centers, radius_px, value, thickness=thickness)
    assert found(search(coarse, modality, assay=assay), twice(centers)) == [True, True, True]


def test_a_wide_body_is_proposed_at_its_middle_in_layers_only():
    coarse = draw((100, 100), [], 1, 0)
    noise = np.random.default_rng(1).integers(0, 2, (30, 50)).astype(np.uint8)
    coarse[35:65, 25:75] += 60 * noise  # textured all over, no circle anywhere
    middle = [(2 * 49.5, 2 * 49.5)]
    assert found(search(coarse), middle, gate_px=8) == [True]
    distance = find_foreground(coarse, 1.3, assay="adherent", modality="phase")
    assert distance[50, 50] == 1


def test_touching_cells_are_proposed_apart():
    centers = [(25, 20), (25, 29)]
    assert found(search(draw((50, 50), centers, 4, 0.5)), twice(centers)) == [True, True]


def test_symmetry_is_high_in_a_disk_low_beside_it_and_nothing_along_a_line():
    symmetry = measure_symmetry(draw((81, 81), [(40, 40)], 5, 1.0), **SHARP)
    assert np.unravel_index(symmetry.argmax(), symmetry.shape) == (40, 40)
    assert 1 < symmetry[40, 40] <= 2
    line = draw((81, 81), [], 1, 0)
    line[40:44] = 255
    assert measure_symmetry(line, **SHARP).max() < 0.25


@pytest.mark.parametrize(("assay", "most"), [("suspension", 0), ("adherent", 1)])
def test_a_straight_grid_line_gives_hardly_a_proposal(assay, most):
    coarse = draw((60, 60), [], 1, 0)
    coarse[:, 30:32] = 50
    assert len(search(coarse, assay=assay)) <= most


@pytest.mark.parametrize("shape", [(60, 60), (1, 1)])
def test_a_flat_image_gives_no_proposals(shape):
    assert search(np.full(shape, 128, np.uint8), "brightfield").shape == (0, 2)


def test_the_most_circular_come_first_and_the_limit_holds(monkeypatch):
    coarse = np.random.default_rng(2).normal(128, 40, (120, 120)).clip(0, 255).astype(np.uint8)
    everything = search(coarse, assay="suspension")
    symmetry = measure_symmetry(coarse, um_per_px=1.3, **proposals._SENSITIVITY["phase"])
    peaks = np.rint((everything - 0.5) / 2).astype(int)
    strength = cv2.dilate(symmetry, np.ones((3, 3)))[peaks[:, 0], peaks[:, 1]]  # a peak lies between pixels
    assert len(strength) > 20
    assert (np.diff(strength) <= 0).all()
    monkeypatch.setattr(proposals, "MAX_PROPOSALS", 5)
    assert np.array_equal(search(coarse, assay="suspension"), everything[:5])


def test_a_quarter_turn_turns_the_proposals():
    coarse = draw((46, 60), [(10, 15), (30, 40), (22, 50)], 4, 0.5)
    turned = search(np.ascontiguousarray(np.rot90(coarse)))
    centers = search(coarse)
    back = np.stack([119 - centers[:, 1], centers[:, 0]], axis=1)
    distance = np.linalg.norm(back[:, None] - turned[None], axis=2)
    assert len(back) == len(turned) >= 3
    assert (distance.min(axis=1) < 0.1).all()


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_hardly_a_cell_of_a_rendered_field_is_missed(modality):
    hits = n_true = n_proposed = 0
    for seed in (1, 2):
        phantom = render_field(modality=modality, seed=seed, n_cells=90, dead_fraction=0.4)
        proposals = search(halve(flatten(build_pyramid(phantom.image, 0.65))), modality)
        truth = [
            (thing.row, thing.col)
            for thing in phantom.objects
            if thing.region and thing.inside and thing.visible_fraction > 0.5
        ]
        hits += sum(found(proposals, truth, gate_px=9.2))
        n_true += len(truth)
        n_proposed += len(proposals)
    assert hits / n_true >= 0.98
    assert n_proposed <= 8 * n_true


def test_symmetry_does_not_depend_on_where_in_memory_an_image_lies():
    relative = cv2.GaussianBlur(np.random.default_rng(3).integers(90, 170, (60, 81), np.uint8), (0, 0), 1.5)
    options = {"um_per_px": 1.3, "gradient_sigma_um": 1.0, "gradient_half_per_um": 0.077}
    filler, seen = [], set()
    for size in np.random.default_rng(4).integers(16, 60_000, 200):
        filler = [*filler[-7:], np.zeros(size, np.uint8)]
        seen.add(measure_symmetry(relative, **options).tobytes())
    assert len(seen) == 1
