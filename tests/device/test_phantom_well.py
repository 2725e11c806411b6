from dataclasses import fields as fields_of
from itertools import islice

import numpy as np
import pytest

from device.analysis.phantom import (
    Culture,
    Optics,
    default_optics,
    render_plate,
    render_well,
    training_ranges,
    vary,
    vary_culture,
)
from device.analysis.phantom.render import _field_numbers
from device.cameras import Setup, open_camera
from device.cameras.phantom import PhantomCamera, Settings
from device.errors import CameraError, ConfigError
from device.records import PlateWell, Scale

SMALL = {"size": (64, 80), "modality": "phase", "n_cells": 6}


def well(name, dead_fraction=0.2, fields=2):
    return PlateWell(name, "item", "test", None, None, 1, dead_fraction=dead_fraction, fields=fields)


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_varied_microscopes_and_dishes_stay_in_the_training_ranges(modality):
    rng = np.random.default_rng(1)
    ranges = training_ranges(modality)
    for _ in range(50):
        drawn = [(item.name, getattr(vary(rng, modality), item.name)) for item in fields_of(Optics)]
        drawn += [(item.name, getattr(vary_culture(rng), item.name)) for item in fields_of(Culture)]
        for name, value in drawn:
            if name in ranges:
                low, high = ranges[name]
                assert low <= value <= high, name


@pytest.mark.parametrize("modality", ["phase", "brightfield"])
def test_defaults_lie_in_the_training_ranges(modality):
    ranges = training_ranges(modality)
    for record in (default_optics(modality), Culture()):
        for item in fields_of(record):
            if item.name in ranges:
                assert ranges[item.name][0] <= getattr(record, item.name) <= ranges[item.name][1], item.name


