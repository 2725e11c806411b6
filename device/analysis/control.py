"""What a station's fields measure when all is well, and whether they still do: figures and chart of `qc`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.quality import FocusReference
from device.records import Reading, Reason

FIELDS_MIN = 30
"""Accepted fields that a baseline is learned from."""
LIMIT = 3.0
"""A run is out of control beyond this many deviations from the baseline's median."""
CELLS_MIN = 200
"""With fewer cells on either side a drift of their histograms would be chance."""
DRIFT_ABOVE = 0.25
"""Population stability index from which a histogram has drifted."""
_BINS = 10

_PANEL_PX = (260, 460)
_MARGIN_PX = (44, 30, 60, 16)  # top, bottom, left, right
_BLACK, _GRAY, _GREEN, _RED = (30,) * 3, (190,) * 3, (115, 158, 0), (0, 94, 213)
_RUNS = 40  # the newest runs are drawn


@dataclass(frozen=True, slots=True)
class Watched:
    """One charted number of `Quality`: which sides are watched, and the least deviation that is believed."""

    low: bool
    high: bool
    floor: float
    """In units of the number, or of its median where `relative`."""
    relative: bool = False


WATCHED: dict[str, Watched] = {
    "focus_laplacian": Watched(low=True, high=False, floor=0.1, relative=True),
    "focus_tenengrad": Watched(low=True, high=False, floor=0.1, relative=True),
    "focus_slope": Watched(low=True, high=False, floor=0.1),
    "level": Watched(low=True, high=True, floor=0.01),
    "flatness": Watched(low=False, high=True, floor=0.02),
    "noise": Watched(low=False, high=True, floor=0.1, relative=True),
}
COUNTED = ("area_um2", "p_dead")
"""Numbers of `Cell` whose histograms are compared; p_dead bin by bin is the logit's histogram."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an accepted field adds to a run: its watched numbers, and the counted ones of its cells."""

    measures: Mapping[str, float]
    cells: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of a number over accepted fields, and its deviation: 1.4826 MAD, at least the floor."""

    median: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How cells spread over ten bins that held a tenth of them each when the baseline was learned."""

    edges: tuple[float, ...]
    """Between the bins, ascending; fewer than nine where cells have equal numbers."""
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """What fields measure when all is well."""

    n_fields: int
    spreads: Mapping[str, Spread]
    histograms: Mapping[str, Histogram]
    """Of `COUNTED`; without those that too few cells had."""

    @property
    def focus(self) -> FocusReference:
        """The reference of the quality gate in place of the model card's."""
        laplacian, tenengrad = self.spreads["focus_laplacian"], self.spreads["focus_tenengrad"]
        slope = self.spreads["focus_slope"]
        return FocusReference(laplacian.median, tenengrad.median, slope.median, slope.deviation)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run against the baseline."""

    medians: Mapping[str, float]
    out: tuple[str, ...]
    """Watched numbers that are out of control."""
    psi: Mapping[str, float]
    """Population stability index of each counted number that both sides have enough of."""

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """DRIFT where an index is above its limit."""
        return (Reason.DRIFT,) * any(index > DRIFT_ABOVE for index in self.psi.values())


@dataclass(frozen=True, slots=True)
class ControlRun:
    """One control run, as it is kept."""

    at: str
    """RFC 3339, UTC."""
    n_fields: int
    n_refused: int
    comparison: Comparison | None
    """Null while the baseline is learned, and where no field was accepted."""


def see_field(reading: Reading) -> Seen | None:
    """Return what a field adds to a run, None where it was refused or lacks a watched number."""
    measures = {name: getattr(reading.quality, name) for name in WATCHED}
    if not reading.quality.passed or None in measures.values():
        return None
    cells = {name: tuple(getattr(cell, name) for cell in reading.cells) for name in COUNTED}
    return Seen(measures, {name: values for name, values in cells.items() if None not in values})


def learn(fields: Sequence[Seen]) -> Learned:
    """Return what accepted fields say; ValueError with fewer than 30."""
    if len(fields) < FIELDS_MIN:
        raise ValueError(f"{len(fields)} fields; expected {FIELDS_MIN} or more accepted ones")
    spreads = {}
    for name, watched in WATCHED.items():
        values = np.array([field.measures[name] for field in fields])
        median = float(np.median(values))
        floor = watched.floor * (abs(median) if watched.relative else 1.0)
        spreads[name] = Spread(median, max(1.4826 * float(np.median(np.abs(values - median))), floor))
    histograms = {}
    for name, values in _pool(fields).items():
        if values.size >= CELLS_MIN:
            edges = tuple(np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])).tolist())
            histograms[name] = Histogram(edges, _count(values, edges))
    return Learned(len(fields), spreads, histograms)


def limits_of(name: str, spread: Spread) -> tuple[float, float]:
    """Return between what a run's median must lie, infinite where that side is not watched."""
    reach, watched = LIMIT * spread.deviation, WATCHED[name]
    low = spread.median - reach if watched.low else -math.inf
    return low, spread.median + reach if watched.high else math.inf


