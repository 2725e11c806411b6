"""Cells found against true cells: one-to-one matches by center, and what follows from their number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

GATE_UM = 6.0
"""Centers farther apart never match, um."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Which true cell was found as which: tp = pairs, fn and fp = the rest."""

    pairs: NDArray[np.intp]
    """(tp, 2) indices of true and found cells."""
    n_true: int
    n_found: int

    @property
    def tp(self) -> int:
        """Cells found."""
        return len(self.pairs)

    @property
    def fp(self) -> int:
        """Intruded: found where no cell is."""
        return self.n_found - len(self.pairs)

    @property
    def fn(self) -> int:
        """Undetected cells."""
        return self.n_true - len(self.pairs)


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """What tp, fp and fn give; None where a share of nothing would be asked for."""

    tp: int
    fp: int
    fn: int
    precision: float | None
    recall: float | None
    f1: float | None
    jaccard: float | None
    """tp / (tp + fp + fn): what the paper calls its accuracy of 97 %."""


def detection_scores(tp: int, fp: int, fn: int) -> DetectionScores:
    """Return precision, recall, F1 and Jaccard index of a count of cells.

    Raises
    ------
    ValueError
        If a number is negative.
    """
    if min(tp, fp, fn) < 0:
        raise ValueError(f"tp, fp, fn are {tp}, {fp}, {fn}; expected numbers of cells, 0 or more")
    return DetectionScores(
        tp=tp,
        fp=fp,
        fn=fn,
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        f1=_share(2 * tp, 2 * tp + fp + fn),
        jaccard=_share(tp, tp + fp + fn),
    )


def match_gate_um(diameters_um: Iterable[float]) -> float:
    """Return the largest distance of matching centers: half the mean true diameter, at most 6 um."""
    diameters = list(diameters_um)
    return min(GATE_UM, 0.5 * sum(diameters) / len(diameters)) if diameters else GATE_UM


def match_cells(true_um: NDArray[np.float64], found_um: NDArray[np.float64], *, gate_um: float) -> Matches:
    """Return the largest one-to-one matching of centers within a gate, and of those the closest.

    Parameters
    ----------
    true_um, found_um : (N, 2) and (M, 2) ndarray of float
        Centers, row and column, um. N and M may be 0.
    gate_um : float
        Largest distance of a pair, um, included; > 0.

    Raises
    ------
    ValueError
        If an array has another shape or `gate_um` is not positive.

    Notes
    -----
    Hungarian method. Taking the closest pairs first, as some challenges do, can only find fewer pairs.
    """
    true_um, found_um = (
        np.asarray(c, np.float64).reshape(-1, 2) if np.size(c) == 0 else c for c in (true_um, found_um)
    )
    if true_um.ndim != 2 or found_um.ndim != 2 or true_um.shape[1] != 2 or found_um.shape[1] != 2:
        raise ValueError(f"centers are {true_um.shape} and {found_um.shape}; expected (N, 2) and (M, 2)")
    if not gate_um > 0:
        raise ValueError(f"gate_um is {gate_um}; expected more than 0")
    distance = np.hypot(*(true_um[:, None, axis] - found_um[None, :, axis] for axis in (0, 1)))
    # A pair outside the gate costs more than all pairs inside can save: the number of pairs comes first.
    forbidden = gate_um * (min(distance.shape) + 1)
    rows, cols = linear_sum_assignment(np.where(distance <= gate_um, distance, forbidden))
    pairs = np.stack([rows, cols], axis=1)[distance[rows, cols] <= gate_um]
    return Matches(pairs.astype(np.intp), len(true_um), len(found_um))


def match_classes(
    true_um: NDArray[np.float64],
    true_labels: Sequence[str],
    found_um: NDArray[np.float64],
    found_labels: Sequence[str],
    *,
    gate_um: float,
) -> dict[str, Matches]:
    """Return the matches of each class by itself; pairs index the cells of that class.

    Parameters
    ----------
    true_um, found_um : (N, 2) and (M, 2) ndarray of float
        Centers, um.
    true_labels, found_labels : sequence of str
        Class of each.
    gate_um : float
        As in `match_cells`.

    Notes
    -----
    A cell found at the right place with the wrong class is an fn of its true and an fp of its found class.
    """
    true_array, found_array = np.asarray(true_labels, dtype=np.str_), np.asarray(found_labels, dtype=np.str_)
    classes = sorted({*true_labels, *found_labels})
    return {
        name: match_cells(
            np.asarray(true_um).reshape(-1, 2)[true_array == name],
            np.asarray(found_um).reshape(-1, 2)[found_array == name],
            gate_um=gate_um,
        )
        for name in classes
    }


def match_regions(true: NDArray[np.integer], found: NDArray[np.integer]) -> Matches:
    """Return which true region was found as which: pairs whose intersection over union exceeds 0.5.

    From there on no region can have two partners.

    Parameters
    ----------
    true, found : (M, N) ndarray of int
        Labels, 0 for background; numbers may be missing.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if true.shape != found.shape:
        raise ValueError(f"regions are {true.shape} and {found.shape}; expected one shape")
    (n_true, true), (n_found, found) = (_number(labels) for labels in (true, found))
    shared = np.bincount(
        (true * (n_found + 1) + found).ravel(), minlength=(n_true + 1) * (n_found + 1)
    ).reshape(n_true + 1, n_found + 1)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    pairs = np.argwhere((shared > 0.5 * union)[1:, 1:])
    return Matches(pairs.astype(np.intp), n_true, n_found)


def _number(labels: NDArray[np.integer]) -> tuple[int, NDArray[np.intp]]:
    """Return how many regions there are, and the labels numbered from 1 without gaps."""
    names, numbered = np.unique(labels, return_inverse=True)
    has_background = int(names[0] == 0)
    return len(names) - has_background, numbered.reshape(labels.shape).astype(np.intp) + (1 - has_background)


def pool_matches(matches: Iterable[Matches]) -> DetectionScores:
    """Return the scores over all cells of some fields (micro average)."""
    fields = list(matches)
    return detection_scores(sum(m.tp for m in fields), sum(m.fp for m in fields), sum(m.fn for m in fields))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
