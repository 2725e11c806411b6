"""What gives a label away without the cells: the background, the light, the batch.

A network that is fitted on such a set learns the giveaway, scores well on the set's own test split, and knows
nothing of cells.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from device.records import Interval
from training.dataset import TrueCell
from training.evaluation.binary import rank_auc
from training.evaluation.domain_gap import fold_scores
from training.evaluation.resampling import group_bootstrap

GIVEN_AWAY_FROM = 0.6
"""Lower end of the 95 % interval of an AUC or balanced accuracy from which on a set is refused."""
GROUPS_MIN = 8
"""Of each label, to judge features: of sets whose labels were drawn, 7 % were refused with 5, and
1 to 5 % with 8 to 24 (150 sets of each size)."""
_BLOCKS = 4
_ROOM, _ROOM_MIN_PX = 0.02, 3  # around a cell, of the shorter side: its halo is no background
_DITHER = (
    0.05  # relative differences of level and noise up to this are drowned, so halos do not count as light
)


def hide_cells(
    shape: tuple[int, ...], mask: NDArray[np.uint16] | None, cells: Sequence[TrueCell]
) -> NDArray[np.bool_]:
    """Return an (M, N) image of the background: True away from all outlines and boxes."""
    hidden = np.zeros(shape, np.uint8) if mask is None else (mask > 0).astype(np.uint8)
    for cell in cells:
        row, col = max(0, int(cell.ymin)), max(0, int(cell.xmin))
        hidden[row : int(cell.ymax) + 1, col : int(cell.xmax) + 1] = 1
    side = 2 * max(_ROOM_MIN_PX, round(_ROOM * min(shape))) + 1
    return np.asarray(cv2.dilate(hidden, np.ones((side, side), np.uint8)) == 0)


def describe_background(
    image: NDArray[np.uint8], background: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how the light lies in a field, (16,) gray levels, and how it was taken, (4,).

    Parameters
    ----------
    image : (M, N) ndarray of uint8
        Gray, 4 px a side or more.
    background : (M, N) ndarray of bool
        Of `hide_cells`. A block without any gets the level of the whole, an image without any level 0.

    Notes
    -----
    The first are medians of 4x4 blocks less the median of them; the second the logarithms of that median and
    of the median absolute Laplacian (noise and sharpness), rows and columns.
    """
    blocks = [
        np.median(values[seen]) if seen.mean() > 0.1 else np.nan
        for band, seen_band in zip(
            np.array_split(image, _BLOCKS), np.array_split(background, _BLOCKS), strict=True
        )
        for values, seen in zip(
            np.array_split(band, _BLOCKS, axis=1), np.array_split(seen_band, _BLOCKS, axis=1), strict=True
        )
    ]
    light = np.array(blocks, float)
    level = float(np.median(light[np.isfinite(light)])) if np.isfinite(light).any() else 0.0
    grain = np.abs(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F))[background]
    noise = float(np.median(grain)) if len(grain) else 0.0
    taken = np.array([np.log1p(level), np.log1p(noise), *image.shape])
    return np.where(np.isfinite(light), light - level, 0.0), taken


def judge_features(
    features: NDArray[np.float64], toxic: NDArray[np.bool_], groups: Sequence[str]
) -> tuple[float, Interval] | None:
    """Return how well features predict labels across groups: AUC with its 95 % interval over groups.

    Parameters
    ----------
    features : (N, D) ndarray of float64
        Of the images.
    toxic : (N,) ndarray of bool
        Their labels.
    groups : sequence of N str
        No group is on both sides of a fit.

    Returns
    -------
    (float, Interval) or None
        None where a label has fewer than `GROUPS_MIN` groups.
    """
    if (
        min(len({g for g, t in zip(groups, toxic, strict=True) if t == label}) for label in (False, True))
        < GROUPS_MIN
    ):
        return None
    scores = fold_scores(features, toxic, groups)

    def auc(index: NDArray[np.intp]) -> float | None:
        return rank_auc(scores[index], toxic[index]) if 0 < toxic[index].sum() < len(index) else None

    interval = group_bootstrap(groups, auc, n_resamples=500)
    return None if interval is None else (rank_auc(scores, toxic), interval)


def drown_small_differences(taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 4) features of how images were taken with noise of 5 % on level and noise, seeded."""
    noise = np.random.default_rng(0).normal(0, _DITHER, (len(taken), 2))
    return np.column_stack([taken[:, :2] + noise, taken[:, 2:]])


def judge_batches(toxic: NDArray[np.bool_], batches: Sequence[str]) -> tuple[float, Interval] | None:
    """Return how well the batch alone tells labels: balanced accuracy and its 95 % interval over images.

    Each image gets the label of most others of its batch; on a tie, or alone, it is half right. None where
    there is one label.
    """
    names, inverse = np.unique(np.asarray(batches, np.str_), return_inverse=True)
    n_toxic = np.bincount(inverse, toxic, len(names))[inverse] - toxic
    n_others = np.bincount(inverse, minlength=len(names))[inverse] - 1
    right = np.where(
        toxic, 0.5 + 0.5 * np.sign(2 * n_toxic - n_others), 0.5 - 0.5 * np.sign(2 * n_toxic - n_others)
    )

    def accuracy(index: NDArray[np.intp]) -> float | None:
        drawn, label = right[index], toxic[index]
        return float(drawn[label].mean() + drawn[~label].mean()) / 2 if 0 < label.sum() < len(index) else None

    value = accuracy(np.arange(len(toxic)))
    interval = group_bootstrap([str(i) for i in range(len(toxic))], accuracy, n_resamples=500)
    return None if value is None or interval is None else (value, interval)
