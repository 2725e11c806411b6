"""The period of a ruled slide, such as a stage micrometer: how many pixels lie between two of its lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pattern = Literal["lines", "grid"]

PERIODS_MIN = 5
"""Fewer periods in view give no period to trust."""
_FINEST_PX = 3.0
_COARSE_PX = 1024
"""The spectrum is looked at in a square of at most this side; the fit uses all of the image."""
_PROMINENT = 40.0
"""A ruling's peak is higher than the mean of the spectrum's amplitudes by this factor; noise reaches 10."""
_HARMONICS = 4
_SAME_STRENGTH = 0.3
_STRAY_RAD = 0.7
"""Lines are straight and evenly spaced if phases differ from the fit by less, root mean square."""
_CORRELATED = 4.0
"""Neighboring phases stand on the same pixels: so many of them count as one, in the uncertainty."""
_UNSURE = 0.01
"""Largest relative uncertainty: a ruling gives 0.3 % at worst, a field of cells that looks like one 2 %."""
_EDGES = 0.08
"""Least relative uncertainty, times the square of the periods in view: cut periods at the borders leak into
the phases, by 0.1 % where six are in view and 0.02 % where a dozen are (measured on drawn rulings)."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Period:
    """Distance of the lines of a ruling in an image."""

    period_px: float
    uncertainty_px: float
    """Standard uncertainty of the fit: how unevenly the lines lie, and the noise."""
    angle_deg: float
    """Direction across the lines, from the columns' axis, -90 to 90."""
    n_periods: float
    """Periods in view, along that direction."""


def measure_period(image: NDArray[np.uint8], pattern: Pattern = "lines") -> Period:
    """Return the distance of the lines in an (M, N) gray image of a ruling; of a grid the mean of both ways.

    Notes
    -----
    The highest peak of the spectrum gives the period to a bin, or a harmonic of it. Then the image is mixed
    with a wave of that period, and the phase that remains is fitted with a plane: its slope is what the wave
    was off by, its residual how unevenly the lines lie.

    Raises
    ------
    ValueError
        If the image shows no such ruling, or fewer than 5 periods of it.
    """
    if image.ndim != 2 or min(image.shape) < 64:
        raise ValueError(f"the image is {image.shape}; expected gray, 64 px or more a side")
    real = _without_slope(image.astype(np.float32))
    waves = _find_waves(real, 1 if pattern == "lines" else 2)
    periods = [_refine(real, wave) for wave in waves]
    mean = sum(p.period_px for p in periods) / len(periods)
    spread = abs(periods[0].period_px - periods[-1].period_px) / 2
    if spread > 0.03 * mean:
        raise ValueError(
            f"lines lie {periods[0].period_px:.2f} px apart one way and {periods[-1].period_px:.2f} px the "
            "other; expected a square grid; for lines one way say so"
        )
    uncertainty = math.hypot(*(p.uncertainty_px for p in periods), spread) / len(periods)
    if uncertainty > _UNSURE * mean:
        raise ValueError(
            f"lines {mean:.1f} px apart are known to {uncertainty / mean:.1%} only; expected {_UNSURE:.0%} "
            "or better: straight, evenly spaced lines in focus, and nothing else in view"
        )
    return Period(mean, uncertainty, periods[0].angle_deg, min(p.n_periods for p in periods))


