"""Plates of rendered images, judged by the path itself: what must be invalid is, and doses fall right."""

from dataclasses import replace

import cv2
import pytest

from device.analysis.assess import assess
from device.analysis.grading import EXTRACT
from device.analysis.phantom import render_plate
from device.analysis.plate_state import add, finish, start
from device.classifier import open_cell_classifier
from device.model_card import settings_from_card
from device.models import find_bundle
from device.records import Outcome, PlateWell, Reason

FIELDS = 6
SHARES = {"healthy": 0.03, "dead": 0.95, "mild": 0.25}
WELLS = (
    PlateWell("A1", "medium", "blank", None, None, 1),
    PlateWell("A2", "HDPE", "negative", None, None, 1),
    PlateWell("A3", "ZDEC", "positive", None, None, 1),
    PlateWell("B1", "extract", "test", 25.0, "%", 1),
    PlateWell("B2", "extract", "test", 100.0, "%", 1),
)
SHOWN = {"A1": "healthy", "A2": "healthy", "A3": "dead", "B1": "mild", "B2": "dead"}


@pytest.fixture(scope="module")
def analyze():
    """A function of an image of a well that gives its reading, by the shipped model."""
    bundle = find_bundle("phase-cell")
    classify, settings = open_cell_classifier(bundle), settings_from_card(bundle.card)
    return lambda frame: assess(frame, classify, settings)


@pytest.fixture(scope="module")
def readings(analyze, make_frame):
    """Readings of one well of each kind, and of the same wells blurred and without a scale."""
    wells = [
        PlateWell(kind, kind, "test", None, None, 1, dead_fraction=share) for kind, share in SHARES.items()
    ]
    seen = {}
    for well, number, phantom in render_plate(wells, fields=FIELDS, seed=4, modality="phase"):
        frame = make_frame(phantom.image, field=number)
        blurred = cv2.GaussianBlur(phantom.image, (0, 0), 9)
        for name, shown in (
            (well.well, frame),
            (f"{well.well}, blurred", replace(frame, image=blurred)),
            (f"{well.well}, no scale", replace(frame, scale=None)),
        ):
            seen.setdefault(name, []).append(analyze(replace(shown, sequence=number)))
    return seen


def judge(readings, shown):
    state = start(WELLS, EXTRACT, plate="p", assay="adherent", modality="phase")
    for well, kind in (SHOWN | shown).items():
        for reading in readings[kind]:
            state, _ = add(state, replace(reading, well=well))
    return finish(state)


def test_a_plate_of_images_is_judged_as_it_was_rendered(readings):
    verdicts, report = judge(readings, {})
    assert report.controls_valid
    outcomes = {verdict.well: verdict.outcome for verdict in verdicts}
    assert outcomes["A3"] is outcomes["B2"] is Outcome.TOXIC
    assert outcomes["A1"] is outcomes["A2"] is outcomes["B1"] is Outcome.NON_TOXIC


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ({"A2": "dead"}, Reason.NEG_CONTROL_FAILED),
        ({"A1": "dead"}, Reason.NEG_CONTROL_FAILED),
        ({"A3": "healthy"}, Reason.POS_CONTROL_FAILED),
        ({"A3": "dead, blurred"}, Reason.POS_CONTROL_FAILED),
        ({"A1": "healthy, blurred", "A2": "healthy, blurred"}, Reason.NEG_CONTROL_FAILED),
        ({well: f"{kind}, blurred" for well, kind in SHOWN.items()}, Reason.BLUR),
        ({well: f"{kind}, no scale" for well, kind in SHOWN.items()}, Reason.NO_CALIBRATION),
    ],
    ids=lambda value: ", ".join(value.values())[:40] if isinstance(value, dict) else "",
)
def test_failed_controls_blur_and_a_missing_scale_are_invalid(readings, shown, reason):
    verdicts, report = judge(readings, shown)
    assert {verdict.outcome for verdict in verdicts} == {Outcome.INVALID}
    assert {sample.outcome for sample in report.samples} == {Outcome.INVALID}
    assert not report.controls_valid
    # a well without any field says what ails its own images first
    assert all(reason in (*verdict.reasons, *report.reasons) for verdict in verdicts)
    assert any(reason in verdict.reasons for verdict in verdicts)


@pytest.mark.parametrize("kind", ["blurred", "no scale"])
def test_a_well_that_cannot_be_read_is_invalid_beside_valid_ones(readings, kind):
    verdicts, report = judge(readings, {"B1": f"mild, {kind}"})
    outcomes = {verdict.well: verdict.outcome for verdict in verdicts}
    assert report.controls_valid
    assert outcomes["B1"] is Outcome.INVALID
    assert outcomes["B2"] is Outcome.TOXIC
