"""What the coarse structure of a field says: exposure, evenness of light, bodies larger than cells."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.flatten import estimate_background
from device.analysis.pyramid import Pyramid

_SAMPLE_PX = 300_000  # gray levels are counted on about this many pixels, at even distances
_FLAT_RANGE = 2  # gray levels between the 0.1 and 99.9 percentile of an image without content
_PATCH_UM_PER_PX = 2.0  # saturated patches and dark rims are seen at this scale or the next coarser
_GLARE_UM = 23.0  # wider than the largest round cell
_SHADING_UM_PER_PX = 8.0  # the background is looked at here
_STRANGE = 0.1  # a background that differs by more from the shading is no background, relative
_DARK = 0.25  # rims of bubbles and clumps are darker than the shading by more than this share of it
_RIM_UM = 9.0  # and thicker than the rim of a cell
_BODY_UM2 = 1000.0  # a body is larger than a cell: 36 um across


@dataclass(frozen=True, slots=True)
class Light:
    """Measures of coarse structure; the names are those of `Quality`."""

    flat: bool
    """Whether there is nothing to see at all."""
    clipped_high: float
    clipped_low: float
    level: float
    glare: float
    flatness: float | None
    foreign: float


def measure_light(pyramid: Pyramid) -> Light:
    """Return exposure, evenness and foreign bodies of a field, from coarse levels and every nth pixel."""
    frame = pyramid.levels[0]
    step = max(1, round(math.sqrt(frame.size / _SAMPLE_PX)))
    sample = np.ascontiguousarray(frame[::step, ::step])
    histogram = cv2.calcHist([sample], [0], None, [256], [0, 256]).ravel()
    below = np.cumsum(histogram, dtype=np.float64)  # pixels at or below each gray level
    darkest, brightest = np.searchsorted(below, (0.001 * below[255], 0.999 * below[255]))
    patches, um_per_px = _level(pyramid, _PATCH_UM_PER_PX)
    side_px = max(1, round(_GLARE_UM / um_per_px))
    saturated = (patches >= 254).astype(np.uint8)
    glare = cv2.morphologyEx(saturated, cv2.MORPH_OPEN, np.ones((side_px, side_px), np.uint8))
    background = estimate_background(*_level(pyramid, _SHADING_UM_PER_PX))
    ranked = np.sort(background, axis=None)
    low, middle, high = (float(ranked[round(share * (ranked.size - 1))]) for share in (0.05, 0.5, 0.95))
    return Light(
        flat=bool(brightest - darkest <= _FLAT_RANGE),
        clipped_high=float((below[255] - below[253]) / below[255]),
        clipped_low=float(below[1] / below[255]),
        level=int(np.searchsorted(below, below[255] / 2)) / 255,
        glare=float(glare.mean()),
        flatness=(high - low) / middle if middle > 0 else None,
        foreign=_measure_foreign(patches, um_per_px, background),
    )


def _level(pyramid: Pyramid, um_per_px: float) -> tuple[NDArray[np.uint8], float]:
    """Return the first level of at least this scale, or the coarsest, with its scale."""
    start = next(i for i, level in enumerate(pyramid.levels) if level is pyramid.working)
    found = min(math.ceil(math.log2(um_per_px / pyramid.um_per_px)), len(pyramid.levels) - 1 - start)
    return pyramid.levels[start + found], pyramid.um_per_px * 2**found


def _measure_foreign(patches: NDArray[np.uint8], um_per_px: float, background: NDArray[np.float32]) -> float:
    """Return the share of the field that bubbles, clumps and walls cover, 0 to 1.

    Where the background departs from the shading of the lamp, and inside thick dark rims.
    """
    shading = _fit_shading(background)
    size = patches.shape[::-1]
    strange = (np.abs(background / shading - 1) > _STRANGE).astype(np.uint8)
    covered = cv2.resize(strange, size, interpolation=cv2.INTER_NEAREST)
    dark = (patches < (1 - _DARK) * cv2.resize(shading, size)).astype(np.uint8)
    side_px = max(3, round(_RIM_UM / um_per_px))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side_px, side_px))
    rims, _ = cv2.findContours(
        cv2.morphologyEx(dark, cv2.MORPH_OPEN, disk), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    for hull in map(cv2.convexHull, rims):
        if cv2.contourArea(hull) * um_per_px**2 > _BODY_UM2:
            cv2.fillConvexPoly(covered, hull, 1)
    return float(covered.mean())


def _fit_shading(background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the quadratic surface of the lamp through the background, bodies left out; at least 1."""
    terms = _surface_terms(background.shape)
    few, gray = terms[:, ::5], background.ravel()[::5]  # a surface of six numbers needs no more
    middle = float(np.median(gray))
    used = np.abs(gray - middle) <= 0.4 * middle
    weights = np.zeros(len(terms))
    for _ in range(2):
        chosen = few[:, used]
        weights, *_ = np.linalg.lstsq(chosen @ chosen.T, chosen @ gray[used], rcond=None)
        off = np.abs(gray / np.maximum(weights @ few, 1) - 1)
        used = off <= max(3.7 * float(np.median(off)), 0.03)
    return np.asarray(np.maximum(weights @ terms, 1).reshape(background.shape), np.float32)


@lru_cache(maxsize=4)
def _surface_terms(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return 1, y, x, y^2, xy and x^2 of each pixel, a row each; y and x run from -1 to 1."""
    down, right = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in shape), indexing="ij")
    terms = (np.ones_like(down), down, right, down * down, down * right, right * right)
    return np.stack([term.ravel() for term in terms])
