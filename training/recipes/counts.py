"""A whole field as its counts: what `assess` says of it, the second view beside its 28x28 picture."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from device.classifier import open_cell_classifier
from device.model_card import Bundle, settings_from_card
from device.records import Assay, Reading
from training.cotraining.trust import Fit, Logits
from training.dataset import Dataset
from training.dataset.samples import Samples
from training.export.acceptance import read_fields
from training.fields import TOXIC_ABOVE, field_input
from training.labeling import dataset_fields

NDFloat = NDArray[np.float64]
Counts = Mapping[bytes, NDFloat]
"""Features of fields by the bytes of their 28x28 pictures: samples carry pictures only. Fields whose pictures
are equal in every pixel, such as copies, share those of the last."""
SURE = (0.25, 0.5, 0.75)
"""Limits of the histogram of p_dead."""


def read_counts(dataset: Dataset, splits: Iterable[str], bundle: Bundle) -> dict[bytes, NDFloat]:
    """Return the count features of each field of some splits, as the station reads it with a cell model."""
    classify, settings = open_cell_classifier(bundle), settings_from_card(bundle.card)
    scale = dataset.info.scale
    counts = {}
    for field in (field for split in splits for field in dataset_fields(dataset, split)):
        reading = read_fields([field], classify, settings, scale)[0].reading
        counts[field_input(field.image, scale.um_per_px)[0].tobytes()] = count_features(reading)
    return counts


def count_features(reading: Reading) -> NDFloat:
    """Return (11,) features of a reading; a field without cells gives numbers too.

    Notes
    -----
    In this order: log odds of the dead share, half a cell added to each side; logarithms of the numbers of
    live, dead and other; confluence; shares of p_dead in four bins; median and spread of the area, as
    logarithms of um2, 0 where the scale is assumed.
    """
    numbers = np.array([reading.n_live, reading.n_dead, reading.n_other], np.float64)
    odds = np.log((reading.n_dead + 0.5) / (reading.n_live + 0.5))
    p_dead = np.array([cell.p_dead for cell in reading.cells])
    bins = np.bincount(np.searchsorted(SURE, p_dead, side="right"), minlength=len(SURE) + 1)
    areas = np.log([cell.area_um2 for cell in reading.cells if cell.area_um2])
    size = [float(np.median(areas)), float(areas.std())] if len(areas) else [0.0, 0.0]
    return np.array(
        [odds, *np.log1p(numbers), reading.tally.confluence, *bins / max(len(p_dead), 1), *size], np.float64
    )


def learn_counts(counts: Counts) -> Fit:
    """Return how logistic regression on the counts of fields is fitted in a round of co-training."""

    def fit(samples: Samples, _round: int) -> Logits:
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        model.fit(_look_up(counts, samples.x), samples.y)

        def logits(x: NDArray[np.uint8]) -> NDArray[np.float32]:
            if not len(x):
                return np.zeros((0, 2), np.float32)
            return np.asarray(model.predict_log_proba(_look_up(counts, x)), np.float32)

        return logits

    return fit


def rule_by_counts(counts: Counts, assay: Assay) -> Logits:
    """Return the count rule as logits of fields: the odds of the dead share against those of its limit."""
    limit = TOXIC_ABOVE[assay]

    def logits(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        odds = _look_up(counts, x)[:, 0] - np.log(limit / (1 - limit))
        return np.stack([-odds / 2, odds / 2], axis=1).astype(np.float32)

    return logits


def _look_up(counts: Counts, x: NDArray[np.uint8]) -> NDFloat:
    return np.stack([counts[image.tobytes()] for image in x])
