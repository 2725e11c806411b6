"""How good a run or bundle is on a dataset: on crops of true cells, and over the station's whole path."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.analysis.assess import AnalysisSettings, CellClassifier, assess
from device.records import DEAD_CLASSES, CellClass, Frame, Interval, Reading, Scale
from training.dataset import FIELD_LABELS, Samples, TrueCell
from training.evaluation import (
    BinaryScores,
    CountErrors,
    DetectionScores,
    Matches,
    binary_scores,
    count_errors,
    detection_scores,
    group_bootstrap,
    match_cells,
    match_classes,
    match_gate_um,
)
from training.labeling import LabeledField

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives (N, K) probabilities of (N, 28, 28) crops."""
ANY = "any"
"""Key of the scores that ask only whether there is a cell, whatever its class."""
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class FieldResult:
    """One field read by the station's path, matched to its truth."""

    reading: Reading
    matches: dict[str, Matches]
    """By `live`, `dead` and `any`."""
    group: str


@dataclass(frozen=True, slots=True)
class StationScores:
    """What the station's path is worth on some fields."""

    n_fields: int
    n_refused: int
    """Fields that the quality gate refused; their cells are scored all the same."""
    detection: dict[str, DetectionScores]
    """By `live`, `dead` and `any`."""
    f1_ci95: dict[str, Interval | None]
    """Bootstrap over groups."""
    counts: CountErrors | None
    """Cells found against true cells, a field each."""


def score_crops(classify: Classify, samples: Samples) -> BinaryScores:
    """Return how well probabilities tell dead from live crops, or toxic from non-toxic fields.

    Parameters
    ----------
    classify : Classify
        Probabilities in the order of `samples.classes`.
    samples : Samples
        At least one; those of class `other` are left out.

    Raises
    ------
    ValueError
        If no sample is left.
    """
    if samples.classes == FIELD_LABELS:
        return binary_scores(classify(samples.x)[:, 1], samples.y == 1)
    names = np.array(samples.classes)
    cells = samples.take(names[samples.y] != CellClass.OTHER)
    return binary_scores(
        p_dead(classify(cells.x), samples.classes), np.isin(names[cells.y], list(DEAD_CLASSES))
    )


def p_dead(probabilities: NDArray[np.float32], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Return (N,) the probability that a crop is dead given that it is a cell, from (N, K) probabilities."""
    dead = probabilities[:, [name in DEAD_CLASSES for name in classes]].sum(axis=1, dtype=np.float64)
    live = probabilities[:, [name == CellClass.LIVE for name in classes]].sum(axis=1, dtype=np.float64)
    share: NDArray[np.float64] = np.clip(dead / np.maximum(dead + live, 1e-12), 0, 1)
    return share


def read_fields(
    fields: Iterable[LabeledField], classify: CellClassifier | None, settings: AnalysisSettings, scale: Scale
) -> list[FieldResult]:
    """Return each field as `assess` reads it, matched to its true cells.

    Parameters
    ----------
    fields : iterable of LabeledField
        With their true cells; one with an empty label is a cell that nobody could tell: it asks for
        nothing, and what is found there is not held against the reader.
    classify : CellClassifier or None
        None for the method `paper` as printed.
    settings : AnalysisSettings
        Of the station.
    scale : Scale
        Of all fields.
    """
    results = []
    for sequence, field in enumerate(fields):
        frame = Frame(field.image, NO_TIME, field.group, sequence, scale)
        reading = assess(frame, classify, settings)
        results.append(
            FieldResult(reading, match_reading(reading, field.cells, scale.um_per_px), field.group)
        )
    return results


def match_reading(reading: Reading, cells: tuple[TrueCell, ...], um_per_px: float) -> dict[str, Matches]:
    """Return the matches of a reading's cells with true cells: `live`, `dead`, and `any` of both."""
    found = np.array([[cell.row, cell.col] for cell in reading.cells]).reshape(-1, 2) * um_per_px
    true = np.array([[cell.row, cell.col] for cell in cells]).reshape(-1, 2) * um_per_px
    gate_um = match_gate_um([2 * cell.radius_px * um_per_px for cell in cells if cell.label])
    told = np.array([bool(cell.label) for cell in cells], bool)
    found_labels = np.array([cell.label for cell in reading.cells], np.str_)
    if len(found) and not told.all():
        distance = np.hypot(*np.moveaxis(found[:, None] - true[None], 2, 0))
        excused = (distance.min(axis=1) <= gate_um) & ~told[distance.argmin(axis=1)]
        found, found_labels = found[~excused], found_labels[~excused]
    true_labels = ["dead" if c.label in DEAD_CLASSES else str(c.label) for c in cells if c.label]
    by_class = match_classes(true[told], true_labels, found, [str(n) for n in found_labels], gate_um=gate_um)
    empty = Matches(np.zeros((0, 2), np.intp), 0, 0)
    return {
        **{name: by_class.get(name, empty) for name in ("live", "dead")},
        ANY: match_cells(true[told], found, gate_um=gate_um),
    }


def score_station(results: list[FieldResult], *, n_resamples: int = 500) -> StationScores:
    """Return the scores over all fields, with intervals over groups.

    Parameters
    ----------
    results : list of FieldResult
        From `read_fields`; may be empty.
    n_resamples : int
        Draws of the bootstrap.
    """
    detection, intervals = {}, {}
    for name in ("live", "dead", ANY):
        numbers = np.array(
            [(r.matches[name].tp, r.matches[name].fp, r.matches[name].fn) for r in results], int
        )
        numbers = numbers.reshape(-1, 3)

        def f1(index: NDArray[np.intp], numbers: NDArray[np.intp] = numbers) -> float | None:
            return detection_scores(*(int(n) for n in numbers[index].sum(axis=0))).f1

        detection[name] = detection_scores(*(int(n) for n in numbers.sum(axis=0)))
        intervals[name] = group_bootstrap([r.group for r in results], f1, n_resamples=n_resamples)
    true = [r.matches[ANY].n_true for r in results]
    found = [r.matches[ANY].n_found for r in results]
    return StationScores(
        n_fields=len(results),
        n_refused=sum(not r.reading.quality.passed for r in results),
        detection=detection,
        f1_ci95=intervals,
        counts=count_errors(true, found) if results else None,
    )


def scores_document(crops: BinaryScores, station: StationScores | None) -> dict[str, Any]:
    """Return what `evaluate --json` prints: scores on crops, and `station` with those of the whole path."""
    document: dict[str, Any] = asdict(crops)
    document["station"] = asdict(station) if station else None
    return document
