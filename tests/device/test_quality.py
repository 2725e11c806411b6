import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.analysis.phantom import Culture, render_field
from device.analysis.pyramid import build_pyramid
from device.analysis.quality import FocusReference, QualityLimits, limits_for, measure_quality, reference_from
from device.records import Reason, Scale

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SCALE = Scale(0.65, "measured")


def measure(image, limits=None, scale=SCALE):
    return measure_quality(build_pyramid(image, 0.65), scale, limits or QualityLimits())


def field(modality="phase", seed=0, dead_fraction=0.4):
    return render_field(
        modality=modality, seed=seed, size=(240, 320), n_cells=40, dead_fraction=dead_fraction
    ).image


@pytest.fixture(scope="module")
def references():
    return {
        modality: reference_from(measure(field(modality, seed, seed / 8)) for seed in range(6))
        for modality in ("phase", "brightfield")
    }


def limits_of(reference):
    return QualityLimits(focus=reference)


def blur(image, sigma):
    return cv2.GaussianBlur(image, (0, 0), sigma)


def brighten(image, factor):
    return np.clip(image.astype(float) * factor, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_a_sharp_field_passes_and_the_same_field_blurred_does_not(references, modality):
    image, limits = field(modality, 20), limits_of(references[modality])
    assert measure(image, limits).passed
    assert measure(blur(image, 5), limits).refused_by == (Reason.BLUR,)


def test_without_a_reference_focus_is_measured_but_refuses_nothing():
    quality = measure(blur(field(), 5))
    assert quality.passed
    assert quality.focus_slope < measure(field()).focus_slope - 1


def test_two_of_three_focus_measures_must_fail():
    quality = measure(field())
    low, high = quality.focus_laplacian * 0.9, quality.focus_laplacian * 10
    tenengrad, slope = quality.focus_tenengrad * 0.9, quality.focus_slope

    def refused(laplacian, tenengrad, slope):
        return measure(field(), limits_of(FocusReference(laplacian, tenengrad, slope, 0.1))).refused_by

    assert refused(low, tenengrad, slope) == ()
    assert refused(high, tenengrad, slope) == ()
    assert refused(low, tenengrad, slope + 1) == ()
    assert refused(high, tenengrad * 10, slope) == (Reason.BLUR,)
    assert refused(high, tenengrad, slope + 1) == (Reason.BLUR,)


def test_focus_does_not_depend_on_the_brightness_of_the_lamp():
    bright, dim = measure(field()), measure(brighten(field(), 0.7))
    assert dim.focus_tenengrad == pytest.approx(bright.focus_tenengrad, rel=0.05)
    assert dim.focus_slope == pytest.approx(bright.focus_slope, abs=0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: np.full_like(image, 90), Reason.FLAT_IMAGE),
        (lambda image: np.zeros_like(image), Reason.UNDEREXPOSED),
        (lambda image: brighten(image, 0.01), Reason.UNDEREXPOSED),
        (lambda image: brighten(image, 0.2), Reason.EXPOSURE),
        (lambda image: np.full_like(image, 255), Reason.OVEREXPOSED),
        (lambda image: brighten(image, 4), Reason.OVEREXPOSED),
        (lambda image: brighten(image, np.linspace(0.3, 1.5, image.shape[1])), Reason.UNEVEN_LIGHT),
    ],
)
def test_bad_light_is_refused_with_its_reason(change, reason):
    assert reason in measure(change(field())).refused_by


