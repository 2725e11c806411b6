from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.analysis.phantom import Culture, Optics, default_optics, render_field, vary, vary_culture
from device.analysis.phantom.optics import intensity
from device.records import CellClass

CLEAN = Culture(texture_rad=0.0, debris_per_mm2=0.0, mitotic_share=0.0)
DARKROOM = Optics(vignetting=0.0, unevenness=0.0, full_well_e=50000.0, read_noise_e=0.0, stray_light=0.0)


def relative(phantom):
    """Return the light of a DARKROOM field relative to its background."""
    light = (phantom.image / 255.0) ** DARKROOM.gamma
    return light / np.median(light)


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_same_seed_and_settings_give_the_same_bytes(modality):
    first, again, other = (
        render_field(modality=modality, seed=seed, n_cells=30, dead_fraction=0.4, size=(240, 320))
        for seed in (7, 7, 8)
    )
    assert first.image.tobytes() == again.image.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.objects == again.objects
    assert first.parameters == again.parameters
    assert first.image.tobytes() != other.image.tobytes()


def test_a_field_is_made_again_from_its_seed_and_parameters():
    rng = np.random.default_rng(5)
    field = render_field(
        modality="phase",
        rng=rng,
        n_cells=20,
        dead_fraction=0.5,
        size=(200, 240),
        optics=vary(rng, "phase"),
        culture=vary_culture(rng),
    )
    said = field.parameters
    again = render_field(
        modality=said["modality"],
        seed=field.seed,
        size=(said["height_px"], said["width_px"]),
        um_per_px=said["um_per_px"],
        numbers=(said["n_live"], said["n_rounded"], said["n_lysed"]),
        optics=Optics(**said["optics"]),
        culture=Culture(**said["culture"]),
    )
    assert again.image.tobytes() == field.image.tobytes()


def test_the_picture_is_read_only_gray():
    field = render_field(modality="phase", seed=1, n_cells=5, size=(100, 120))
    assert field.image.dtype == np.uint8
    assert field.labels.dtype == np.uint16
    assert field.image.shape == field.labels.shape == (100, 120)
    assert not field.image.flags.writeable
    assert not field.labels.flags.writeable


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**62),
    n_live=st.integers(0, 40),
    n_rounded=st.integers(0, 25),
    n_lysed=st.integers(0, 15),
    um_per_px=st.sampled_from([0.5, 0.65, 1.0, 1.3]),
)
def test_truth_equals_labels_and_the_numbers_asked_for(seed, n_live, n_rounded, n_lysed, um_per_px):
    field = render_field(
        modality="phase",
        seed=seed,
        numbers=(n_live, n_rounded, n_lysed),
        size=(256, 320),
        um_per_px=um_per_px,
    )
    regions = [item.region for item in field.objects if item.region]
    assert regions == list(range(1, len(regions) + 1))
    assert set(np.unique(field.labels)) - {0} == set(regions)
    counts = {kind: sum(c.cell_class is kind for c in field.cells) for kind in CellClass}
    assert (counts[CellClass.LIVE], counts[CellClass.ROUNDED], counts[CellClass.LYSED]) == (
        n_live,
        n_rounded,
        n_lysed,
    )
    assert (field.n_live, field.n_dead) == (n_live, n_rounded + n_lysed)
    border = np.concatenate([field.labels[0], field.labels[-1], field.labels[:, 0], field.labels[:, -1]])
    on_border = set(border.tolist()) - {0}
    for item in field.objects:
        if item.region:
            assert item.touches_edge == (item.region in on_border)
            assert 0 < item.visible_fraction <= 1
            assert -0.5 <= item.row < 256
            assert -0.5 <= item.col < 320


