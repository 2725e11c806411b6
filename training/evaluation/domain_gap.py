"""How far rendered images are from real ones: a classifier two-sample test (C2ST) on patches.

An AUC of 0.5 says that the classifier cannot tell them apart, 1 that it always can. It is a lower bound: a
stronger classifier may see more.
"""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from device.analysis.flatten import GAIN, MIDDLE, flatten
from device.analysis.pyramid import build_pyramid
from device.records import Interval
from training.evaluation.binary import rank_auc
from training.evaluation.resampling import group_bootstrap

PATCH_PX = 64
N_FOLDS = 5
_RIDGE = 0.1  # of the standardized weights, beside the mean loss of a patch
_BANDS = 12


def draw_patches(
    images: Iterable[tuple[NDArray[np.uint8], str]], um_per_px: float, *, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], list[str]]:
    """Return features of `n` random patches of each image, and the group of each.

    Parameters
    ----------
    images : iterable of ((M, N) ndarray of uint8, str)
        Images of at least 64 px a side at working scale, and their groups.
    um_per_px : float
        Of the images.
    n : int
        Patches an image.
    rng : Generator
        Draws the places.

    Returns
    -------
    (K, D) ndarray of float64, list of K str
        Of 64x64 patches of the relative contrast, which is what the cell model sees.
    """
    features, groups = [], []
    for image, group in images:
        pyramid = build_pyramid(image, um_per_px)
        relative = (flatten(pyramid).astype(np.float32) - MIDDLE) / GAIN
        for _ in range(n):
            row, col = (int(rng.integers(side - PATCH_PX + 1)) for side in relative.shape)
            features.append(list(_describe(relative[row : row + PATCH_PX, col : col + PATCH_PX])))
            groups.append(group)
    return np.array(features), groups


def c2st_auc(
    real: NDArray[np.float64],
    rendered: NDArray[np.float64],
    real_groups: list[str],
    rendered_groups: list[str],
    *,
    seed: int = 0,
) -> tuple[float, Interval | None]:
    """Return the AUC of real against rendered patches by logistic regression, and its interval over groups.

    Parameters
    ----------
    real, rendered : (N, D) and (M, D) ndarray of float64
        Features of `draw_patches`.
    real_groups, rendered_groups : list of str
        Group of each patch, at least five a side; no group stands on both sides of a fit.
    seed : int
        Of the folds.

    Notes
    -----
    Each patch is judged by the fit of the four folds without its group.
    """
    x, y = np.concatenate([real, rendered]), np.repeat([True, False], [len(real), len(rendered)])
    groups = [f"real {g}" for g in real_groups] + [f"rendered {g}" for g in rendered_groups]
    scores = fold_scores(x, y, groups, seed=seed)

    def auc(index: NDArray[np.intp]) -> float | None:
        return rank_auc(scores[index], y[index]) if 0 < y[index].sum() < len(index) else None

    return rank_auc(scores, y), group_bootstrap(groups, auc, n_resamples=500)


def fold_scores(
    x: NDArray[np.float64], y: NDArray[np.bool_], groups: Sequence[str], *, seed: int = 0
) -> NDArray[np.float64]:
    """Return (N,) scores of items by logistic regression on the four folds without their group.

    Parameters
    ----------
    x, y : (N, D) ndarray of float64, (N,) ndarray of bool
        Features and labels.
    groups : sequence of N str
        Groups of either label, shuffled by themselves, are spread over the five folds.
    seed : int
        Of the folds.
    """
    names, inverse = np.unique(np.asarray(groups, np.str_), return_inverse=True)
    mostly = np.bincount(inverse, y, len(names)) * 2 >= np.bincount(inverse, minlength=len(names))
    rng = np.random.default_rng(seed)
    fold_of = np.zeros(len(names), np.intp)
    for label in (True, False):
        fold_of[mostly == label] = rng.permutation(int(np.sum(mostly == label))) % N_FOLDS
    fold = fold_of[inverse]
    scores = np.zeros(len(y))
    for k in range(N_FOLDS):
        known = fold != k
        strength = (x.shape[1] + 1) / (_RIDGE * known.sum())
        line = LogisticRegression(C=strength, class_weight="balanced", tol=1e-5, max_iter=1000)
        scores[~known] = (
            make_pipeline(StandardScaler(), line).fit(x[known], y[known]).decision_function(x[~known])
        )
    return scores


def _describe(patch: NDArray[np.float32]) -> Iterator[float]:
    """Yield moments, percentiles, spectrum, slopes and correlations of a patch."""
    centered = patch - patch.mean()
    sd = float(patch.std()) + 1e-6
    yield from (float(patch.mean()), np.log(sd), *(float(np.mean((centered / sd) ** k)) for k in (3, 4)))
    yield from np.percentile(patch, (1, 5, 25, 50, 75, 95, 99)).tolist()
    power = np.abs(np.fft.fft2(centered * np.outer(np.hanning(PATCH_PX), np.hanning(PATCH_PX)))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(PATCH_PX), np.fft.fftfreq(PATCH_PX)))
    band = np.minimum(frequency / 0.5 * _BANDS, _BANDS).astype(int)
    sums, sizes = (np.bincount(band.ravel(), w, _BANDS + 1)[:_BANDS] for w in (power.ravel(), None))
    yield from np.log(sums / sizes + 1e-9).tolist()
    slope = np.hypot(cv2.Sobel(patch, cv2.CV_32F, 1, 0), cv2.Sobel(patch, cv2.CV_32F, 0, 1))
    yield from np.log(np.percentile(slope, (10, 50, 90, 99)) + 1e-6).tolist()
    yield from (float(np.mean(centered[:, lag:] * centered[:, :-lag])) / sd**2 for lag in (1, 2, 4, 8, 16))
