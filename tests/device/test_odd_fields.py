"""Fields that hold nothing, only one thing, or the wrong thing, read by the shipped models as a lab would."""

import json

import cv2
import numpy as np
import pytest

from device.analysis.assess import assess
from device.analysis.phantom import Culture, render_field
from device.classifier import open_cell_classifier
from device.cli import main
from device.model_card import settings_from_card
from device.models import find_bundle
from device.records import CellClass, Outcome, Reason

COLS = np.arange(640)


@pytest.fixture(scope="module", params=["phase-cell", "chamber-cell"])
def read(request, make_frame):
    """A function of an image that gives its reading by a shipped model."""
    bundle = find_bundle(request.param)
    classify, settings = open_cell_classifier(bundle), settings_from_card(bundle.card)
    return lambda image: assess(make_frame(image), classify, settings)


@pytest.fixture(scope="module")
def read_phase(make_frame):
    bundle = find_bundle("phase-cell")
    classify, settings = open_cell_classifier(bundle), settings_from_card(bundle.card)
    return lambda image: assess(make_frame(image), classify, settings)


def drawn(*, grid=False, seed=0):
    """An empty dish with the noise of a camera, and the ruling of a counting chamber on request."""
    image = np.full((480, 640), 100.0)
    for line in range(40, 640, 160) if grid else ():
        image[:, line : line + 4] = image[line : line + 4] = 55
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.8) + noise, 0, 255).astype(np.uint8)


def phantom(**options):
    return render_field(**({"modality": "phase", "seed": 5, "n_cells": 60} | options))


def assert_is_no_culture(reading):
    """Nothing to speak of was counted, and the field says that it does not count."""
    assert reading.n_live + reading.n_dead <= 2
    assert reading.outcome is Outcome.INVALID or Reason.TOO_FEW_CELLS in reading.quality.flags


def test_an_empty_dish_has_no_cells(read):
    reading = read(drawn())
    assert_is_no_culture(reading)
    assert reading.quality.passed
    assert reading.affected is None


@pytest.mark.parametrize(
    ("name", "sigma"), [("phase-cell", 9.0), ("brightfield-cell", 4.5), ("chamber-cell", 9.0)]
)
def test_as_much_noise_as_the_gate_lets_pass_is_no_culture(make_frame, name, sigma):
    bundle = find_bundle(name)
    noise = np.random.default_rng(3).normal(100, sigma, (480, 640))
    frame = make_frame(np.clip(noise, 0, 255).astype(np.uint8))
    reading = assess(frame, open_cell_classifier(bundle), settings_from_card(bundle.card))
    assert reading.quality.passed
    assert Reason.TOO_FEW_CELLS in reading.quality.flags


def test_a_ruled_chamber_without_cells_has_none(read):
    assert_is_no_culture(read(drawn(grid=True)))


def test_debris_alone_is_no_culture(read_phase):
    for seed in range(3):
        assert_is_no_culture(read_phase(phantom(seed=seed, n_cells=0).image))


def test_bubbles_alone_are_no_cells(read_phase):
    for radius in (40.0, 80.0, 120.0):
        culture = Culture(bubbles=3, bubble_radius_um=radius)
        reading = read_phase(phantom(n_cells=0, culture=culture).image)
        assert_is_no_culture(reading)
        assert (Reason.FOREIGN_MATTER in reading.quality.refused_by) is (reading.quality.foreign > 0.1)
    assert Reason.FOREIGN_MATTER in reading.quality.refused_by


def test_a_dead_culture_is_all_dead(read_phase):
    field = phantom(dead_fraction=1.0)
    reading = read_phase(field.image)
    true = sum(thing.region > 0 and thing.visible_fraction > 0.5 for thing in field.objects)
    assert reading.quality.passed
    assert reading.affected > 0.95
    assert abs(reading.n_dead - true) <= 0.1 * true


def test_one_cell_is_counted_and_flagged_as_too_few(read_phase):
    reading = read_phase(phantom(n_cells=1, dead_fraction=1.0).image)
    assert (reading.n_live, reading.n_dead) == (0, 1)
    assert Reason.TOO_FEW_CELLS in reading.quality.flags
    assert reading.quality.passed


def test_cells_on_the_border_alone_are_counted_at_two_sides_only(read_phase):
    """Whatever touches the lower or right edge stays out of the fractions; the unbiased frame."""
    whole = phantom(dead_fraction=1.0, n_cells=120)
    cells = [thing for thing in whole.objects if thing.cell_class is CellClass.ROUNDED]
    cut = next(thing for thing in cells if 150 < thing.row < 330 and 200 < thing.col < 440)
    hidden = round(0.6 * cut.radius_um / 0.65)
    for rows, counted in (
        (slice(round(cut.row) - hidden, None), True),
        (slice(round(cut.row) + hidden), False),
    ):
        reading = read_phase(np.ascontiguousarray(whole.image[rows]))
        edge = 0 if counted else reading.height_px - 1
        near = [cell for cell in reading.cells if max(abs(cell.row - edge), abs(cell.col - cut.col)) < 14]
        assert near
        assert all(cell.touches_edge for cell in near)
        assert all(cell.counted is counted for cell in near)


def test_a_saturated_field_is_refused(read):
    for gain in (4, 100):
        bright = np.clip(phantom(dead_fraction=0.5).image * float(gain), 0, 255).astype(np.uint8)
        reading = read(bright)
        assert reading.outcome is Outcome.INVALID
        assert Reason.OVEREXPOSED in reading.quality.refused_by


def test_sixteen_bits_and_color_are_counted_as_the_gray_bytes_they_stand_for(tmp_path, capsys):
    gray = phantom(dead_fraction=0.4).image
    color = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    images = {"gray": gray, "deep": gray.astype(np.uint16) << 8, "color": color}
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    scale = ["--um-per-px", "0.65", "--model", "phase-cell", "--json"]
    assert main(["count", str(tmp_path), *scale]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counts = {(line["n_live"], line["n_dead"], line["n_other"]) for line in lines}
    assert len(lines) == 3
    assert len(counts) == 1
    assert min(next(iter(counts))[:2]) > 10


def test_a_tinted_field_is_counted_and_a_strong_gradient_is_refused(tmp_path, capsys):
    gray = phantom(dead_fraction=0.4).image
    tinted = np.stack([gray * 0.9, gray * 1.0, gray * 0.8], axis=-1).astype(np.uint8)
    sloped = np.clip(gray * (0.4 + COLS / 640), 0, 255).astype(np.uint8)
    for name, image in {"a": tinted, "b": sloped}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    assert main(["count", str(tmp_path), "--um-per-px", "0.65", "--model", "phase-cell", "--json"]) == 3
    tinted_line, sloped_line = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert tinted_line["quality"]["passed"]
    assert sloped_line["quality"]["refused_by"] == ["UNEVEN_LIGHT"]
