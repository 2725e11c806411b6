"""Whether a field can be read: what `light` and `texture` measured in it, against limits."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device.analysis.flatten import flatten
from device.analysis.light import measure_light
from device.analysis.pyramid import COARSEST_UM_PER_PX, FINEST_UM_PER_PX, Pyramid
from device.analysis.texture import Texture, measure_texture
from device.records import Assay, Modality, Quality, Reason, Scale

_MOVED_AND_BLURRED = 0.6  # of the limit of the anisotropy, where one measure of focus fails
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
    laplacian_fraction: float = 0.3
    """The Laplacian fails below this share of its reference, 0 to 1."""
    tenengrad_fraction: float = 0.5
    """Tenengrad fails below this share of its reference, 0 to 1; it falls with defocus more slowly."""
    slope_mads: float = 3.0
    """The slope fails when it lies more MADs than this below its reference, > 0."""
    clipped_high: float = 0.15
    """Largest share of pixels >= 254, 0 to 1; round cells alone saturate up to a tenth of a phase field."""
    glare: float = 0.01
    """Largest share of the field in saturated patches wider than a round cell, 0 to 1."""
    clipped_low: float = 0.005
    """Largest share of pixels <= 1, 0 to 1."""
    level_low: float = 0.1
    """Lowest median gray over 255, 0 to 1."""
    level_high: float = 0.9
    """Highest median gray over 255, 0 to 1."""
    flatness: float = 0.35
    """Largest (p95 - p5) / p50 of the background, > 0."""
    foreign: float = 0.1
    """Largest share of the field under bubbles, clumps and walls, 0 to 1."""
    noise: float = 0.1
    """Largest standard deviation of the pixel noise, relative contrast, > 0: half of what a spread cell
    shows. Not relative to the contrast of the field: healthy ones reach 0.85 of it where cells are few."""
    anisotropy: float | None = 4.5
    """Largest anisotropy, > 1; None tests no motion: ruled chambers and lens-shaped cells imitate it."""
    tint: float = 0.6
    """Largest distance of the color from gray, 0 to 1: a channel left out, or a filter in the way of a color
    camera, which then sees with a quarter or half of its pixels."""
    cells_min: int = 10
    """Fewer counted cells set the flag TOO_FEW_CELLS, >= 0."""

    def __post_init__(self) -> None:
        """Refuse limits that no field or every field would break."""
        shares = ["laplacian_fraction", "tenengrad_fraction", "clipped_high", "clipped_low", "glare"]
        shares += ["level_low", "level_high", "foreign", "tint"]
        positive = ("slope_mads", "flatness", "noise")
        below = f"less than level_high, {self.level_high}"
        checks = [(name, 0 <= getattr(self, name) <= 1, "0 to 1") for name in shares]
        checks += [(name, getattr(self, name) > 0, "more than 0") for name in positive]
        checks += [("level_low", self.level_low < self.level_high, below)]
        checks += [("cells_min", self.cells_min >= 0, "0 or more")]
        for name, fits, expected in checks:
            if not fits:
                raise ValueError(f"limits.{name} is {getattr(self, name)}; expected {expected}")


def limits_for(assay: Assay, modality: Modality, focus: FocusReference | None = None) -> QualityLimits:
    """Return the limits of an assay and modality.

    In chambers motion is not tested. Spread cells are so pale in brightfield that noise looks like them: of
    nothing but noise of 0.08 a model made 119 cells.
    """
    limits = QualityLimits(focus)
    if assay == "suspension":
        return replace(limits, anisotropy=None)
    return replace(limits, noise=0.05) if modality == "brightfield" else limits


def is_usable_scale(scale: Scale | None) -> bool:
    """Return whether cells can be counted at this scale: known, and 0.02 to 1.3 um/px."""
    return scale is not None and FINEST_UM_PER_PX <= scale.um_per_px <= COARSEST_UM_PER_PX


def measure_quality(
    pyramid: Pyramid,
    scale: Scale | None,
    limits: QualityLimits,
    *,
    relative: NDArray[np.uint8] | None = None,
    tint: float | None = None,
) -> Quality:
    """Return what the gate measured in one field and whether it passes: refused by every check that fails.

    Parameters
    ----------
    pyramid : Pyramid
        Of the frame; of a frame without a usable scale, built as if it were at working scale.
    scale : Scale or None
        Of the frame. Without a usable one the field is refused, and what depends on it is not measured.
    limits : QualityLimits
        With the focus reference of the modality.
    relative : (H, W) ndarray of uint8, optional
        `flatten` of the working image, where the caller has it.
    tint : float or None
        Of the frame.

    Notes
    -----
    Two of three focus measures must fail, because fields of round cells have other spectra than fields of
    spread ones.
    """
    light, texture = measure_light(pyramid), Texture()
    usable = is_usable_scale(scale)
    if usable and not light.flat:
        texture = measure_texture(flatten(pyramid) if relative is None else relative, pyramid.um_per_px)
    measured = {**asdict(light), **asdict(texture), "foreign": light.foreign if usable else None}
    del measured["flat"]
    n_blurred = _count_blurred(texture, limits)
    checks = (
        (Reason.NO_CALIBRATION, scale is None),
        (Reason.SCALE_OUT_OF_RANGE, scale is not None and not usable),
        (Reason.FLAT_IMAGE, light.flat),
        (Reason.OVEREXPOSED, light.clipped_high > limits.clipped_high or light.glare > limits.glare),
        (Reason.UNDEREXPOSED, light.clipped_low > limits.clipped_low),
        (Reason.EXPOSURE, not limits.level_low <= light.level <= limits.level_high),
        (Reason.UNEVEN_LIGHT, light.flatness is None or light.flatness > limits.flatness),
        (Reason.TINT, tint is not None and tint > limits.tint),
        (Reason.FOREIGN_MATTER, usable and light.foreign > limits.foreign),
        (Reason.BLUR, n_blurred >= 2),
        (Reason.NOISY, (texture.noise or 0.0) > limits.noise),
        (Reason.MOTION, _moved(texture, limits, n_blurred)),
    )
    refused_by = tuple(reason for reason, fails in checks if fails)
    return replace(
        unreadable_quality(scale, Reason.UNREADABLE_IMAGE),  # until every field is measured
        passed=not refused_by,
        refused_by=refused_by,
        flags=(Reason.SCALE_ASSUMED,) if scale is not None and scale.source == "assumed" else (),
        tint=tint,
        **measured,
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


def _count_blurred(texture: Texture, limits: QualityLimits) -> int:
    """Return how many of the three focus measures fail."""
    reference = limits.focus
    if reference is None:
        return 0
    least = {
        "focus_laplacian": limits.laplacian_fraction * reference.focus_laplacian,
        "focus_tenengrad": limits.tenengrad_fraction * reference.focus_tenengrad,
        "focus_slope": reference.focus_slope - limits.slope_mads * reference.focus_slope_mad,
    }
    found = [(getattr(texture, name), low) for name, low in least.items()]
    return len([value for value, low in found if value is not None and value < low])


def _moved(texture: Texture, limits: QualityLimits, n_blurred: int) -> bool:
    """Return whether the field moved: far motion fills the spectrum with noise but fails a focus measure."""
    if limits.anisotropy is None or texture.anisotropy is None:
        return False
    return texture.anisotropy > limits.anisotropy * (_MOVED_AND_BLURRED if n_blurred else 1.0)
