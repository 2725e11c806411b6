"""How good a run or bundle is on a dataset: on crops of true cells, and over the station's whole path."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.analysis.assess import AnalysisSettings, assess
from device.analysis.judgment import CellClassifier
from device.records import DEAD_CLASSES, NO_LABELS, CellClass, Frame, Interval, Reading, Scale
from training.dataset import FIELD_LABELS, TrueCell
from training.dataset.samples import Samples
from training.evaluation.binary import BinaryScores, binary_scores
from training.evaluation.counts import CountErrors, count_errors
from training.evaluation.detection import (
    DetectionScores,
    Matches,
    match_cells,
    match_classes,
    match_gate_um,
    pool_matches,
)
from training.evaluation.resampling import group_bootstrap
from training.labeling import LabeledField

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives (N, K) probabilities of (N, 28, 28) crops."""
ANY = "any"
"""Key of the scores that ask only whether there is a cell, whatever its class."""
CLASSES = ("live", "dead", ANY)
MOSAIC_TILES = 16
"""Tiles of a chamber that make about one field of view: some 55 cells."""
_N_MOSAICS = 200
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class FieldResult:
    """One field read by the station's path, matched to its truth."""

    reading: Reading
    """Without its labels: thousands of results are held at a time."""
    matches: dict[str, Matches]
    """By `live`, `dead` and `any`."""
    group: str
    called: Counter[tuple[str, str]]
    """Number of cells found by true and found class, `live` or `dead`."""


Statistic = Callable[[Sequence[FieldResult]], float | None]
"""Gives a figure of some fields, None where it does not exist for them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval, and how many cells it stands on."""

    value: float | None
    interval: Interval | None
    n: int
    what: str
    """What was counted to `n`, in the plural."""
    digits: int = 2

    def __str__(self) -> str:
        if self.value is None:
            return f"none ({self.n} {self.what})"
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        of = "no interval" if low is None else f"95 % {low:.{self.digits}f}-{high:.{self.digits}f}"
        return f"{self.value:.{self.digits}f} ({of}, {self.n} {self.what})"


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
    viability_mae: float | None
    """Mean absolute error of the live share of mosaics of 16 fields drawn with replacement, 0 to 1."""


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
        matches, called = match_reading(reading, field.cells, scale.um_per_px)
        results.append(FieldResult(replace(reading, labels=NO_LABELS), matches, field.group, called))
    return results


def match_reading(
    reading: Reading, cells: tuple[TrueCell, ...], um_per_px: float
) -> tuple[dict[str, Matches], Counter[tuple[str, str]]]:
    """Return matches of a reading's cells with true ones (`live`, `dead`, `any`), and who was called what."""
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
    anything = match_cells(true[told], found, gate_um=gate_um)
    called = Counter((true_labels[i], str(found_labels[j])) for i, j in anything.pairs)
    return {**{name: by_class.get(name, empty) for name in ("live", "dead")}, ANY: anything}, called


def score_station(results: list[FieldResult], *, n_resamples: int = 500) -> StationScores:
    """Return the scores over all fields, with intervals over groups.

    Parameters
    ----------
    results : list of FieldResult
        From `read_fields`; may be empty.
    n_resamples : int
        Draws of the bootstrap.
    """
    intervals = {name: figure([results], f1_of(name), n_resamples=n_resamples).interval for name in CLASSES}
    true = [r.matches[ANY].n_true for r in results]
    found = [r.matches[ANY].n_found for r in results]
    return StationScores(
        n_fields=len(results),
        n_refused=sum(not r.reading.quality.passed for r in results),
        detection={name: pool_matches(r.matches[name] for r in results) for name in CLASSES},
        f1_ci95=intervals,
        counts=count_errors(true, found) if results else None,
        viability_mae=viability_mae(results),
    )


def figure(
    runs: Sequence[Sequence[FieldResult]],
    statistic: Statistic,
    *,
    n: int = 0,
    what: str = "",
    digits: int = 2,
    n_resamples: int = 500,
) -> Figure:
    """Return the mean of a statistic over runs, such as seeds of a model, with an interval over groups.

    Parameters
    ----------
    runs : sequence of sequences of FieldResult
        At least one; each has the same fields in the same order.
    statistic : Statistic
        Such as `f1_of("dead")`.
    n, what, digits
        As in `Figure`.
    n_resamples : int
        Draws of the bootstrap.

    Raises
    ------
    ValueError
        If the runs are of different fields.
    """
    groups = [result.group for result in runs[0]]
    if any([result.group for result in run] != groups for run in runs):
        raise ValueError("runs are of different fields; expected the same fields read by each model")

    def mean(index: Iterable[int]) -> float | None:
        chosen = list(index)
        values = [statistic([run[i] for i in chosen]) for run in runs]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else None

    interval = group_bootstrap(groups, mean, n_resamples=n_resamples)
    return Figure(mean(range(len(groups))), interval, n, what, digits)


def f1_of(name: str) -> Statistic:
    """Return the statistic F1 of `live`, `dead` or `any`."""
    return lambda results: pool_matches(result.matches[name] for result in results).f1


def recall_of(name: str) -> Statistic:
    """Return the statistic recall of `live`, `dead` or `any`."""
    return lambda results: pool_matches(result.matches[name] for result in results).recall


def count_mae(results: Sequence[FieldResult], name: str = ANY) -> float | None:
    """Return the mean absolute error of the number of cells a field."""
    off = [abs(result.matches[name].n_found - result.matches[name].n_true) for result in results]
    return sum(off) / len(off) if off else None


def dead_mape(results: Sequence[FieldResult]) -> float | None:
    """Return the mean relative error of the number of dead cells over fields with at least five."""
    dead = [result.matches["dead"] for result in results]
    return count_errors([m.n_true for m in dead], [m.n_found for m in dead]).mape if dead else None


def share_called_dead(results: Sequence[FieldResult]) -> float | None:
    """Return the share of live cells, among those found, that were called dead."""
    called = sum((result.called for result in results), Counter[tuple[str, str]]())
    wrong, right = called["live", "dead"], called["live", "live"]
    return wrong / (wrong + right) if wrong + right else None


def viability_mae(results: Sequence[FieldResult]) -> float | None:
    """Return the mean absolute error of the live share of mosaics of 16 fields drawn with replacement."""
    counts = np.array(
        [[(m.n_true, m.n_found) for m in (r.matches["live"], r.matches["dead"])] for r in results], float
    )
    if not len(counts):
        return None
    draws = np.random.default_rng(0).integers(len(counts), size=(_N_MOSAICS, MOSAIC_TILES))
    live, dead = np.moveaxis(counts[draws].sum(axis=1), 1, 0)
    usable = (live + dead > 0).all(axis=1)
    share = live[usable] / (live + dead)[usable]
    return float(np.abs(share[:, 0] - share[:, 1]).mean()) if usable.any() else None


def scores_document(crops: BinaryScores, station: StationScores | None) -> dict[str, Any]:
    """Return what `evaluate --json` prints: scores on crops, and `station` with those of the whole path."""
    document: dict[str, Any] = asdict(crops)
    document["station"] = asdict(station) if station else None
    return document
