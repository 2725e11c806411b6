"""What the finest structure of a field says: how sharp it is, how noisy, and whether it moved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.flatten import GAIN, MIDDLE

_TILE_PX = 256
"""Up to four tiles of this side are measured: what they say holds for the field, in a third of the time."""
_FOCUS_SIGMA_UM = 0.5
_SLOPE_BAND = (0.02, 0.35)  # cycles/px at working scale: between cells and sensor noise
_SLOPE_BINS = 16
_SPECTRUM_MIN_PX = 32
_SECTORS = 12  # of 15 degrees: a scratch or grid line stays in one or two of them
_MOTION_BAND = (0.05, 0.16)  # where motion by 7 px and more takes power away and noise does not fill it up
# mean squared Laplacian and gradient of unit white noise after the smoothing, at 0.65 um/px
_BENDS_OF_NOISE, _SLOPES_OF_NOISE = 0.459, 0.0803
_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True, slots=True)
class Texture:
    """Measures of fine structure; the names are those of `Quality`. None where they cannot be had."""

    contrast: float | None = None
    focus_laplacian: float | None = None
    focus_tenengrad: float | None = None
    focus_slope: float | None = None
    noise: float | None = None
    anisotropy: float | None = None


def measure_texture(relative: NDArray[np.uint8], um_per_px: float) -> Texture:
    """Return contrast, focus, noise and anisotropy of the (H, W) relative gray at working scale.

    All are None without contrast; slope and anisotropy also where a side has under 32 or 256 px.

    Notes
    -----
    Noise is Immerkaer's: what second differences both ways leave over, of which cells have next to nothing.
    What white noise of that size adds is taken off the other measures, else a noisy field could not be out of
    focus. Focus measures are divided by the contrast variance, so that the density of cells does not matter.
    Motion smears all that lies along it, so the power spectrum falls off within a wide range of directions:
    the anisotropy is the strong directions over the weakest. The strongest quarter is left out; the
    eigenvalues of the structure tensor, which see only it, call every fourth real chamber tile in motion.
    """
    tiles = _cut_tiles(relative)
    n_px = sum(tile.size for tile in tiles)
    rest = sum(cv2.norm(cv2.filter2D(tile, cv2.CV_32F, _NOISE_KERNEL), cv2.NORM_L1) for tile in tiles)
    noise = math.sqrt(math.pi / 2) * rest / (6 * n_px)
    smooth = [cv2.GaussianBlur(tile, (0, 0), _FOCUS_SIGMA_UM / um_per_px) for tile in tiles]
    slopes = [cv2.Sobel(s, cv2.CV_32F, *way, scale=1 / 8) for s in smooth for way in ((0, 1), (1, 0))]
    bends = [cv2.Laplacian(s, cv2.CV_32F) for s in smooth]
    variance = _sum_squares(tiles) / n_px
    if variance <= 0:
        return Texture()
    clean = _without(noise**2, variance, 0.1)
    slope, anisotropy = _measure_spectrum(tiles, noise)
    return Texture(
        contrast=math.sqrt(variance),
        focus_laplacian=_without(_BENDS_OF_NOISE * noise**2, _sum_squares(bends) / n_px, 0.02) / clean,
        focus_tenengrad=_without(_SLOPES_OF_NOISE * noise**2, _sum_squares(slopes) / n_px, 0.02) / clean,
        focus_slope=slope,
        noise=noise,
        anisotropy=anisotropy,
    )


def _cut_tiles(relative: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Return one tile, or the middles of halves or quarters of a larger field, in relative contrast."""
    places = []
    for side in relative.shape:
        count, length = min(2, max(1, round(side / _TILE_PX))), min(side, _TILE_PX)
        starts = [round((side - length) * (2 * i + 1) / (2 * count)) for i in range(count)]
        places.append([slice(start, start + length) for start in starts])
    tiles = [relative[rows, cols] for rows in places[0] for cols in places[1]]
    return [(tile.astype(np.float32) - np.float32(MIDDLE)) / np.float32(GAIN) for tile in tiles]


