"""Whether a field can be read: focus, exposure, level, flatness and scale."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.flatten import estimate_coarse_background, flatten
from device.analysis.pyramid import COARSEST_UM_PER_PX, FINEST_UM_PER_PX, Pyramid
from device.records import Quality, Reason, Scale

Focus = tuple[float | None, float | None, float | None]
"""Laplacian, Tenengrad and slope."""
_FOCUS_SIGMA_UM = 0.5
_SLOPE_BAND = (0.02, 0.35)  # cycles/px at working scale: between cells and sensor noise
_SLOPE_BINS = 16
_SPECTRUM_PX = 512  # the middle of a larger field is enough
_SPECTRUM_MIN_PX = 32
_FLAT_RANGE = 2  # gray levels between the 0.1 and 99.9 percentile of an image without content
_SLOPE_MAD_MIN = 0.1  # a handful of like fields must not make the gate pickier than the measure is exact


@dataclass(frozen=True, slots=True)
class FocusReference:
    """What sharp fields of one modality measure; stands in the model card as `reference_quality`."""

    focus_laplacian: float
    """Median of Quality.focus_laplacian over accepted fields, > 0."""
    focus_tenengrad: float
    """Median of Quality.focus_tenengrad over accepted fields, > 0."""
    focus_slope: float
    """Median of Quality.focus_slope over accepted fields."""
    focus_slope_mad: float
    """Median absolute deviation of the slope, times 1.4826, > 0."""


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """Limits of the gate; each field one line: meaning, unit, range."""

    focus: FocusReference | None = None
    """References of the focus measures; None tests no focus."""
    laplacian_fraction: float = 0.4
    """The Laplacian fails below this share of its reference, 0 to 1."""
    tenengrad_fraction: float = 0.6
    """Tenengrad fails below this share of its reference, 0 to 1; it falls with defocus more slowly."""
    slope_mads: float = 3.0
    """The slope fails when it lies more MADs than this below its reference, > 0."""
    clipped_high: float = 0.15
    """Largest share of pixels >= 254, 0 to 1; round cells alone saturate up to a tenth of a phase field."""
    clipped_low: float = 0.005
    """Largest share of pixels <= 1, 0 to 1."""
    level_low: float = 0.1
    """Lowest median gray over 255, 0 to 1."""
    level_high: float = 0.9
    """Highest median gray over 255, 0 to 1."""
    flatness: float = 0.35
    """Largest (p95 - p5) / p50 of the background, > 0."""
    cells_min: int = 10
    """Fewer counted cells set the flag TOO_FEW_CELLS, >= 0."""

    def __post_init__(self) -> None:
        """Refuse limits that no field or every field would break."""
        shares = ["laplacian_fraction", "tenengrad_fraction", "clipped_high", "clipped_low"]
        shares += ["level_low", "level_high"]
        below = f"less than level_high, {self.level_high}"
        checks = [(name, 0 <= getattr(self, name) <= 1, "0 to 1") for name in shares]
        checks += [(name, getattr(self, name) > 0, "more than 0") for name in ("slope_mads", "flatness")]
        checks += [("level_low", self.level_low < self.level_high, below)]
        checks += [("cells_min", self.cells_min >= 0, "0 or more")]
        for name, fits, expected in checks:
            if not fits:
                raise ValueError(f"limits.{name} is {getattr(self, name)}; expected {expected}")


def is_usable_scale(scale: Scale | None) -> bool:
    """Return whether cells can be counted at this scale: known, and 0.02 to 1.3 um/px."""
    return scale is not None and FINEST_UM_PER_PX <= scale.um_per_px <= COARSEST_UM_PER_PX


def measure_quality(
    pyramid: Pyramid,
    scale: Scale | None,
    limits: QualityLimits,
    *,
    relative: NDArray[np.uint8] | None = None,
) -> Quality:
    """Return what the gate measured in one field and whether it passes: refused by every check that fails.

    Parameters
    ----------
    pyramid : Pyramid
        Of the frame; of a frame without a usable scale, built as if it were at working scale.
    scale : Scale or None
        Of the frame. Without a usable one the field is refused and focus is not measured.
    limits : QualityLimits
        With the focus reference of the modality.
    relative : (H, W) ndarray of uint8, optional
        `flatten` of the working image, where the caller has it.

    Notes
    -----
    Focus measures are divided by the contrast variance, so that cell density does not matter; two of three
    must fail, because fields of round cells have other spectra than fields of spread ones.
    """
    step = max(1, round(pyramid.zoom))
    sample = pyramid.levels[0][::step, ::step]
    below = np.cumsum(np.bincount(sample.ravel(), minlength=256))  # pixels at or below each gray level
    darkest, brightest = np.searchsorted(below, (0.001 * below[255], 0.999 * below[255]))
    flat = bool(brightest - darkest <= _FLAT_RANGE)
    clipped_high, clipped_low = float((below[255] - below[253]) / below[255]), float(below[1] / below[255])
    level = int(np.searchsorted(below, below[255] / 2)) / 255
    coarse = estimate_coarse_background(pyramid)
    low, middle, high = (float(value) for value in np.percentile(coarse, (5, 50, 95)))
    focus: Focus = (None, None, None)
    if is_usable_scale(scale) and not flat:
        relative = flatten(pyramid) if relative is None else relative
        focus = measure_focus(
            (relative.astype(np.float32) - np.float32(128)) / np.float32(127), pyramid.um_per_px
        )
    flatness = (high - low) / middle if middle > 0 else None
    checks = (
        (Reason.NO_CALIBRATION, scale is None),
        (Reason.SCALE_OUT_OF_RANGE, scale is not None and not is_usable_scale(scale)),
        (Reason.FLAT_IMAGE, flat),
        (Reason.OVEREXPOSED, clipped_high > limits.clipped_high),
        (Reason.UNDEREXPOSED, clipped_low > limits.clipped_low),
        (Reason.EXPOSURE, not limits.level_low <= level <= limits.level_high),
        (Reason.UNEVEN_LIGHT, flatness is None or flatness > limits.flatness),
        (Reason.BLUR, _is_blurred(focus, limits)),
    )
    refused_by = tuple(reason for reason, fails in checks if fails)
    return replace(
        unreadable_quality(scale, Reason.UNREADABLE_IMAGE),  # until every field below is measured
        passed=not refused_by,
        refused_by=refused_by,
        flags=(Reason.SCALE_ASSUMED,) if scale is not None and scale.source == "assumed" else (),
        focus_laplacian=focus[0],
        focus_tenengrad=focus[1],
        focus_slope=focus[2],
        clipped_high=clipped_high,
        clipped_low=clipped_low,
        level=level,
        flatness=flatness,
    )


def unreadable_quality(scale: Scale | None, reason: Reason) -> Quality:
    """Return the quality of a field that cannot be read: refused because of `reason`, nothing measured."""
    return Quality(
        passed=False,
        refused_by=(reason,),
        flags=(),
        focus_laplacian=None,
        focus_tenengrad=None,
        focus_slope=None,
        clipped_high=0.0,
        clipped_low=0.0,
        level=0.0,
        flatness=None,
        um_per_px=scale.um_per_px if scale is not None and math.isfinite(scale.um_per_px) else None,
        um_per_px_source=None if scale is None else scale.source,
    )


def measure_focus(relative: NDArray[np.float32], um_per_px: float) -> Focus:
    """Return Laplacian variance and Tenengrad over contrast variance, and the slope of the spectrum.

    Of the (H, W) relative contrast at working scale; all lower when blurred. None without contrast, or where
    a side under 32 px has no spectrum.
    """
    contrast = float(np.square(relative).mean())
    if contrast <= 0:
        return None, None, None
    smooth = cv2.GaussianBlur(relative, (0, 0), _FOCUS_SIGMA_UM / um_per_px)
    laplacian = float(cv2.Laplacian(smooth, cv2.CV_32F).var()) / contrast
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    right = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    tenengrad = float((down * down + right * right).mean()) / contrast
    return laplacian, tenengrad, _measure_slope(relative)


def reference_from(qualities: Iterable[Quality]) -> FocusReference:
    """Return the focus reference of fields that are known to be sharp: medians, and the MAD of the slope.

    ValueError if no field has all three focus measures.
    """
    measures = [(q.focus_laplacian, q.focus_tenengrad, q.focus_slope) for q in qualities]
    table = np.array([values for values in measures if None not in values], float)
    if not table.size:
        raise ValueError("no field has focus measures; expected at least one sharp field of known scale")
    laplacian, tenengrad, slope = (float(value) for value in np.median(table, axis=0))
    mad = 1.4826 * float(np.median(np.abs(table[:, 2] - slope)))
    return FocusReference(laplacian, tenengrad, slope, max(mad, _SLOPE_MAD_MIN))


def _is_blurred(focus: Focus, limits: QualityLimits) -> bool:
    reference = limits.focus
    if reference is None:
        return False
    least = (
        limits.laplacian_fraction * reference.focus_laplacian,
        limits.tenengrad_fraction * reference.focus_tenengrad,
        reference.focus_slope - limits.slope_mads * reference.focus_slope_mad,
    )
    return sum(value is not None and value < low for value, low in zip(focus, least, strict=True)) >= 2


def _measure_slope(relative: NDArray[np.float32]) -> float | None:
    """Return the slope of log power over log frequency; -3 or lower when blurred."""
    rows, cols = (min(side, _SPECTRUM_PX) for side in relative.shape)
    if min(rows, cols) < _SPECTRUM_MIN_PX:
        return None
    top, left = (relative.shape[0] - rows) // 2, (relative.shape[1] - cols) // 2
    middle = relative[top : top + rows, left : left + cols]
    window, rings, counts = _spectrum_grid(rows, cols)
    spectrum = cv2.dft((middle - middle.mean()) * window, flags=cv2.DFT_COMPLEX_OUTPUT)
    power = np.square(spectrum).sum(axis=2)
    sums = np.bincount(rings, power.ravel(), _SLOPE_BINS + 2)[1:-1]
    used = counts > 0
    edges = np.geomspace(*_SLOPE_BAND, _SLOPE_BINS + 1)
    centers = np.log(np.sqrt(edges[1:] * edges[:-1]))[used]
    levels = np.log(sums[used] / counts[used] + 1e-12)
    offsets = centers - centers.mean()
    return float((offsets * levels).sum() / (offsets * offsets).sum())


@lru_cache(maxsize=4)
def _spectrum_grid(rows: int, cols: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.intp]]:
    """Return the Hann window, the frequency ring of each pixel of a spectrum, and the size of each ring."""
    window = np.outer(np.hanning(rows), np.hanning(cols)).astype(np.float32)
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(cols)[None, :])
    rings = np.digitize(frequency.ravel(), np.geomspace(*_SLOPE_BAND, _SLOPE_BINS + 1)).astype(np.uint8)
    return window, rings, np.bincount(rings, minlength=_SLOPE_BINS + 2)[1:-1]
