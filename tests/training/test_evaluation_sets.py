"""Fields that models are judged on: always the same, and outside of what training draws from."""

import itertools

import numpy as np
import pytest

from device.analysis.phantom import training_ranges
from training.recipes.sets import SETS, evaluation_fields, evaluation_ranges


def first_field(name):
    return next(evaluation_fields(name))


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_the_same_each_time_and_its_cells_are_told(name):
    one, again = first_field(name), first_field(name)
    assert np.array_equal(one.image, again.image)
    assert one.cells == again.cells
    assert {cell.label for cell in one.cells} >= {"rounded", "live"}


@pytest.mark.parametrize("name", [name for name in SETS if name.endswith("-outside")])
def test_each_property_that_training_varies_lies_outside_of_its_range(name):
    trained, judged = training_ranges(SETS[name]["modality"]), evaluation_ranges(name)
    of_other_modality = {"ring_width_um", "ring_transmission"} - set(judged)  # no phase ring in brightfield
    assert set(judged) == set(trained) - of_other_modality
    for key in set(judged) - {"defocus_um"}:
        low, high = trained[key]
        assert all(stop <= low or start >= high for start, stop in judged[key]), key


def test_the_form_of_table_1_has_its_35_to_71_dead_cells_in_15_fields():
    fields = list(itertools.islice(evaluation_fields("phase-table1"), 20))
    dead = [sum(cell.label in ("rounded", "lysed") for cell in field.cells) for field in fields]
    assert len(fields) == 15
    assert min(SETS["phase-table1"]["n_dead"]) == 35
    assert max(SETS["phase-table1"]["n_dead"]) == 71
    # cells that reach in from outside come on top
    assert all(a >= b for a, b in zip(dead, SETS["phase-table1"]["n_dead"], strict=True))