def _sum_squares(arrays: Sequence[NDArray[np.float32]]) -> float:
    return float(sum(cv2.norm(array, cv2.NORM_L2SQR) for array in arrays))


def _without(noise: float, energy: float, share: float) -> float:
    """Return `energy` less what is noise, at least a `share` of it: nothing is told by a rest of nothing."""
    return max(energy - noise, share * energy)


def _measure_spectrum(
    tiles: Sequence[NDArray[np.float32]], noise: float
) -> tuple[float | None, float | None]:
    """Return the slope of log power over log frequency (-3 or lower when blurred) and the anisotropy."""
    rows, cols = tiles[0].shape
    if min(rows, cols) < _SPECTRUM_MIN_PX:
        return None, None
    window, pixels, bins, counts = _spectrum_grid(rows, cols)
    power = np.zeros(pixels.size, np.float32)
    for first, second in zip(tiles[::2], [*tiles[1::2], None], strict=False):
        # two real tiles as one complex: what they share cancels between a frequency and its opposite
        pair = [tile * window for tile in (first, second) if tile is not None]
        spectrum = cv2.dft(cv2.merge(pair) if len(pair) == 2 else pair[0], flags=cv2.DFT_COMPLEX_OUTPUT)
        power += np.square(np.abs(spectrum.view(np.complex64).ravel()[pixels]))
    sums = np.bincount(bins, power, counts.size).astype(np.float64).reshape(counts.shape)
    edges = np.geomspace(*_SLOPE_BAND, _SLOPE_BINS + 1)
    centers = np.sqrt(edges[1:] * edges[:-1])
    used = counts.sum(axis=1) > 0
    floor = noise**2 * float(np.square(window).sum()) * len(tiles)
    levels = _log_power(sums.sum(axis=1)[used], counts.sum(axis=1)[used], floor)
    offsets = np.log(centers[used]) - np.log(centers[used]).mean()
    slope = float((offsets * levels).sum() / (offsets * offsets).sum())
    if min(rows, cols) < _TILE_PX:
        return slope, None
    band = (centers > _MOTION_BAND[0]) & (centers < _MOTION_BAND[1])
    logs = _log_power(sums[band], counts[band], floor)
    by_sector = np.sort((logs - np.median(logs, axis=1, keepdims=True)).mean(axis=0))
    return slope, float(np.exp(by_sector[3 * _SECTORS // 4 - 1] - by_sector[0]))


def _log_power(sums: NDArray[np.float64], counts: NDArray[np.intp], floor: float) -> NDArray[np.float64]:
    mean = sums / counts
    return np.asarray(np.log(np.maximum(mean - floor, 0.1 * mean) + 1e-12))


@lru_cache(maxsize=4)
def _spectrum_grid(
    rows: int, cols: int
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the Hann window, the pixels of a spectrum within the band, their bins, and how many lie in each.

    The last is (rings, sectors).
    """
    window = np.outer(np.hanning(rows), np.hanning(cols)).astype(np.float32)
    down, right = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(cols)[None, :]
    edges = np.geomspace(*_SLOPE_BAND, _SLOPE_BINS + 1)
    rings = np.digitize(np.hypot(down, right).ravel(), edges) - 1
    turn = np.mod(np.arctan2(down, right).ravel() / np.pi, 1) * _SECTORS
    pixels = np.nonzero((rings >= 0) & (rings < _SLOPE_BINS))[0]
    bins = rings[pixels] * _SECTORS + np.minimum(turn[pixels].astype(np.intp), _SECTORS - 1)
    counts = np.bincount(bins, minlength=_SLOPE_BINS * _SECTORS).reshape(_SLOPE_BINS, _SECTORS)
    return window, pixels, bins, counts
