"""Int8 models run the same in batches and alone, and refuse to run where they answer otherwise."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from device import classifier
from device.errors import ModelError
from device.model_card import Card, Quantization
from device.model_card.opinions import Metric, Opinion
from device.models import find_bundle
from device.records import CellClass

TINY = Path(__file__).parent / "data" / "tiny-cell"
DEVICE = Path(classifier.__file__).parent


@pytest.fixture(scope="module")
def bundle():
    return find_bundle(TINY)


def with_card(bundle, **changes):
    card: Card = dataclasses.replace(bundle.card, **changes)
    return dataclasses.replace(bundle, card=card)


def as_field(bundle):
    """The tiny cell model as a field model: its second output stands in for `toxic`."""
    return with_card(
        bundle, kind="field", classes=("non_toxic", "toxic", "unused"), preprocessing="relative/2 squeezed"
    )


def with_golden(bundle, **changes):
    return dataclasses.replace(bundle, golden=dataclasses.replace(bundle.golden, **changes))


def test_the_interpreter_is_invoked_in_one_place_of_the_station():
    calls = [
        path.name
        for path in DEVICE.rglob("*.py")
        for _ in re.finditer(r"\.[iI]nvoke\(", path.read_text("utf-8"))
    ]
    assert calls == ["classifier.py"]


def test_probabilities_are_those_of_the_card_and_sum_to_one(bundle):
    classify = classifier.open_cell_classifier(bundle)
    assert classify.classes == (CellClass.LIVE, CellClass.DEAD, CellClass.OTHER)
    assert classify.id == bundle.id
    judgment = classify(bundle.golden.inputs)
    probabilities = judgment.probabilities
    assert judgment.odd is None
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (24, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    stored = classifier.softmax(
        classifier.dequantize(bundle.golden.logits, bundle.card.logits), bundle.card.temperature
    )
    np.testing.assert_allclose(probabilities, stored, atol=0.05)


def test_drawn_shapes_are_told_apart(bundle):
    crops = np.full((2, 28, 28), 128, np.uint8)
    rows, cols = np.mgrid[:28, :28] - 13.5
    crops[0][np.hypot(rows, cols) < 6] = 190
    crops[1][(rows / 4) ** 2 + (cols / 10) ** 2 < 1] = 92
    classify = classifier.open_cell_classifier(bundle)
    assert [classify.classes[i] for i in classify(crops).probabilities.argmax(axis=1)] == [
        CellClass.DEAD,
        CellClass.LIVE,
    ]


def test_a_crop_scores_the_same_alone_and_in_any_batch(bundle, monkeypatch):
    monkeypatch.setattr(classifier, "MAX_BATCH", 7)
    network = classifier.open_network(bundle)
    together = network.run(bundle.golden.inputs)[0]
    alone = np.concatenate([network.run(crop[None])[0] for crop in bundle.golden.inputs])
    np.testing.assert_array_equal(together, alone)


def test_no_crops_give_no_probabilities(bundle):
    assert classifier.open_cell_classifier(bundle)(np.zeros((0, 28, 28), np.uint8)).probabilities.shape == (
        0,
        3,
    )


def test_black_and_white_crops_stay_finite(bundle):
    crops = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    assert np.isfinite(classifier.open_cell_classifier(bundle)(crops).probabilities).all()


@pytest.mark.parametrize("shape", [(28, 28), (1, 27, 28), (1, 28, 28, 1)])
def test_a_wrong_shape_is_refused(bundle, shape):
    with pytest.raises(ValueError, match=r"expected uint8 \(K, 28, 28\)"):
        classifier.open_network(bundle).run(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("made_by", "limit"),
    [
        (classifier.runtime_name(), classifier.Shift(0.05, 0.005)),
        ("other 1.0 riscv64", classifier.Shift(0.125, 0.01)),
    ],
)
def test_golden_probabilities_may_differ_by_what_runtimes_differ_and_no_more(bundle, made_by, limit):
    network = classifier.Int8Network(bundle.model)
    logits, fit = network.run(bundle.golden.inputs)[0], []
    ranked = np.sort(logits.astype(int), axis=1)
    unsure = int((ranked[:, -1] - ranked[:, -2]).argmin())
    winner = int(logits[unsure].argmax())
    for steps in range(0, 120, 2):
        moved = logits.copy()
        moved[unsure, winner] = max(-128, int(logits[unsure, winner]) - steps)
        changed = with_card(with_golden(bundle, logits=moved), golden_runtime=made_by)
        fit.append(classifier.golden_shift(changed, network).largest <= limit.largest)
        if fit[-1]:
            classifier.open_network(changed)
        else:
            with pytest.raises(ModelError, match=rf"probabilities off by .*at most {limit.largest:.4f}"):
                classifier.open_network(changed)
    assert fit[0]
    assert not fit[-1]


def test_golden_probabilities_that_are_all_a_little_off_are_refused(bundle):
    network = classifier.Int8Network(bundle.model)
    logits = network.run(bundle.golden.inputs)[0]
    for steps in range(1, 60):
        moved = np.where(logits < 0, logits + steps, logits - steps).astype(np.int8)
        changed = with_card(with_golden(bundle, logits=moved), golden_runtime="other 1.0 riscv64")
        shift = classifier.golden_shift(changed, network)
        if shift.mean > 0.01:
            break
    assert shift.largest <= 0.125
    with pytest.raises(ModelError, match="probabilities off by "):
        classifier.open_network(changed)


def test_a_card_of_another_model_is_refused(bundle):
    with pytest.raises(ModelError, match=r"logits has Quantization\(.*; expected .* by its card"):
        classifier.open_network(with_card(bundle, logits=Quantization(scale=0.5, zero_point=27)))


def test_golden_outputs_of_another_shape_are_refused(bundle):
    with pytest.raises(ModelError, match=r"logits \(24, 3\) and features \(24, 16\); expected \(24, 2\)"):
        classifier.open_network(with_golden(bundle, logits=bundle.golden.logits[:, :2]))


def test_a_field_model_cannot_classify_cells(bundle):
    with pytest.raises(ModelError, match="is a cell model; expected a field model"):
        classifier.open_field_classifier(bundle)


def test_a_field_model_gives_the_probability_of_toxic(bundle):
    classify = classifier.open_field_classifier(as_field(bundle))
    live, dead = classifier.open_cell_classifier(bundle)(bundle.golden.inputs).probabilities[:, :2].T
    p_toxic = [classify(field) for field in bundle.golden.inputs]
    np.testing.assert_allclose(p_toxic, dead / (live + dead), rtol=1e-4)


def test_an_opinion_says_where_the_middle_is_and_how_sure_it_may_be(bundle):
    auc, field = Metric(0.9, 0.8, 0.95, 20, "synthetic: drawn"), bundle.golden.inputs[0]
    raw = classifier.open_field_classifier(with_card(as_field(bundle), temperature=1.0))(field)
    logit = float(np.log(raw / (1 - raw)))
    opinion = Opinion("adherent", "phase", auc, False, 2.0, 0.5)
    calibrated = classifier.open_field_classifier(as_field(bundle), opinion)(field)
    assert calibrated == pytest.approx(1 / (1 + np.exp(-(logit - 0.5) / 2)), rel=1e-4)


class Brightness:
    """Stands in for a network of tiles: 10 int8 steps of `toxic` for each gray level above 128."""

    input_px, logits = 80, Quantization(0.1, 5)

    def run(self, tiles):
        steps = np.rint(10 * (tiles.reshape(len(tiles), -1).mean(axis=1) - 128))
        return np.stack([np.full(len(tiles), 5), steps + 5], axis=1).astype(np.int8), None


@pytest.fixture
def by_tiles(bundle, monkeypatch):
    monkeypatch.setattr(classifier, "open_network", lambda _bundle, num_threads: Brightness())
    return classifier.open_field_classifier(
        with_card(
            bundle,
            kind="field",
            classes=("non_toxic", "toxic"),
            preprocessing="relative/2 tiles",
            input_px=80,
            um_per_px=1.3,
            temperature=2.0,
        )
    )


@pytest.mark.parametrize("size", [(160, 160), (480, 640), (161, 350), (1200, 2000)])
def test_a_field_of_any_size_has_the_mean_logit_of_its_tiles(by_tiles, size):
    field = np.full(size, 129, np.uint8)
    assert by_tiles(field) == pytest.approx(1 / (1 + np.exp(-1 / 2)))
    field[:, size[1] // 2 :] = 127
    even = np.hstack([field, field[:, ::-1]])
    assert by_tiles(even) == pytest.approx(0.5, abs=0.1)


def test_a_field_smaller_than_a_tile_gets_no_opinion(by_tiles):
    assert by_tiles(np.full((159, 640), 128, np.uint8)) is None


def test_a_field_model_speaks_only_where_its_card_says_better_than_chance(bundle):
    better = Metric(0.9, 0.8, 0.95, 20, "synthetic: drawn")
    said = (
        Opinion("adherent", "phase", better, False, 1.0, 0.0),
        Opinion("suspension", "brightfield", better, True, 1.0, 0.0),
    )
    fields = with_card(as_field(bundle), opinions=said)
    assert classifier.second_opinion(fields, "adherent", "phase") is not None
    assert classifier.second_opinion(fields, "suspension", "brightfield") is None
    assert classifier.second_opinion(fields, "adherent", "brightfield") is None
    assert classifier.second_opinion(None, "adherent", "phase") is None


def test_a_model_that_sees_other_sizes_than_its_card_says_is_refused(bundle):
    with pytest.raises(ModelError, match="sees 28 px; expected 80 by its card"):
        classifier.open_network(with_card(bundle, input_px=80))


def test_temperature_softens_without_changing_the_order():
    logits = np.array([[4.0, 1.0, 0.0], [-60000.0, 0.0, 60000.0]], np.float32)
    sharp, soft = classifier.softmax(logits, 1.0), classifier.softmax(logits, 3.0)
    assert sharp[0, 0] > soft[0, 0] > soft[0, 1] > sharp[0, 1]
    np.testing.assert_allclose(sharp[1], [0, 0, 1])