def compare(fields: Sequence[Seen], learned: Learned) -> Comparison:
    """Return how the accepted fields of a run, at least one, stand against the baseline."""
    medians = {name: float(np.median([field.measures[name] for field in fields])) for name in WATCHED}
    limits = {name: limits_of(name, learned.spreads[name]) for name in medians}
    out = tuple(name for name, (low, high) in limits.items() if not low <= medians[name] <= high)
    psi = {
        name: stability_index(learned.histograms[name].counts, _count(values, learned.histograms[name].edges))
        for name, values in _pool(fields).items()
        if name in learned.histograms and values.size >= CELLS_MIN
    }
    return Comparison(medians, out, psi)


def stability_index(before: Sequence[int], now: Sequence[int]) -> float:
    """Return the population stability index of two histograms: 0 for equal shares, over 0.25 a drift.

    Half a count is added to each bin, so that an empty one gives no infinity.
    """
    shares = [(np.array(counts) + 0.5) / (sum(counts) + 0.5 * len(counts)) for counts in (before, now)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _pool(fields: Sequence[Seen]) -> dict[str, NDArray[np.float64]]:
    return {
        name: np.array([v for field in fields for v in field.cells.get(name, ())], float) for name in COUNTED
    }


def _count(values: NDArray[np.float64], edges: Sequence[float]) -> tuple[int, ...]:
    bins = np.searchsorted(np.array(edges), values, side="right")
    return tuple(np.bincount(bins, minlength=len(edges) + 1).tolist())


def draw_control_chart(runs: Sequence[ControlRun], learned: Learned) -> NDArray[np.uint8]:
    """Return the chart of the newest runs as a BGR picture, in their order.

    A run in control is a green disk, one out of control a red cross; dashed lines are the limits.
    """
    compared = [(run.at, run.comparison) for run in runs if run.comparison is not None][-_RUNS:]
    panels = [_draw_panel(name, [found for _, found in compared], learned) for name in WATCHED]
    rows = [np.hstack(panels[start : start + 3]) for start in (0, 3)]
    foot = np.full((30, rows[0].shape[1], 3), 255, np.uint8)
    when = f"{compared[0][0][:10]} to {compared[-1][0][:10]}, " if compared else ""
    text = f"{when}{len(compared)} runs, baseline of {learned.n_fields} fields; for research use only"
    _write(foot, text, (16, 18))
    return np.vstack([*rows, foot])


def _draw_panel(name: str, runs: Sequence[Comparison], learned: Learned) -> NDArray[np.uint8]:
    picture = np.full((*_PANEL_PX, 3), 255, np.uint8)
    spread = learned.spreads[name]
    values = [run.medians[name] for run in runs]
    limits = [limit for limit in limits_of(name, spread) if math.isfinite(limit)]
    shown = [*values, *limits, spread.median - spread.deviation, spread.median + spread.deviation]
    low, high = min(shown), max(shown)
    top, bottom, left, right = _MARGIN_PX
    height, width = _PANEL_PX[0] - top - bottom, _PANEL_PX[1] - left - right

    def row_of(value: float) -> int:
        return top + round(height * (0.92 - 0.84 * (value - low) / (high - low)))

    cv2.rectangle(picture, (left, top), (left + width, top + height), _GRAY)
    _write(picture, name.replace("_", " "), (left, top - 14), 0.55)
    for value, dashed in [(spread.median, False), *((limit, True) for limit in limits)]:
        row, step = row_of(value), 10 if dashed else width
        for start in range(left, left + width, step):
            cv2.line(picture, (start, row), (min(start + step // (1 + dashed), left + width), row), _BLACK)
        _write(picture, f"{value:.3g}", (6, row + 4))
    places = [
        (left + round(width * (i + 0.5) / max(len(runs), 1)), row_of(value)) for i, value in enumerate(values)
    ]
    cv2.polylines(picture, [np.array(places, np.int32).reshape(-1, 1, 2)], False, _GRAY, 1, cv2.LINE_AA)
    for place, run in zip(places, runs, strict=True):
        if name in run.out:
            cv2.drawMarker(picture, place, _RED, cv2.MARKER_TILTED_CROSS, 13, 3, cv2.LINE_AA)
        else:
            cv2.circle(picture, place, 4, _GREEN, cv2.FILLED, cv2.LINE_AA)
    return picture


def _write(picture: NDArray[np.uint8], text: str, place: tuple[int, int], size: float = 0.4) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, _BLACK, 1, cv2.LINE_AA)
