"""What a model finds familiar: its validation crops, learned when a bundle is exported."""

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from device.analysis.ood import EXPECTED_SHARE, Familiar, measure_distance, measure_energy

CELLS_MIN = 200
"""With fewer validation crops of cells nothing is learned: two lie beyond each threshold."""


def learn_familiar(
    logits: NDArray[np.float32],
    features: NDArray[np.float32],
    y: NDArray[np.intp],
    temperature: float,
    other: int | None,
) -> Familiar | None:
    """Return means, whitening and thresholds from validation crops, None where there are too few of a class.

    Parameters
    ----------
    logits, features : (N, C) and (N, D) ndarray of float32
        What the int8 model gives for them, dequantized.
    y : (N,) ndarray of int
        True classes.
    temperature : float
        Of the softmax, > 0.
    other : int or None
        Index of the class that is no cell: thresholds are for cells alone, since a field is judged by them.

    Notes
    -----
    One covariance for all classes, shrunk toward a multiple of the identity (Ledoit and Wolf 2004).
    """
    called = logits.argmax(axis=1)
    cells = np.ones(len(y), bool) if other is None else called != other
    counts = np.bincount(y, minlength=logits.shape[1])
    if cells.sum() < CELLS_MIN or counts.min() == 0:
        return None
    means = np.stack([features[y == k].mean(axis=0) for k in range(len(counts))]).astype(np.float32)
    rests = features - means[y]
    whitening = np.linalg.cholesky(np.linalg.inv(shrink_covariance(rests))).astype(np.float32)
    share = 1 - EXPECTED_SHARE / 2
    energy = measure_energy(logits[cells], temperature)
    distance = measure_distance(features[cells], means, whitening)
    return Familiar(means, whitening, float(np.quantile(energy, share)), float(np.quantile(distance, share)))


def shrink_covariance(rests: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the (D, D) Ledoit-Wolf estimate from (N, D) deviations whose mean is zero, N > 0."""
    shrunk, _ = ledoit_wolf(rests.astype(np.float64), assume_centered=True)
    # features that never change would make it singular
    return np.asarray(shrunk + 1e-6 * np.eye(len(shrunk)))
