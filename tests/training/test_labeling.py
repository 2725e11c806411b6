"""Labels of crops: from the true cell they lie on, `other` where they lie clear of all."""

import numpy as np
import pytest

from device.analysis.pyramid import build_pyramid
from training.dataset import TrueCell
from training.labeling import LabeledField, LabelSettings, cell_samples, class_of, match_candidates

THREE = ("live", "dead", "other")
FOUR = ("live", "rounded", "lysed", "other")


@pytest.mark.parametrize(
    ("label", "classes", "expected"),
    [
        ("live", THREE, 0),
        ("rounded", THREE, 1),
        ("lysed", THREE, 1),
        ("lysed", FOUR, 2),
        ("dead", FOUR, None),
        ("debris", FOUR, 3),
        ("debris", ("live", "dead"), None),
        ("", THREE, None),
    ],
)
def test_true_labels_fall_into_the_classes_that_a_model_knows(label, classes, expected):
    assert class_of(label, classes) == expected


def test_candidates_get_the_cell_they_lie_on_and_other_where_clear():
    cells = (TrueCell("live", 10, 10, 29, 29), TrueCell("dead", 50, 10, 69, 29))
    centers = np.array([[19.5, 19.5], [19.5, 60], [19.5, 26], [60, 60]], np.float32)
    fine, finer = (build_pyramid(np.zeros((80, 80), np.uint8), um) for um in (0.65, 0.325))
    settings = LabelSettings()
    assert match_candidates(centers, cells, fine, settings).tolist() == [0, 1, -2, -1]
    assert match_candidates((centers + 0.5) / 2 - 0.5, cells, finer, settings).tolist() == [0, 1, -2, -1]
    assert match_candidates(centers, (), fine, settings).tolist() == [-1, -1, -1, -1]


def test_the_flank_of_a_wide_cell_is_other():
    cells = (TrueCell("live", 0, 0, 79, 79),)
    centers = np.array([[39.5, 39.5], [39.5, 46], [39.5, 49], [39.5, 60]], np.float32)
    fine = build_pyramid(np.zeros((80, 80), np.uint8), 0.65)
    assert match_candidates(centers, cells, fine, LabelSettings()).tolist() == [0, 0, -2, -1]


def blobs():
    rng = np.random.default_rng(5)
    image = rng.normal(120, 2, (160, 200))
    rows, cols = np.mgrid[:160, :200]
    cells = []
    for k, (row, col) in enumerate([(40, 40), (40, 120), (100, 60), (110, 150)]):
        image += (60 if k % 2 else -60) * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 60)
        if k:  # the first blob is no cell
            cells.append(TrueCell("dead" if k % 2 else "live", col - 9, row - 9, col + 9, row + 9))
    return LabeledField(np.clip(image, 0, 255).astype(np.uint8), tuple(cells), "w1")


def make(settings=None, **options):
    arguments = (
        {"um_per_px": 0.65, "assay": "adherent", "modality": "phase"}
        | {"split": "train", "source": "drawn"}
        | options
    )
    return cell_samples([blobs()], THREE, settings=settings, **arguments)


def test_crops_come_from_candidates_and_true_centers():
    samples = make()
    assert samples.x.shape[1:] == (28, 28)
    count = samples.count()
    assert count["dead"] >= 2
    assert count["live"] >= 1
    assert count["other"] >= 1
    assert set(samples.group) == {"w1"}


def test_hard_negatives_are_thinned():
    assert make(LabelSettings(other_per_cell=0)).count()["other"] == 0


def test_true_centers_alone_give_one_crop_a_cell():
    judged = make(LabelSettings(candidates=False, jitter_px=0))
    assert judged.count() == {"live": 1, "dead": 2, "other": 0}


def test_equal_seeds_give_equal_samples():
    one, other = make(seed=4), make(seed=4)
    assert np.array_equal(one.x, other.x)
    assert np.array_equal(one.y, other.y)