def _without_slope(real: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image less its mean and its slope along both axes, which would look like a wide ruling."""
    rows, cols = (np.linspace(-1, 1, side, dtype=np.float32) for side in real.shape)
    level = real - real.mean()
    down, across = (float((level.mean(axis=1 - i) * axis).mean()) * 3 for i, axis in enumerate((rows, cols)))
    return np.asarray(level - down * rows[:, None] - across * cols[None, :], np.float32)


def join_periods(periods: Sequence[Period]) -> Period:
    """Return the mean of several images, with the larger of its scatter and of what each is unsure of."""
    values = np.array([p.period_px for p in periods])
    alone = max(p.uncertainty_px for p in periods) / math.sqrt(len(periods))
    scatter = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    first = periods[0]
    n_periods = min(p.n_periods for p in periods)
    return Period(float(values.mean()), max(alone, scatter), first.angle_deg, n_periods)


def _find_waves(real: NDArray[np.float32], count: int) -> list[Vector]:
    """Return the frequency (rows, columns; cycles/px) of `count` rulings at right angles, to half a bin."""
    side = min(_COARSE_PX, *real.shape)
    top, left = (real.shape[0] - side) // 2, (real.shape[1] - side) // 2
    window = np.hanning(side)
    square = real[top : top + side, left : left + side]
    whole = np.abs(np.fft.rfft2(square * np.outer(window, window)))
    found = whole.copy()
    rows, cols = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    size = np.hypot(rows, cols)
    found[(size < PERIODS_MIN / side) | (size > 1 / _FINEST_PX)] = 0.0
    waves: list[Vector] = []
    floor = float(found[found > 0].mean()) if found.any() else 0.0
    for _ in range(count):
        peak = np.unravel_index(int(found.argmax()), found.shape)
        if found[peak] <= _PROMINENT * floor or floor == 0:
            raise ValueError(
                f"no regular lines stand out {'the other way' if waves else 'anywhere'}; expected a sharp "
                f"image of a ruling with at least {PERIODS_MIN} of its periods in view"
            )
        wave = _fundamental(whole, np.array([rows[peak[0], 0], cols[0, peak[1]]]), side)
        waves.append(wave)
        across = np.abs(rows * wave[0] + cols * wave[1]) / (np.maximum(size, 1e-9) * math.hypot(*wave))
        found[across > math.sin(math.radians(15))] = 0.0  # the second ruling lies at right angles
    return waves


def _fundamental(found: NDArray[np.float64], wave: Vector, side: int) -> Vector:
    """Return the wave, or that of which it is a harmonic: those of thin lines are as strong as the first."""

    def strength(at: Vector) -> float:
        row, col = round(float(at[0]) * side), round(abs(float(at[1])) * side)
        near = found[np.arange(row - 1, row + 2) % side, max(col - 1, 0) : col + 2]
        return float(near.max())

    for order in range(_HARMONICS, 1, -1):
        if strength(wave / order) > _SAME_STRENGTH * strength(wave):
            return wave / order
    return wave


def _refine(real: NDArray[np.float32], wave: Vector) -> Period:
    """Return the period near a wave, from the phases that a demodulated image is left with."""
    offsets, variance = np.zeros(2), 0.0
    for _ in range(3):
        offsets, variance = _phase_slope(real, wave)
        wave = wave + offsets / (2 * math.pi)
    size = math.hypot(*wave)
    extent = (abs(wave[0]) * real.shape[0] + abs(wave[1]) * real.shape[1]) / size
    n_periods = float(extent * size)
    if n_periods < PERIODS_MIN:
        raise ValueError(
            f"{n_periods:.1f} periods are in view; expected {PERIODS_MIN} or more, use finer lines"
        )
    angle = math.degrees(math.atan2(wave[0], wave[1]))
    angle = (angle + 90) % 180 - 90
    fitted = math.sqrt(variance) / (2 * math.pi) / size**2
    return Period(1 / size, math.hypot(fitted, _EDGES / n_periods**2 / size), angle, n_periods)


def _windows(side: int, frequency: float, period: float, step: int) -> NDArray[np.complex64]:
    """Return (P, side) Gaussian windows, `step` px apart and clear of the edges, times a wave to mix with."""
    at = np.arange(side)
    centers = np.arange(round(1.5 * period), side - 1.5 * period, step)
    weights = np.exp(-0.5 * ((at[None, :] - centers[:, None]) / (0.75 * period)) ** 2)
    return np.asarray(weights * np.exp(-2j * math.pi * frequency * at), np.complex64)


def _phase_slope(real: NDArray[np.float32], wave: Vector) -> tuple[Vector, float]:
    """Return the slope of the phase (rows, columns; rad/px) against `wave`, and its variance along it."""
    period = 1 / math.hypot(*wave)
    n_rows, n_cols = real.shape
    step = max(1, round(1.5 * period))
    down, across = (
        _windows(side, frequency, period, step) for side, frequency in zip(real.shape, wave, strict=True)
    )
    places = down @ real @ across.T
    if min(places.shape) < 1 or places.size < 4:
        raise ValueError(f"lines lie {period:.0f} px apart in {n_cols} x {n_rows} px; expected finer lines")
    phase = np.unwrap(np.unwrap(np.angle(places), axis=1), axis=0)
    y, x = np.mgrid[: places.shape[0], : places.shape[1]] * float(step)
    weight = np.abs(places).ravel() + 1e-12
    table = np.stack([y.ravel(), x.ravel(), np.ones(phase.size)], axis=1)
    table = table[:, [*(axis for axis in (0, 1) if places.shape[axis] > 1), 2]]
    fit, *_ = np.linalg.lstsq(table * weight[:, None], phase.ravel() * weight, rcond=None)
    residual = phase.ravel() - table @ fit
    stray = float(np.average(residual**2, weights=weight**2))
    if stray > _STRAY_RAD**2:
        raise ValueError(
            f"lines stray by {math.sqrt(stray) / (2 * math.pi):.2f} of a period; expected straight, even "
            "lines over the whole image"
        )
    covariance = np.linalg.pinv(table.T @ table) * stray * _CORRELATED
    slope, axes, variance = np.zeros(2), [axis for axis in (0, 1) if places.shape[axis] > 1], 0.0
    for number, axis in enumerate(axes):
        slope[axis] = fit[number]
        variance += covariance[number, number] * (wave[axis] * period) ** 2
    return slope, variance