def move(image, length):
    """Blur along a slanted line of 1.7 lengths, then add the noise that the sensor adds after it."""
    kernel = np.zeros((2 * length + 1,) * 2, np.float32)
    cv2.line(kernel, (length // 2, length // 3), (3 * length // 2, 5 * length // 3), 1, 1, cv2.LINE_AA)
    return make_noisy(cv2.filter2D(image, -1, kernel / kernel.sum()), 1.5)


def make_noisy(image, sigma):
    noise = np.random.default_rng(1).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def large_field(modality, seed, **culture):
    return render_field(
        modality=modality, seed=seed, n_cells=60, dead_fraction=seed % 5 / 4, culture=Culture(**culture)
    )


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
@pytest.mark.parametrize("length", [6, 10])
def test_a_field_that_moved_is_refused_and_one_that_stood_still_is_not(modality, length):
    for seed in range(4):
        image = large_field(modality, seed).image
        assert measure(image).passed
        assert Reason.MOTION in measure(move(image, length)).refused_by
        assert measure(move(image, length), limits_for("suspension", modality)).passed


def test_far_motion_is_told_by_less_where_a_focus_measure_fails(references):
    image = large_field("phase", 2).image
    reference = replace(references["phase"], focus_tenengrad=1e-9, focus_slope=-99.0)
    far, healthy = measure(move(image, 15)), measure(image)
    between = QualityLimits(anisotropy=far.anisotropy / 0.8)
    assert healthy.anisotropy < 0.6 * between.anisotropy < far.anisotropy < between.anisotropy
    assert measure(move(image, 15), between).passed
    assert measure(move(image, 15), replace(between, focus=reference)).refused_by == (Reason.MOTION,)
    assert measure(image, replace(between, focus=reference)).passed


def test_a_grid_line_is_no_motion_and_a_small_field_tells_none():
    image = large_field("phase", 1).image.copy()
    image[200:206], image[:, 300:304] = 30, 30
    assert measure(image).passed
    assert measure(field()).anisotropy is None


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_noise_is_measured_in_units_of_the_background_and_refused(modality):
    image = large_field(modality, 2).image
    before = measure(image)
    for sigma in (8.0, 30.0):
        quality = measure(make_noisy(image, sigma))
        added = sigma / (255 * before.level)
        assert quality.noise == pytest.approx(np.hypot(before.noise, added), rel=0.15)
        assert (Reason.NOISY in quality.refused_by) is (sigma > 20)


def test_limits_depend_on_assay_and_modality():
    image = make_noisy(np.full((480, 640), 100, np.uint8), 7)
    assert measure(image, limits_for("adherent", "phase")).passed
    assert measure(image, limits_for("adherent", "brightfield")).refused_by == (Reason.NOISY,)
    assert limits_for("suspension", "brightfield").anisotropy is None
    reference = FocusReference(1, 1, -2, 0.1)
    assert limits_for("adherent", "phase", reference).focus is reference


@pytest.mark.parametrize(("tint", "refused_by"), [(None, ()), (0.0, ()), (0.6, ()), (0.61, (Reason.TINT,))])
def test_a_strong_color_is_refused(tint, refused_by):
    pyramid = build_pyramid(field(), 0.65)
    quality = measure_quality(pyramid, SCALE, QualityLimits(), tint=tint)
    assert (quality.refused_by, quality.tint) == (refused_by, tint)
    assert measure_quality(pyramid, None, QualityLimits(), tint=tint).tint == tint


def test_an_empty_field_is_not_noisy_or_uneven():
    image = make_noisy(np.full((480, 640), 100, np.uint8), 3)
    assert measure(image).refused_by == ()


def test_noise_does_not_make_a_blurred_field_sharp(references):
    for modality in ("phase", "brightfield"):
        image = make_noisy(blur(field(modality, 20), 5), 3)
        assert measure(image, limits_of(references[modality])).refused_by == (Reason.BLUR,)


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_a_large_bubble_is_foreign_matter_and_cells_are_none(modality):
    for seed in range(3):
        assert measure(large_field(modality, seed).image).foreign < 0.02
    found = [large_field(modality, seed, bubbles=2, bubble_radius_um=110.0) for seed in range(6)]
    rows, cols = np.mgrid[:480, :640]
    for phantom in found:
        inside = [
            np.hypot(rows - b.row, cols - b.col) < b.radius_um / 0.65
            for b in phantom.objects
            if b.kind == "bubble"
        ]
        share, quality = np.any(inside, axis=0).mean(), measure(phantom.image)
        assert (Reason.FOREIGN_MATTER in quality.refused_by) is (quality.foreign > 0.1)
        assert quality.foreign > 0.1 or share < 0.18


def test_saturated_round_cells_are_no_glare_and_a_saturated_patch_is():
    image = render_field(modality="phase", seed=3, n_cells=90, dead_fraction=1.0).image
    bright = brighten(image, 1.6)
    quality = measure(bright)
    assert quality.clipped_high > 0.02
    assert quality.glare == 0
    assert quality.passed
    bright = bright.copy()
    bright[100:180, 200:280] = 255
    assert measure(bright).glare == pytest.approx(80 * 80 / image.size, rel=0.2)
    assert Reason.OVEREXPOSED in measure(bright).refused_by


@pytest.mark.parametrize("um_per_px", [1.31, 0.01, 0.0, -0.65, float("nan"), float("inf")])
def test_an_absurd_scale_is_refused(um_per_px):
    quality = measure(field(), scale=Scale(um_per_px, "measured"))
    assert quality.refused_by == (Reason.SCALE_OUT_OF_RANGE,)
    assert quality.focus_slope is None


def test_a_missing_scale_is_refused_and_an_assumed_one_is_flagged():
    quality = measure(field(), scale=None)
    assert quality.refused_by == (Reason.NO_CALIBRATION,)
    assert (quality.um_per_px, quality.um_per_px_source) == (None, None)
    assert measure(field(), scale=Scale(0.65, "assumed")).flags == (Reason.SCALE_ASSUMED,)
    assert measure(field()).flags == ()


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (20, 20), (31, 64)])
def test_any_shape_is_measured(shape):
    quality = measure(np.random.default_rng(1).integers(40, 200, shape).astype(np.uint8))
    assert quality.focus_slope is None


