from dataclasses import replace
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from device.analysis.assess import AnalysisSettings, assess
from device.analysis.overlay import draw_overlay, overlay_jpeg, stage_picture
from device.records import Cell, CellClass, Frame, Outcome, Reason, Scale, Tally


def cell(region, row, col, kind):
    label = "live" if kind is CellClass.LIVE else "dead"
    return Cell(region, row, col, label, kind, 0.5, 100.0, touches_edge=False, counted=True)


@pytest.fixture
def image():
    return np.full((300, 400), 100, np.uint8)


@pytest.fixture
def reading(image):
    frame = Frame(image, datetime(2026, 1, 1, tzinfo=UTC), "x", 0, Scale(0.65, "measured"))
    empty = assess(frame, None, AnalysisSettings("adherent", "phase", "paper"))
    kinds = (CellClass.LIVE, CellClass.ROUNDED, CellClass.LYSED)
    places = ((150, 150), (150, 250), (250, 150))
    labels = np.zeros(image.shape, np.uint16)
    for number, (row, col) in enumerate((*places, (250, 250)), start=1):
        cv2.circle(labels, (col, row), 20, number, cv2.FILLED)
    cells = tuple(
        cell(number, *place, kind) for number, (place, kind) in enumerate(zip(places, kinds, strict=True), 1)
    )
    quality = replace(empty.quality, passed=True, refused_by=())
    return replace(
        empty,
        cells=cells,
        labels=labels,
        n_live=1,
        n_dead=2,
        n_other=1,
        quality=quality,
        outcome=Outcome.INCONCLUSIVE,
        tally=Tally(1, 1, 1, 0.08, 0.1),
    )


def colors_in(picture):
    return {tuple(color) for color in picture.reshape(-1, 3).tolist()}


def test_each_class_has_its_outline_in_its_color(image, reading):
    picture = draw_overlay(image, reading)
    outlines = [
        tuple(picture[row, col + 20]) for row, col in ((150, 150), (150, 250), (250, 150), (250, 250))
    ]
    assert len(set(outlines)) == 4
    assert (100, 100, 100) not in outlines
    assert picture[150, 190].tolist() == [100, 100, 100]


def test_each_class_has_its_own_shape_besides_its_color(image, reading):
    picture = cv2.cvtColor(draw_overlay(image, reading), cv2.COLOR_BGR2GRAY)
    marks = [
        picture[row - 12 : row + 13, col - 12 : col + 13] != 100
        for row, col in ((150, 150), (150, 250), (250, 150))
    ]
    assert not np.array_equal(marks[0], marks[1])
    assert not np.array_equal(marks[1], marks[2])
    assert not np.array_equal(marks[0], marks[2])


def test_a_scale_bar_of_the_right_length_stands_only_where_the_scale_is_known(image, reading):
    corner = draw_overlay(image, reading)[-40:, 200:]
    white = (corner == 255).all(axis=2).sum(axis=1).max()
    assert white == pytest.approx(50 / 0.65, abs=8)
    assumed = replace(reading, quality=replace(reading.quality, um_per_px_source="assumed"))
    assert (draw_overlay(image, assumed)[-40:, 280:] == 100).all()


def test_a_refused_field_says_so(image, reading):
    quality = replace(reading.quality, passed=False, refused_by=(Reason.BLUR,))
    refused = replace(reading, outcome=Outcome.INVALID, quality=quality)
    assert not np.array_equal(draw_overlay(image, refused)[:90], draw_overlay(image, reading)[:90])


def test_an_image_of_another_size_is_refused(image, reading):
    with pytest.raises(ValueError, match="the reading's frame"):
        draw_overlay(image[:-1], reading)


def test_a_one_pixel_frame_has_an_overlay(reading):
    tiny = replace(reading, cells=(), n_other=0, labels=np.zeros((0, 0), np.uint16), height_px=1, width_px=1)
    assert draw_overlay(np.zeros((1, 1), np.uint8), tiny).shape == (1, 1, 3)


def test_the_image_is_not_drawn_upon(image, reading):
    draw_overlay(image, reading)
    assert (image == 100).all()


@pytest.mark.parametrize("shrink", [1, 4])
def test_a_picture_for_a_report_is_small_whatever_the_field_is(reading, shrink):
    noise = np.random.default_rng(1).integers(0, 256, (1200 // shrink, 1600 // shrink)).astype(np.uint8)
    large = replace(reading, height_px=1200, width_px=1600, zoom=4.0)
    encoded = overlay_jpeg(noise, large)
    assert len(encoded) <= 60_000
    assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)


def test_a_small_field_is_not_enlarged_for_a_report(image, reading):
    encoded = np.frombuffer(overlay_jpeg(image, reading), np.uint8)
    assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (300, 400, 3)


def test_stages_become_pictures():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert stage_picture(gray) is gray or np.array_equal(stage_picture(gray), gray)
    assert stage_picture(gray > 5).max() == 255
    assert stage_picture(np.float32([[-2, 0, 2]])).tolist() == [[0, 128, 255]]
    labels = stage_picture(np.array([[0, 1, 2, 300]], np.uint16))
    assert labels.shape == (1, 4, 3)
    assert len(colors_in(labels)) == 4
