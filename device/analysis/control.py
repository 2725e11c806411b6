"""What a station's fields measure when all is well, and whether it still is: the statistics of `qc run`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
            edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
            histograms[name] = Histogram(tuple(edges.tolist()), _count(values, edges))
    return Learned(len(fields), spreads, histograms)


def limits_of(name: str, spread: Spread) -> tuple[float | None, float | None]:
    """Return between what a run's median must lie, None where that side is not watched."""
    reach, watched = LIMIT * spread.deviation, WATCHED[name]
    return (
        spread.median - reach if watched.low else None,
        spread.median + reach if watched.high else None,
    )


def compare(fields: Sequence[Seen], learned: Learned) -> Comparison:
    """Return how the accepted fields of a run, at least one, stand against the baseline."""
    medians = {name: float(np.median([field.measures[name] for field in fields])) for name in WATCHED}
    out = []
    for name, median in medians.items():
        low, high = limits_of(name, learned.spreads[name])
        if (low is not None and median < low) or (high is not None and median > high):
            out.append(name)
    psi = {}
    for name, values in _pool(fields).items():
        before = learned.histograms.get(name)
        if before is not None and values.size >= CELLS_MIN:
            psi[name] = stability_index(before.counts, _count(values, np.array(before.edges)))
    return Comparison(medians, tuple(out), psi)


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


def _count(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[int, ...]:
    bins = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return tuple(int(count) for count in bins)
