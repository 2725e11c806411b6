"""Images that show the same field again: shifted a little, mirrored, turned, brighter, noisier.

Each image becomes a thumbnail without its slow light. Coarse thumbnails are compared all with all, the best
partners of each image once more at 64 px.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.dataset.symmetry import symmetries

THUMBNAIL_PX = 64
TWIN_FROM = 0.9
"""Correlation of twins, at least: docs/datasets.md tells what real and altered images have."""
_MANY_PAIRS, _CLOSER = 30, 3
_COARSE_PX, _COARSE_REACH_PX, _FINE_REACH_PX = 16, 1, 4  # shifts up to 6 % of the field
_N_PARTNERS = 3  # that are looked at again: a well's outline alone makes all fields of a plate suspicious


@dataclass(frozen=True, slots=True)
class Twins:
    """Pairs of images of two splits that show the same field."""

    pairs: tuple[tuple[int, int, float], ...]
    """Positions, the first comes first, and correlation."""
    highest: float
    """Correlation of any pair across splits, twins or not; 0 without two splits."""
    limit: float
    """From here on two images are twins."""


def make_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the (64, 64) means of an (M, N) gray image, whatever its shape."""
    return _shrink(image, THUMBNAIL_PX)


def find_twins(thumbnails: NDArray[np.float32], splits: Sequence[str]) -> Twins:
    """Return what images show the same field as one of another split.

    Parameters
    ----------
    thumbnails : (N, 64, 64) ndarray of float32
        Of `make_thumbnail`.
    splits : sequence of N str
        Pairs within one are not looked for.

    Notes
    -----
    The limit is `TWIN_FROM`. Where all images of a set are alike, as with the outline of a well in each,
    twins have to be three times closer to 1 than the middle of all pairs.
    """
    small = np.array([_remove_light(_shrink(image, _COARSE_PX)) for image in thumbnails])
    # half a pixel of shift costs a sharp image a tenth of its correlation, a soft one little
    fine = [_remove_light(cv2.GaussianBlur(image, (0, 0), 1)) for image in thumbnails]
    pairs: set[tuple[int, int]] = set()
    likenesses = [np.zeros(0, np.float32)]
    of_split = [np.flatnonzero(np.array(splits) == name) for name in sorted(set(splits))]
    for first, second in combinations(of_split, 2):
        likeness = _compare_all(small[first], small[second])
        likenesses.append(likeness.ravel())
        partners = _best_partners(likeness) | {(i, j) for j, i in _best_partners(likeness.T)}
        positions = ((int(first[i]), int(second[j])) for i, j in partners)
        pairs |= {(min(both), max(both)) for both in positions}
    every = np.concatenate(likenesses)
    usual = float(np.median(every)) if len(every) >= _MANY_PAIRS else 0.0
    limit = max(TWIN_FROM, 1 - (1 - usual) / _CLOSER)
    compared = [(i, j, _compare(fine[i], fine[j])) for i, j in sorted(pairs)]
    highest = max((pair[2] for pair in compared), default=0.0)
    return Twins(tuple(pair for pair in compared if pair[2] >= limit), highest, limit)


def _shrink(image: NDArray[Any], side: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _remove_light(thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    slow = cv2.GaussianBlur(thumbnail, (0, 0), len(thumbnail) / 8, borderType=cv2.BORDER_REFLECT)
    return np.asarray(thumbnail - slow, np.float32)


def _best_partners(likeness: NDArray[np.float32]) -> set[tuple[int, int]]:
    best = np.argsort(-likeness, axis=1, kind="stable")[:, :_N_PARTNERS]
    return {(i, int(j)) for i, row in enumerate(best) for j in row}


def _compare_all(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (len(a), len(b)) highest correlations over eight positions and small shifts."""
    reach, side = _COARSE_REACH_PX, _COARSE_PX - 2 * _COARSE_REACH_PX
    views = [_unit(view) for view in symmetries(b[:, reach:-reach, reach:-reach])]
    likeness = np.full((len(a), len(b)), -1, np.float32)
    for row in range(2 * reach + 1):
        for col in range(2 * reach + 1):
            window = _unit(a[:, row : row + side, col : col + side])
            for view in views:
                np.maximum(likeness, window @ view.T, out=likeness)
    return likeness


def _unit(images: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3), np.float32)


def _compare(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the highest correlation of two fine thumbnails over eight positions and small shifts."""
    reach = _FINE_REACH_PX
    if min(a.std(), b.std()) < 1e-3:
        return 0.0  # nothing to see; equal pixels are found as such
    views = symmetries(b[None, reach:-reach, reach:-reach])
    return max(
        float(cv2.matchTemplate(a, np.ascontiguousarray(view[0]), cv2.TM_CCOEFF_NORMED).max())
        for view in views
    )