def test_center_and_radius_agree_with_the_mask_of_a_round_cell():
    field = render_field(modality="phase", seed=3, numbers=(0, 8, 0), culture=replace(CLEAN, bleb_share=0))
    for cell in field.cells:
        if cell.touches_edge or cell.visible_fraction < 0.999:
            continue
        rows, cols = np.nonzero(field.labels == cell.region)
        assert np.hypot(rows.mean() - cell.row, cols.mean() - cell.col) < 1
        assert np.sqrt(len(rows) / np.pi) * 0.65 == pytest.approx(cell.radius_um, rel=0.01)


def test_a_cell_that_lies_under_others_or_outside_is_partly_visible():
    field = render_field(modality="phase", seed=2, n_cells=150, dead_fraction=0.3, size=(320, 400))
    cut = [cell for cell in field.objects if cell.region and cell.touches_edge]
    assert cut
    assert min(cell.visible_fraction for cell in cut) < 0.9
    visitors = [cell for cell in field.objects if cell.region and not cell.inside]
    assert visitors
    assert all(cell.touches_edge and cell.visible_fraction >= 0.2 for cell in visitors)


def test_an_empty_field_holds_no_cells():
    field = render_field(modality="phase", seed=1, n_cells=0, size=(200, 240))
    assert not field.labels.any()
    assert field.cells == ()
    assert field.dead_fraction is None
    assert field.parameters["confluence"] == 0
    assert 60 < np.median(field.image) < 140


def test_matter_is_in_the_truth_without_a_region():
    culture = Culture(debris_per_mm2=500, aggregates_per_mm2=100, bubbles=2, fibers=1)
    field = render_field(modality="phase", seed=4, n_cells=10, dead_fraction=0.2, culture=culture)
    matter = [item for item in field.objects if not item.region]
    assert {item.kind for item in matter} >= {"debris", "aggregate"}
    assert all(item.cell_class is CellClass.OTHER for item in matter)
    assert len(field.cells) == 10


def test_a_mitotic_cell_counts_as_rounded():
    field = render_field(
        modality="phase", seed=4, numbers=(0, 5, 0), culture=replace(CLEAN, mitotic_share=1.0)
    )
    assert {cell.kind for cell in field.cells} == {"mitotic"}
    assert {cell.cell_class for cell in field.cells} == {CellClass.ROUNDED}


def single(kind, modality="phase", optics=DARKROOM):
    numbers = tuple(int(kind == other) for other in ("live", "rounded", "lysed"))
    for seed in range(20):
        field = render_field(modality=modality, seed=seed, culture=CLEAN, optics=optics, numbers=numbers)
        if len([c for c in field.objects if c.region]) == 1 and not field.cells[0].touches_edge:
            return field
    raise AssertionError("no field with one whole cell")


def ring_around(mask, inner_px, outer_px):
    far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return (far > inner_px) & (far <= outer_px)


def test_in_phase_contrast_a_live_cell_is_dark_with_a_bright_halo():
    field = single("live")
    light, mask = relative(field), field.labels > 0
    assert light[mask].mean() < 0.8
    assert light[ring_around(mask, 2, 6)].mean() > 1.02
    assert light[ring_around(mask, 60, 90)].mean() == pytest.approx(1, abs=0.02), "the halo ends"


def test_in_phase_contrast_a_rounded_cell_is_bright_and_a_ghost_pale():
    rounded, ghost = single("rounded"), single("lysed")
    assert np.median(relative(rounded)[rounded.labels > 0]) > 1.8
    assert 0.6 < np.median(relative(ghost)[ghost.labels > 0]) < 1.2


def test_in_brightfield_a_live_cell_vanishes_in_focus_and_shows_beside_it():
    sharp, beside = (
        single("live", "brightfield", replace(DARKROOM, defocus_um=z, condenser_aperture=0.08))
        for z in (0, 12)
    )
    assert relative(sharp)[sharp.labels > 0].std() < 0.6 * relative(beside)[beside.labels > 0].std()


def test_a_round_cell_in_brightfield_inverts_through_focus():
    above, below = (
        single("rounded", "brightfield", replace(DARKROOM, defocus_um=z, condenser_aperture=0.08))
        for z in (12, -12)
    )

    def rim(field):
        mask = field.labels > 0
        return relative(field)[ring_around(mask, 0, 2)].mean()

    assert rim(above) < 0.97
    assert rim(below) > 1.0


