"""Texture and shape of crops: a second view beside the pixels, for trees and a kernel machine.

A crop and its eight symmetries have equal features, so that few labels suffice.
"""

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from device.analysis.crops import CROP_PX, OUTSIDE
from device.errors import ConfigError
from training.dataset.remember import remember
from training.dataset.samples import Samples
from training.dataset.symmetry import symmetries

NDFloat = NDArray[np.float64]
MEDIUM = 128
"""Relative gray of empty medium, which also stands for what lies beyond the border."""
_ROW, _COL = np.mgrid[:CROP_PX, :CROP_PX] - (CROP_PX - 1) / 2
_RADIUS = np.hypot(_ROW, _COL)
_RINGS = np.equal(_RADIUS // 2, np.arange(7)[:, None, None]).reshape(7, -1)
"""(7, 784) rings, 2 px wide."""
_MIDDLE = (_RADIUS < 10).ravel()
"""Where the cell is: 6.5 um around the middle at working scale."""
_GRAYS = 12
_N_TREES = 100
_STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""The eight neighbors in the order of a walk around a pixel."""


def build(_n_classes: int, _step_noise: float = 0.0) -> NoReturn:
    """Raise: there is no network here to be fitted by steps or exported to TFLite.

    Raises
    ------
    ConfigError
        Always; the message says what to do instead.
    """
    raise ConfigError(
        "learner features is trees and a kernel machine on texture and shape, with no network to export as "
        "TFLite; expected station or table2 (`nanotox-train cotrain --profile robust` uses features as the "
        "second learner and writes a network)"
    )


def fit_features(samples: Samples, seed: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return how extremely random trees and a kernel machine, together, give (N, K) logits of crops.

    Parameters are those of `fit_boosted`. Together they need a third of the labels that boosted trees do: on
    training tiles of LDC, 20 labels, AUC .982 (12 draws).

    Notes
    -----
    Logits are the mean of the logarithms of the trees' votes and of three times the machine's distances:
    both spread about alike then. Nobody has calibrated them.
    """
    balanced = _balance(samples)
    measured = measure_features(samples.x)
    trees = ExtraTreesClassifier(_N_TREES, random_state=seed)
    machine = SVC(C=1.0, decision_function_shape="ovr", random_state=seed)
    kernel = make_pipeline(StandardScaler(), machine)
    with threadpool_limits(1):
        trees.fit(measured, samples.y, balanced)
        kernel.fit(measured, samples.y, svc__sample_weight=balanced)

    def score(x: NDArray[np.uint8]) -> NDFloat:
        seen = measure_features(x)
        votes = np.log(trees.predict_proba(seen) * _N_TREES + 1)
        return np.asarray((votes + 3 * class_distances(kernel, seen)) / 2, np.float64)

    return spread_scores(score, trees.classes_, samples, -10.0)


def spread_scores(
    score: Callable[[NDArray[np.uint8]], NDFloat], known: NDArray[np.intp], samples: Samples, never: float
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return how crops get a logit of each class of `samples`, from scores of those `known` to a learner.

    A class that it knows no sample of has the logit `never`. Of no crops nothing is asked.
    """

    def logits(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        given = np.full((len(x), len(samples.classes)), never)
        if len(x):
            with threadpool_limits(1):  # threads would only wait for each other
                given[:, known] = score(x)
        return np.asarray(given, np.float32)

    return logits


def class_distances(machine: Pipeline, measured: NDArray[np.floating]) -> NDFloat:
    """Return (N, C) distances of (N, F) measures from the boundaries of a fitted linear or kernel machine."""
    distance = machine.decision_function(measured)
    if distance.ndim == 1:  # of the second of two classes
        distance = np.stack([-distance, distance], axis=1) / 2
    return np.asarray(distance, np.float64)


def fit_boosted(samples: Samples, seed: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return how boosted trees, fitted to the features of samples, give (N, K) logits of (N, 28, 28) crops.

    Parameters
    ----------
    samples : Samples
        At least one of two classes; a class without samples is never found.
    seed : int
        Equal seeds and samples give equal trees.

    Notes
    -----
    Logits are logarithms of probabilities that nobody has calibrated yet. Leaves of two samples and shallow
    trees are for tens of labels; with the default of 20 a leaf, 20 labels would give no split at all.
    """
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_depth=2,
        min_samples_leaf=2,
        l2_regularization=0.1,
        max_features=0.1,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(1, "openmp"):  # trees of tens of samples: threads would only wait for each other
        trees.fit(measure_features(samples.x), samples.y, _balance(samples))

    def score(x: NDArray[np.uint8]) -> NDFloat:
        return np.asarray(np.log(trees.predict_proba(measure_features(x)).clip(1e-6)), np.float64)

    return spread_scores(score, trees.classes_, samples, np.log(1e-6))


@remember
def measure_features(x: NDArray[np.uint8]) -> NDFloat:
    """Return (N, F) features of (N, 28, 28) crops of relative gray; N may be 0, a flat crop gives numbers.

    Notes
    -----
    In this order: moments, quantiles and histogram of gray in the middle; mean and spread of gray in rings;
    gradient in rings, its length and its part away from the middle (bright centers fall off, dull cells do
    not); rotation-invariant uniform local binary patterns of the middle (Ojala et al. 2002); difference from
    the seven mirrored and turned copies; area, spread and elongation of what differs from the medium.
    """
    gray = np.where(x == OUTSIDE, MEDIUM, x).astype(np.float64) / MEDIUM - 1
    flat = gray.reshape(len(x), CROP_PX**2)
    parts = (_moments(flat[:, _MIDDLE]), _rings(flat), _gradients(gray), _patterns(gray), _symmetry(gray))
    return np.concatenate([*parts, _shape(flat)], axis=1)


def _balance(samples: Samples) -> NDFloat:
    """Return weights of mean 1 that make all classes weigh the same."""
    balanced = 1 / np.bincount(samples.y)[samples.y]
    return np.asarray(balanced / balanced.mean(), np.float64)


def _moments(middle: NDFloat) -> NDFloat:
    mean, sd = middle.mean(axis=1, keepdims=True), middle.std(axis=1, keepdims=True)
    z = (middle - mean) / np.maximum(sd, 1e-6)
    quantiles = np.quantile(middle, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1], axis=1).T
    level = np.clip((middle + 1) / 2 * _GRAYS, 0, _GRAYS - 1).astype(np.intp)
    histogram = (level[:, :, None] == np.arange(_GRAYS)).mean(axis=1)
    skew, kurtosis = ((z**power).mean(axis=1, keepdims=True) for power in (3, 4))
    return np.concatenate([mean, sd, skew, kurtosis, quantiles, histogram], axis=1)


def _ring_means(values: NDFloat) -> NDFloat:
    means: NDFloat = values.reshape(len(values), CROP_PX**2) @ (_RINGS / _RINGS.sum(axis=1, keepdims=True)).T
    return means


def _rings(flat: NDFloat) -> NDFloat:
    mean = _ring_means(flat)
    spread = np.sqrt(np.maximum(_ring_means(flat**2) - mean**2, 0))
    return np.concatenate([mean, np.diff(mean, axis=1), spread], axis=1)


def _gradients(gray: NDFloat) -> NDFloat:
    down, right = np.gradient(gray, axis=(1, 2))
    outward = (down * _ROW + right * _COL) / np.maximum(_RADIUS, 0.5)
    length = np.hypot(down, right)
    return np.concatenate([_ring_means(length), _ring_means(outward), _ring_means(np.abs(outward))], axis=1)


def _patterns(gray: NDFloat) -> NDFloat:
    inner = gray[:, 1:-1, 1:-1]
    size = CROP_PX - 2
    above = np.stack([gray[:, 1 + r : 1 + r + size, 1 + c : 1 + c + size] >= inner for r, c in _STEPS])
    changes = (above != np.roll(above, 1, axis=0)).sum(axis=0)
    code = np.where(changes <= 2, above.sum(axis=0), 9)
    middle = code[:, _RADIUS[1:-1, 1:-1] < 10]
    return np.asarray((middle[:, :, None] == np.arange(10)).mean(axis=1), np.float64)


def _symmetry(gray: NDFloat) -> NDFloat:
    turned = symmetries(gray)[1:]
    difference = np.stack([np.abs(gray - other).mean(axis=(1, 2)) for other in turned], axis=1)
    return np.stack([difference.min(axis=1), difference.mean(axis=1), difference.max(axis=1)], axis=1)


def _shape(flat: NDFloat) -> NDFloat:
    weight = np.abs(flat) * (_RADIUS < CROP_PX / 2).ravel()
    total = np.maximum(weight.sum(axis=1), 1e-6)
    row, col = _ROW.ravel(), _COL.ravel()
    at_row, at_col = weight @ row / total, weight @ col / total
    var_row, var_col = weight @ row**2 / total - at_row**2, weight @ col**2 / total - at_col**2
    cross = weight @ (row * col) / total - at_row * at_col
    half = np.hypot((var_row - var_col) / 2, cross)
    middle = (var_row + var_col) / 2
    elongation = (middle + half) / np.maximum(middle - half, 1e-3)
    areas = [(weight > above).mean(axis=1) for above in (0.1, 0.25, 0.5)]
    return np.stack([*areas, total, np.hypot(at_row, at_col), middle, np.minimum(elongation, 100)], axis=1)
