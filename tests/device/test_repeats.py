"""A field counted twice would make an interval falsely narrow; another one must never be taken for it."""

import numpy as np
import pytest

from device.analysis.assess import AnalysisSettings, assess
from device.analysis.grading import EXTRACT
from device.analysis.phantom import render_field
from device.analysis.plate_state import add, start_live
from device.analysis.repeats import refuse_repeat
from device.records import Outcome, Reason

PAPER = AnalysisSettings("adherent", "phase", "paper")


@pytest.fixture(scope="module")
def dish():
    """A function of a seed that gives the pixels of a dish, larger than a field."""
    return lambda seed: render_field(modality="phase", seed=seed, size=(460, 560), n_cells=60).image


@pytest.fixture(scope="module")
def read(make_frame):
    def read(dish, row=0, col=0, *, seed=0, well="A1"):
        """Expose a field anew: the same place of the dish under other noise."""
        field = dish[row : row + 400, col : col + 500]
        noisy = field + np.random.default_rng(seed).normal(0, 2, field.shape)
        return assess(make_frame(np.clip(noisy, 0, 255).astype(np.uint8), well=well), None, PAPER)

    return read


@pytest.mark.parametrize(
    ("row", "col", "reasons"),
    [
        (0, 0, (Reason.DUPLICATE_FIELD,)),
        (4, 3, (Reason.DUPLICATE_FIELD, Reason.MOTION)),
        (12, 15, (Reason.DUPLICATE_FIELD, Reason.MOTION)),
        (40, 0, ()),
    ],
)
def test_the_same_field_again_is_refused_unless_the_stage_went_on(dish, read, row, col, reasons):
    image = dish(1)
    before, after = read(image, seed=1), read(image, row, col, seed=2)
    checked = refuse_repeat(after, before)
    assert checked.quality.refused_by == reasons
    assert checked.quality.passed is not bool(reasons)
    assert checked.outcome is (Outcome.INVALID if reasons else Outcome.INCONCLUSIVE)
    assert checked.reasons[: len(reasons)] == reasons
    assert checked.cells == after.cells


def test_other_fields_and_fields_of_other_wells_are_kept(dish, read):
    image = dish(1)
    before = read(image)
    for other in (read(dish(2)), read(image, well="A2"), read(np.full((460, 560), 100, np.uint8))):
        assert refuse_repeat(other, before) is other
    assert refuse_repeat(before, None) is before


def test_fields_without_a_well_are_compared_on_a_live_camera_only(dish, read):
    before, after = read(dish(1), well=None), read(dish(1), well=None, seed=3)
    assert refuse_repeat(after, before) is after
    assert refuse_repeat(after, before, live=True).reasons[0] is Reason.DUPLICATE_FIELD


def test_two_flat_fields_are_no_repeat(read):
    flat = read(np.full((460, 560), 100, np.uint8))
    assert refuse_repeat(flat, flat) is flat


def test_a_live_view_that_stays_keeps_its_verdict_and_one_that_goes_blind_loses_it(make_reading):
    state = start_live(EXTRACT, assay="adherent", modality="phase")
    for field in range(3):
        state, before = add(state, make_reading(50, 5, field=field))
    for field in range(3, 30):
        state, verdict = add(state, make_reading(50, 5, field=field, refused_by=[Reason.DUPLICATE_FIELD]))
    assert verdict == before
    for field in range(30, 45):
        state, verdict = add(state, make_reading(50, 5, field=field, refused_by=[Reason.BLUR]))
    assert verdict.outcome is Outcome.INVALID
