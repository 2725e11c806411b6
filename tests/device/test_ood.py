"""Odd crops are told from familiar ones, and odd fields from chance."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from device import models
from device.analysis.assess import AnalysisSettings, assess
from device.analysis.judgment import Judgment
from device.analysis.ood import Familiar, find_odd, is_odd_field, measure_energy
from device.analysis.phantom import render_field
from device.classifier import open_cell_classifier
from device.errors import ModelError
from device.records import Reason

TINY = Path(__file__).parent / "data" / "tiny-cell"


def test_energy_is_minus_the_log_of_the_sum_and_survives_large_logits():
    logits = np.array([[1.0, 2.0], [1e4, 0.0]], np.float32)
    energy = measure_energy(logits, 2.0)
    assert energy[0] == pytest.approx(-2 * math.log(math.exp(0.5) + math.exp(1)), rel=1e-5)
    assert energy[1] == pytest.approx(-1e4)


def test_a_crop_is_odd_by_its_energy_or_by_its_distance_from_every_class():
    means, unit = np.array([[0, 0], [10, 0]], np.float32), np.eye(2, dtype=np.float32)
    familiar = Familiar(means, unit, energy_max=-5.0, distance_max=9.0)
    features = np.array([[0, 0], [10, 2.9], [10, 3.1], [5, 0], [0, 0]], np.float32)
    logits = np.array([[6, 0], [0, 6], [0, 6], [6, 0], [1, 1]], np.float32)
    assert find_odd(logits, features, 1.0, familiar).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("n_odd", "n", "odd"), [(0, 0, False), (1, 5, False), (3, 5, True), (10, 100, False), (11, 100, True)]
)
def test_a_field_is_odd_when_a_tenth_of_its_cells_are_and_chance_explains_it_not(n_odd, n, odd):
    assert is_odd_field(np.arange(n) < n_odd) is odd


def test_chance_is_the_binomial_tail():
    tail = sum(math.comb(20, k) * 0.02**k * 0.98 ** (20 - k) for k in range(4, 21))
    assert 1e-3 > tail > 1e-4
    assert is_odd_field(np.arange(20) < 4)
    assert not is_odd_field(np.arange(20) < 3)


@pytest.fixture
def bundle():
    """The tiny bundle that finds nothing familiar but its own golden inputs."""
    bundle = models.find_bundle(TINY)
    golden = dataclasses.replace(
        bundle.golden, means=np.zeros((3, 16), np.float32), whitening=np.eye(16, dtype=np.float32)
    )
    limits = {"energy_max": 1e6, "distance_max": 1e-6}
    return dataclasses.replace(
        bundle, golden=golden, card=dataclasses.replace(bundle.card, thresholds=limits)
    )


def test_a_bundle_keeps_what_is_familiar_and_its_classifier_tells(bundle, tmp_path):
    models.write_bundle(tmp_path, card=bundle.card, model=bundle.model, golden=bundle.golden)
    again = models.find_bundle(tmp_path)
    assert isinstance(again.familiar, Familiar)
    assert not again.familiar.whitening.flags.writeable
    assert open_cell_classifier(again)(again.golden.inputs).odd.all()
    assert models.find_bundle(TINY).familiar is None
    golden = dataclasses.replace(bundle.golden, means=bundle.golden.means[:2])
    models.write_bundle(tmp_path, card=bundle.card, model=bundle.model, golden=golden)
    with pytest.raises(ModelError, match=r"means are float32 of shape \(2, 16\); expected float32 of shape"):
        models.find_bundle(tmp_path)


def test_a_field_of_odd_cells_is_flagged_and_says_how_many(bundle, make_frame):
    image = render_field(modality="phase", seed=8, size=(300, 400), n_cells=45, dead_fraction=0.4).image
    settings = AnalysisSettings("adherent", "phase")
    reading = assess(make_frame(image), open_cell_classifier(bundle), settings)
    assert reading.quality.odd_cells == 1
    assert Reason.OOD_CELLS in reading.reasons
    assert reading.quality.passed
    plain = assess(make_frame(image), open_cell_classifier(models.find_bundle(TINY)), settings)
    assert plain.quality.odd_cells is None
    assert Reason.OOD_CELLS not in plain.reasons
    paper = assess(
        make_frame(image), open_cell_classifier(bundle), dataclasses.replace(settings, method="paper")
    )
    assert paper.quality.odd_cells == 1


def test_a_model_must_say_of_each_crop_whether_it_is_odd(bundle, make_frame):
    class Lazy(type(open_cell_classifier(bundle))):
        def __call__(self, crops):
            return Judgment(super().__call__(crops).probabilities, np.zeros(1, bool))

    image = render_field(modality="phase", seed=8, size=(300, 400), n_cells=45).image
    with pytest.raises(ValueError, match=r"gave odd of shape \(1,\)"):
        assess(make_frame(image), Lazy(bundle, "cell", 1), AnalysisSettings("adherent", "phase"))
