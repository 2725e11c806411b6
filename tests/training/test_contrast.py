"""An embedding that images teach without labels, and what remembers its results."""

from dataclasses import replace

import numpy as np
import pytest

from training.cotraining import contrast
from training.cotraining.contrast import ContrastSettings, fit_linear, learn_embedding
from training.dataset.remember import remember
from training.dataset.samples import Samples

TINY = ContrastSettings(steps=2, batch=8)


def crops(n, seed=0):
    """Dark ones live, bright ones dead, in their turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = (60 + 120 * y)[:, None, None] + rng.integers(0, 40, (n, 28, 28))
    return Samples(x.astype(np.uint8), y, np.full(n, "g"), "train", "drawn", ("live", "dead"))


@pytest.fixture
def learned(monkeypatch):
    """The embeddings that this process has learned: none."""
    monkeypatch.setattr(contrast, "_LEARNED", {})
    return contrast._LEARNED


@pytest.mark.training
def test_a_crop_and_its_symmetries_have_one_embedding():
    x = crops(6).x
    embed = learn_embedding(x, TINY)
    assert embed(x).shape == (6, contrast.FILTERS[-1])
    for turned in (x[:, ::-1], np.rot90(x, axes=(1, 2)), x.transpose(0, 2, 1)):
        assert embed(turned) == pytest.approx(embed(x), abs=1e-4)
    assert embed(x[:0]).shape == (0, contrast.FILTERS[-1])
    assert np.ptp(embed(x), axis=0).max() > 0


@pytest.mark.training
def test_order_and_copies_of_crops_change_nothing_but_settings_do(learned):
    x, lines = crops(6).x, []
    one = learn_embedding(x, TINY)(x)
    assert np.array_equal(learn_embedding(np.concatenate([x[::-1], x[:2]]), TINY)(x), one)
    assert len(learned) == 1  # learned once
    learned.clear()
    again = learn_embedding(x, replace(TINY, steps=100), lines.append)
    assert lines[0].startswith("embedding: step 100/100, loss ")
    assert not np.array_equal(again(x), one)
    learned.clear()
    assert np.array_equal(learn_embedding(x, TINY)(x), one)


def test_one_crop_is_nothing_to_contrast():
    with pytest.raises(ValueError, match="1 different crops; expected at least two"):
        learn_embedding(np.zeros((5, 28, 28), np.uint8), TINY)


def mean_gray(x):
    return x.reshape(len(x), -1).mean(axis=1, keepdims=True).astype(np.float32)


def test_a_line_tells_classes_and_never_finds_what_it_never_saw():
    train, x = crops(20), crops(6, 1).x
    said = fit_linear(mean_gray, train)(x)
    assert said.argmax(axis=1).tolist() == [0, 1] * 3
    assert said.sum(axis=1) == pytest.approx(0, abs=1e-5)
    three = replace(train, y=2 * train.y, classes=("live", "early", "dead"))
    assert fit_linear(mean_gray, three)(x).argmax(axis=1).tolist() == [0, 2] * 3
    assert fit_linear(mean_gray, three)(x[:0]).shape == (0, 3)


def test_equal_images_are_measured_once_until_forgotten():
    asked = []

    def measure(x):
        asked.append(x.shape)
        return mean_gray(x)

    measured, x = remember(measure, sets=2), crops(4).x
    assert np.array_equal(measured(x), mean_gray(x))
    assert np.array_equal(measured(x.copy()), mean_gray(x))
    assert len(asked) == 1
    measured(x[:2])
    measured(x)  # used again: not the one that is forgotten
    measured(x[:3])
    measured(x)
    assert len(asked) == 3
    measured(x[:2])
    assert len(asked) == 4
    measured(x[:2].reshape(4, 14, 28))  # equal bytes, other images
    assert len(asked) == 5


def test_what_is_remembered_cannot_be_spoiled():
    measured = remember(mean_gray)
    with pytest.raises(ValueError, match="read-only"):
        measured(crops(4).x)[0] = 0