def test_the_shares_of_clipped_pixels_are_exact():
    image = np.full((100, 100), 100, np.uint8)
    image[:10, :10] = 254
    image[50, :50] = 1
    quality = measure(image)
    assert (quality.clipped_high, quality.clipped_low) == (0.01, 0.005)


def test_a_reference_needs_fields_with_focus_measures():
    with pytest.raises(ValueError, match="no field has focus measures"):
        reference_from([measure(field(), scale=None)])


def test_the_mad_of_like_fields_has_a_floor():
    assert reference_from([measure(field())] * 3).focus_slope_mad == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipped_high": 1.5}, "limits.clipped_high is 1.5; expected 0 to 1"),
        ({"flatness": 0}, "limits.flatness is 0; expected more than 0"),
        ({"level_low": 0.9}, "level_low is 0.9; expected less than"),
        ({"cells_min": -1}, "cells_min is -1; expected 0 or more"),
        ({"slope_mads": float("nan")}, "slope_mads is nan"),
    ],
)
def test_limits_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QualityLimits(**options)


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "ldc").exists(), reason="the shared image folder is not beside the checkout"
)
def test_most_real_chamber_tiles_pass_and_most_blurred_ones_do_not():
    with (SHARED / "ldc" / "manifest.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "train"][::9]
    images = [cv2.imread(str(SHARED / "ldc" / name), cv2.IMREAD_GRAYSCALE) for name in names]
    limits = limits_of(reference_from(measure(image) for image in images))
    assert np.mean([measure(image, limits).passed for image in images]) >= 0.93
    assert np.mean([Reason.BLUR in measure(blur(image, 4), limits).refused_by for image in images]) >= 0.93


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "usiigaci").exists(), reason="the shared image folder is not beside the checkout"
)
def test_most_real_spread_cells_pass_and_blurred_ones_do_not():
    paths = sorted((SHARED / "usiigaci" / "images").glob("*.png"))[::4]
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    limits = limits_of(reference_from(measure(image) for image in images))
    assert np.mean([measure(image, limits).passed for image in images]) >= 0.8
    assert not any(measure(blur(image, 3), limits).passed for image in images)
