"""Whether a field can be read: focus, exposure, level, flatness and scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import Pyramid
from device.records import Modality, Quality, Scale


@dataclass(frozen=True, slots=True)
class FocusReference:
    """What sharp fields of one modality measure; stands in the model card as `reference_quality`."""

    focus_laplacian: float
    """Median of Quality.focus_laplacian over accepted fields, > 0."""
    focus_tenengrad: float
    """Median of Quality.focus_tenengrad over accepted fields, > 0."""
    focus_slope: float
    """Median of Quality.focus_slope over accepted fields, < 0."""
    focus_slope_mad: float
    """Median absolute deviation of the slope, times 1.4826, > 0."""


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """Limits of the gate; each field one line: meaning, unit, range."""

    focus: FocusReference | None = None
    """References of the focus measures; None tests no focus."""
    focus_fraction: float = 0.4
    """A focus measure fails below this share of its reference, 0 to 1."""
    focus_slope_mads: float = 3.0
    """The slope fails when it lies more MADs than this below its reference, > 0."""
    clipped_high: float = 0.05
    """Largest share of pixels >= 254, 0 to 1."""
    clipped_low: float = 0.005
    """Largest share of pixels <= 1, 0 to 1."""
    level_low: float = 0.1
    """Lowest median gray over 255, 0 to 1."""
    level_high: float = 0.9
    """Highest median gray over 255, 0 to 1."""
    flatness: float = 0.35
    """Largest (p95 - p5) / p50 of the background, > 0."""
    cells_min: int = 10
    """Fewer cells set the flag TOO_FEW_CELLS, >= 0."""


def measure_quality(
    image: NDArray[np.uint8],
    pyramid: Pyramid | None,
    scale: Scale | None,
    limits: QualityLimits,
    modality: Modality,
) -> Quality:
    """Return what the gate measured in one field and whether it passes."""
    raise NotImplementedError


def reference_from(qualities: list[Quality]) -> FocusReference:
    """Return the focus reference of fields that a person accepted as sharp."""
    raise NotImplementedError
