"""What several device tests need: readings and plates without an image, and what a station left."""

from datetime import UTC, datetime, timedelta

import cv2
import pytest

from device.analysis.grading import EXTRACT
from device.analysis.phantom import render_plate
from device.analysis.plate_state import add, finish, start
from device.calibration import Calibration, Calibrations
from device.messages import payload
from device.messages.recompute import with_decision
from device.model_card.strict import write_record
from device.records import Frame, ModelId, Outcome, PlateWell, Quality, Reading, Reason, Scale, Tally

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
MODEL = ModelId("phase-cell", "0" * 64, trusted=True)
WELL = PlateWell("A1", "silver", "test", 10.0, "ug/mL", 1, dead_fraction=0.5, fields=3)


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch):
    """Let hundreds of journals not hold 8 MB each."""
    monkeypatch.setattr("device.journal.file.BALLAST_BYTES", 4096)


@pytest.fixture(scope="session")
def make_frame():
    """A function of an image that gives a frame of known scale."""

    def make(image, um_per_px=0.65, **other):
        return Frame(image, START, "test", 0, Scale(um_per_px, "measured"), **other)

    return make


@pytest.fixture(scope="session")
def make_reading():
    """A function of live, rounded and lysed cells that gives the reading of an accepted field."""

    def make(
        live=0,
        rounded=0,
        lysed=0,
        *,
        field=0,
        refused_by=(),
        source="measured",
        area_mm2=0.13,
        odd=False,
        **other,
    ):
        quality = Quality(
            passed=not refused_by,
            refused_by=tuple(refused_by),
            flags=(Reason.SCALE_ASSUMED,) * (source == "assumed") + (Reason.OOD_CELLS,) * odd,
            focus_laplacian=0.07,
            focus_tenengrad=6.0,
            focus_slope=-2.9,
            clipped_high=0.0,
            clipped_low=0.0,
            level=0.4,
            flatness=0.1,
            um_per_px=None if source is None else 0.65,
            um_per_px_source=source,
        )
        confluence = other.pop("confluence", min(1.0, 0.008 * live))
        values = {
            "source": f"{other.get('well')}/{field}.png",
            "sequence": field,
            "taken_at": START + timedelta(seconds=field),
            "well": None,
            "field": field,
            "simulated": False,
            "outcome": Outcome.INVALID if refused_by else Outcome.INCONCLUSIVE,
            "reasons": tuple(refused_by),
            "n_live": live,
            "n_dead": rounded + lysed,
            "n_other": 0,
            "affected": (rounded + lysed) / (live + rounded + lysed) if live + rounded + lysed else None,
            "p_toxic": None,
            "tally": Tally(live, rounded, lysed, None if source == "assumed" else area_mm2, confluence),
            "quality": quality,
            "cells": (),
            "height_px": 480,
            "width_px": 640,
            "assay": "adherent",
            "modality": "phase",
            "method": "hybrid",
            "cell_model": MODEL,
            "field_model": None,
        }
        return Reading(**values | other)

    return make


@pytest.fixture(scope="session")
def judged_plate(make_reading):
    """A function that gives payloads of a judged plate: its report, its verdicts and its readings.

    One item at doses 1, 10 and 100 of three wells each, two controls, ten fields a well, one field blurred;
    `shares` changes the share of dead cells of wells.
    """

    def judge(shares=None, *, sample="silver", operator="J. Doe", controls=True, name="p7"):
        truth = {"A1": 0.03, "A2": 0.9, **{f"B{i}": 0.05 for i in (1, 2, 3)}}
        truth |= {f"C{i}": 0.3 for i in (1, 2, 3)} | {f"D{i}": 0.8 for i in (1, 2, 3)} | (shares or {})
        doses = {"B": 1.0, "C": 10.0, "D": 100.0}
        wells = [PlateWell("A1", "medium", "blank", None, None, 1, fields=10)] * controls
        wells += [PlateWell("A2", "ZDEC", "positive", None, None, 1, fields=10)] * controls
        wells += [
            PlateWell(f"{row}{i}", sample, "test", dose, "ug/mL", i, fields=10)
            for row, dose in doses.items()
            for i in (1, 2, 3)
        ]
        state = start(wells, EXTRACT, plate=name, assay="adherent", modality="phase", operator=operator)
        readings = []
        for number, (well, field) in enumerate((w.well, i) for w in wells for i in range(10)):
            dead = round(60 * truth[well]) + field % 3
            refused = (Reason.BLUR,) if (well, field) == ("B1", 4) else ()
            place = {"well": well, "field": field, "plate": name, "sequence": number}
            readings.append(make_reading(62 - dead, dead, refused_by=refused, **place))
            state, _ = add(state, readings[-1])
        verdicts, report = finish(state)
        report = with_decision(verdicts, report)
        return payload(report), [payload(v) for v in verdicts], [payload(r) for r in readings]

    return judge


@pytest.fixture(scope="session")
def images():
    """Three fields of a rendered well, quick to read."""
    return [
        phantom.image[:480, :640].copy() for _, _, phantom in render_plate([WELL], seed=4, modality="phase")
    ]


@pytest.fixture
def station(tmp_path, images, keep_frames):
    """A folder with what a calibrated station left that kept its frames: station.toml, journal, frames."""
    known = [
        Calibration(f"{kind}-1", kind, "2026-01-01T00:00:00.000Z", "Ada", "by hand", value, 0.001, ())
        for kind, value in (("pixel_size", 0.65), ("flat_field", 0.1))
    ]
    write_record(tmp_path / "journal.calibration.json", Calibrations("calibration/1", tuple(known)))
    for number, image in enumerate([*images, images[-1]]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "4.png").write_bytes(b"no image")
    keep_frames(tmp_path, ["[0-4].png,A1,silver,test"])
    return tmp_path