@pytest.mark.parametrize(
    ("record", "changes"),
    [(Optics, {"gamma": 0.0}), (Optics, {"defocus_um": float("nan")}), (Culture, {"cluster": 1.5})],
)
def test_a_setting_outside_of_its_range_is_refused(record, changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is .*; expected "):
        record(**changes)


def test_field_fractions_scatter_as_the_interval_assumes():
    rng = np.random.default_rng(3)
    drawn = np.array([_field_numbers(0.4, 0.08, 60, 0.0, rng) for _ in range(4000)])
    share = drawn[:, 0] / 60
    assert share.mean() == pytest.approx(0.4, abs=0.01)
    expected = 0.4 * 0.6 / 60 * (1 + 59 * 0.08)  # binomial variance times the design effect
    assert share.var() == pytest.approx(expected, rel=0.1)


def test_numbers_of_cells_scatter_between_fields():
    rng = np.random.default_rng(4)
    numbers = np.array([_field_numbers(0.4, 0.0, 60, 0.35, rng)[1] for _ in range(4000)])
    assert numbers.mean() == pytest.approx(60, rel=0.03)
    assert numbers.std() / numbers.mean() == pytest.approx(0.35, rel=0.1)


def test_a_field_of_a_well_does_not_depend_on_how_many_follow():
    few, many = (list(render_well(0.3, fields=n, seed=5, **SMALL)) for n in (2, 3))
    assert [f.image.tobytes() for f in few] == [f.image.tobytes() for f in many[:2]]
    assert len({f.image.tobytes() for f in many}) == 3


def test_a_well_all_dead_or_all_live_has_no_others():
    assert sum(f.n_live for f in render_well(1.0, fields=3, seed=5, **SMALL)) == 0
    assert sum(f.n_dead for f in render_well(0.0, fields=3, seed=5, **SMALL)) == 0


def test_a_well_without_a_number_of_fields_never_ends():
    assert len(list(islice(render_well(0.3, fields=None, seed=5, varied=True, **SMALL), 4))) == 4


def test_wells_of_a_plate_come_in_order_and_do_not_depend_on_each_other():
    plate = [well("A01"), well("A02"), well("B01", 0.9, None)]
    all_fields = list(render_plate(plate, seed=1, fields=1, **SMALL))
    assert [(w.well, field) for w, field, _ in all_fields] == [
        ("A01", 0),
        ("A01", 1),
        ("A02", 0),
        ("A02", 1),
        ("B01", 0),
    ]
    alone = list(render_plate([well("A02")], seed=1, **SMALL))
    assert alone[0][2].image.tobytes() == all_fields[2][2].image.tobytes()
    assert alone[0][2].image.tobytes() != all_fields[0][2].image.tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dead_fraction": -0.1}, "dead_fraction is -0.1; expected 0 to 1"),
        ({"rho": 1.0}, "rho is 1.0; expected 0 to less than 1"),
        ({"n_cells": -3}, "n_cells is -3; expected 0 or more"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_well_that_cannot_be_is_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        render_well(**{"dead_fraction": 0.3, "seed": 1, **SMALL, **changes})


# The camera kind `phantom`.

CAMERA = Settings(seed=2, fields=2, n_cells=6, height_px=64, width_px=80)


def test_the_camera_shows_the_plate_in_order_and_says_that_it_is_simulated():
    setup = Setup(Scale(0.5, "measured"), wells=(well("A01", fields=1), well("A02", fields=None)))
    frames = list(open_camera("phantom", CAMERA, setup).frames())
    assert [(f.sequence, f.well, f.field) for f in frames] == [(0, "A01", 0), (1, "A02", 0), (2, "A02", 1)]
    assert all(f.simulated and f.scale == setup.scale and f.image.shape == (64, 80) for f in frames)
    assert all(f.taken_at.utcoffset() is not None and not f.image.flags.writeable for f in frames)


def test_without_a_plate_the_camera_streams_fields_without_a_well():
    camera = open_camera("phantom", CAMERA, Setup(None, modality="brightfield"))
    assert not camera.live
    frames = list(camera.frames())
    assert [(f.well, f.field) for f in frames] == [(None, None)] * 2
    assert frames[0].scale == Scale(0.65, "measured"), "the renderer knows its scale"


def test_the_camera_gives_the_same_frames_for_the_same_seed():
    first, again = (open_camera("phantom", CAMERA, Setup(None)) for _ in range(2))
    assert [f.image.tobytes() for f in first.frames()] == [f.image.tobytes() for f in again.frames()]


def test_an_endless_stream_ends_when_the_camera_is_closed():
    camera = open_camera("phantom", Settings(fields=0, n_cells=6, height_px=64, width_px=80), Setup(None))
    frames = camera.frames()
    assert next(frames).sequence == 0
    assert next(frames).sequence == 1
    camera.close()
    camera.close()
    assert list(frames) == []


def test_the_camera_pauses_after_each_field():
    pauses = []
    settings = Settings(fields=3, n_cells=6, height_px=64, width_px=80, period_s=1.5)
    assert len(list(PhantomCamera(settings, Setup(None), wait=pauses.append).frames())) == 3
    assert pauses == [1.5, 1.5, 1.5]


def test_a_plate_without_dead_fractions_is_refused_before_the_first_field():
    setup = Setup(None, wells=(well("A01"), well("B02", None)))
    with pytest.raises(ConfigError, match="well B02 has no dead_fraction; expected 0 to 1"):
        open_camera("phantom", CAMERA, setup)


def test_the_camera_refuses_an_assay_that_it_cannot_draw():
    with pytest.raises(CameraError, match="the assay 'suspension'; expected 'adherent'"):
        open_camera("phantom", CAMERA, Setup(None, assay="suspension"))


def test_cells_that_do_not_fit_are_a_camera_error():
    camera = open_camera("phantom", Settings(n_cells=1000, height_px=64, width_px=64), Setup(None))
    with pytest.raises(CameraError, match=r"no room .*lower camera\.n_cells"):
        list(camera.frames())