def test_weak_phase_follows_the_thin_object_formula():
    # thin phase: I - 1 = -(2 / zeta) (phi - phi * h) with h a gaussian of the ring's reach
    optics = replace(DARKROOM, numerical_aperture=0.5)
    scale, sigma_um = 0.65, 5.0
    axis = (np.arange(256) - 128) * scale
    phi = 0.03 * np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * sigma_um**2))
    path = (phi * optics.wavelength_um / (2 * np.pi)).astype(np.float32)
    light = intensity(path, np.zeros_like(path), scale, modality="phase", optics=optics)
    smooth = cv2.GaussianBlur(phi, (0, 0), optics.ring_width_um / scale)
    expected = 1 - 2 / optics.ring_transmission * (phi - smooth)
    assert np.abs(light - expected).max() < 0.05 * np.abs(expected - 1).max()


def test_nothing_in_the_light_path_gives_an_even_background():
    flat = np.zeros((64, 80), np.float32)
    for modality in ("phase", "brightfield"):
        light = intensity(flat, flat, 0.65, modality=modality, optics=default_optics(modality))
        assert light == pytest.approx(1, abs=1e-4)


def test_defocus_blurs_and_noise_grows_with_fewer_electrons():
    def detail(**changes):
        field = render_field(modality="phase", seed=1, n_cells=20, size=(240, 320), optics=Optics(**changes))
        return cv2.Laplacian(field.image, cv2.CV_32F).std()

    sharp = detail(full_well_e=50000.0, read_noise_e=0.0)
    assert detail(full_well_e=50000.0, read_noise_e=0.0, defocus_um=25.0) < 0.5 * sharp
    assert detail(full_well_e=500.0) > 1.5 * sharp


def test_camera_processing_changes_the_picture_only():
    plain = render_field(modality="phase", seed=1, n_cells=10, size=(120, 160))
    worked = render_field(
        modality="phase", seed=1, n_cells=10, size=(120, 160), optics=Optics(sharpening=0.8, jpeg_quality=80)
    )
    assert worked.image.tobytes() != plain.image.tobytes()
    assert worked.objects == plain.objects
    assert np.median(worked.image) == pytest.approx(np.median(plain.image), abs=2)


@pytest.mark.parametrize(
    ("size", "um_per_px", "n_cells"), [((16, 16), 0.65, 1), ((33, 517), 0.31, 4), ((64, 48), 4.0, 30)]
)
def test_odd_sizes_and_scales_render(size, um_per_px, n_cells):
    field = render_field(
        modality="brightfield", seed=6, n_cells=n_cells, dead_fraction=1.0, size=size, um_per_px=um_per_px
    )
    assert field.image.shape == field.labels.shape == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "dark"}, "modality is 'dark'; expected 'phase' or 'brightfield'"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"rng": np.random.default_rng(0)}, "either seed or rng"),
        ({"size": (8, 640)}, "size is .*expected 16 to 8192"),
        ({"um_per_px": float("nan")}, "um_per_px is nan; expected 0.1 to 4"),
        ({"dead_fraction": 1.1}, "dead_fraction is 1.1; expected 0 to 1"),
        ({"n_cells": -1}, r"cells are \(-1, 0, 0\); expected 0 to 20000 in all"),
        ({"numbers": (20000, 0, 1)}, r"cells are \(20000, 0, 1\); expected 0 to 20000 in all"),
        ({"n_cells": 900, "size": (100, 100)}, "no room for another live cell.*ask for fewer cells"),
    ],
)
def test_what_cannot_be_rendered_is_refused(changes, message):
    wanted = {"modality": "phase", "seed": 1, "n_cells": 10, **changes}
    with pytest.raises(ValueError, match=message):
        render_field(**wanted)
