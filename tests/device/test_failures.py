"""An exception at every place of the path in turn: whatever breaks, nothing is said to be non_toxic."""

import inspect
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

import device
from device.analysis.phantom import render_field
from device.analysis.plate_state import add, finish, start
from device.messages import Identity, seal_record
from device.messages.recompute import with_decision
from device.records import Outcome, PlateWell, Reason
from device.station import Station, load_config

ROOT = str(Path(device.__file__).parent)
WELL = PlateWell("B1", "gelatin", "test", 10.0, "ug/mL", 1)
N = 5
"""As many fields as a well must have: one that is lost is one too few."""
CONFIG = (Path(__file__).parent / "data" / "bench.toml").read_text() + '[rule]\nid = "viability-70/1"\n'


class InjectedError(RuntimeError):
    """What nobody expects."""


def places(call):
    """Return every place below `call` where a function of the house is entered or calls something else."""
    seen = {}

    def watch(frame, event, _arg):
        code = frame.f_code
        # a generator is also entered when it is thrown away, and Python swallows what is raised there
        is_entered = event == "call" and not code.co_flags & inspect.CO_GENERATOR
        if code.co_filename.startswith(ROOT) and (is_entered or event == "c_call"):
            seen.setdefault((code, frame.f_lineno, event))

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(seen)


def break_at(place, call, error):
    """Run `call` with `error` raised at the first visit of `place`, and say whether that was reached."""
    fired = False

    def watch(frame, event, _arg):
        nonlocal fired
        if not fired and (frame.f_code, frame.f_lineno, event) == place:
            fired = True
            raise error

    sys.setprofile(watch)
    try:
        return call(), fired
    finally:
        sys.setprofile(None)


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    """A station over five healthy fields that is opened and not run."""
    folder = tmp_path_factory.mktemp("station")
    (folder / "images").mkdir()
    for i in range(N):
        phantom = render_field(modality="phase", dead_fraction=0.05, n_cells=60, seed=i, size=(480, 640))
        cv2.imwrite(str(folder / "images" / f"{i}.png"), phantom.image)
    (folder / "station.toml").write_text(CONFIG, encoding="utf-8")
    station = Station(load_config(folder / "station.toml"), version="test")
    yield station
    station.run(threading.Event())


@pytest.fixture(scope="module")
def frames(station):
    return [replace(frame, well="B1", field=i) for i, frame in enumerate(station._capture._camera.frames())]


def plate(station, readings):
    state = start([WELL], station._analysis._tools.rule, plate="p", assay="adherent", modality="phase")
    for reading in readings:
        state, _ = add(state, reading)
    return state


def test_an_analysis_that_breaks_anywhere_costs_the_field_and_the_verdict(station, frames):
    readings = [station._analysis.read(frame) for frame in frames]
    assert finish(plate(station, readings))[0][0].outcome is Outcome.NON_TOXIC
    found = places(lambda: station._analysis.read(frames[-1]))
    assert len(found) > 200
    n_outside = 0
    for place in found:
        try:
            reading, fired = break_at(place, lambda: station._analysis.read(frames[-1]), InjectedError())
        except InjectedError:
            n_outside += 1  # outside of the net: the station ends and states nothing
            continue
        where = f"{place[0].co_filename}:{place[1]}"
        assert fired, where
        assert reading.outcome is Outcome.INVALID, where
        assert reading.reasons == (Reason.ANALYSIS_FAILED,), where
        verdict = finish(plate(station, [*readings[:-1], reading]))[0][0]
        assert (verdict.outcome, verdict.n_fields) == (Outcome.INCONCLUSIVE, N - 1), where
    assert n_outside < len(found) / 10


@pytest.mark.parametrize("error", [InjectedError, ValueError, ZeroDivisionError])
def test_a_judgment_that_breaks_anywhere_states_nothing(station, frames, error):
    readings = [station._analysis.read(frame) for frame in frames]
    identity = Identity(
        "plate/1", "lab", "b", "0" * 32, 1, "0" * 32, readings[0].taken_at, "synced", "0" * 64
    )

    def judge():
        verdicts, report = finish(plate(station, readings))
        seal_record(verdicts[0], replace(identity, schema="verdict/1"))
        seal_record(with_decision(verdicts, report), identity)
        return verdicts

    assert judge()[0].outcome is Outcome.NON_TOXIC
    found = places(judge)
    assert len(found) > 200
    for place in found:
        with pytest.raises(error):
            break_at(place, judge, error())
