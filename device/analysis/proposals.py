"""Where a cell could be: many candidates, so that hardly a cell is missed; the model drops the rest."""

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.flatten import GAIN
from device.analysis.segmentation import disk
from device.records import Assay, Modality

SEPARATION_UM = 4.0
"""Closer candidates are one, um: a third of a dead cell."""
MAX_PROPOSALS = 1500
"""The strongest are kept: a bound on the time of one field."""
RADII_UM = (2.75, 5.0)
"""Radii at which the symmetry filter weighs edges most, um; together they reach from 1 to 10 um."""
BODY_SIGMA_PX = 1.0
"""Smoothing of the distance map whose maxima are the middles of bodies, px of the coarse image."""
# Chosen on ldc training tiles and rendered fields inside the training ranges: recall 0.99
_SENSITIVITY: dict[Modality, dict[str, float]] = {
    "phase": {"gradient_sigma_um": 1.0, "gradient_half_per_um": 0.077},
    # living cells are nearly invisible at focus
    "brightfield": {"gradient_sigma_um": 1.3, "gradient_half_per_um": 0.0154},
}
SYMMETRY_MIN: dict[Assay, float] = {"suspension": 0.3, "adherent": 0.2}
"""Least symmetry of a candidate, 0 to 2: spread cells are less round."""


def propose(
    coarse: NDArray[np.uint8],
    foreground: NDArray[np.uint8],
    *,
    assay: Assay,
    modality: Modality,
    um_per_px: float,
) -> NDArray[np.float32]:
    """Return (K, 2) rows and columns, at working scale, of what could be dead and live cells; read-only.

    The most circular come first. At most `MAX_PROPOSALS`: the highest peaks of `measure_symmetry`; then, in
    layers, the middles of bodies: maxima of the foreground's distance map where no peak is near.

    Parameters
    ----------
    coarse : (H, W) ndarray of uint8
        Relative gray at half the working scale, where a dead cell still has 10 px; not modified. A flat one
        gives none.
    foreground : (H, W) ndarray of uint8
        Its mask from `find_foreground`.
    assay, modality
        Living cells of brightfield ask for more sensitivity, spread ones for a second sign.
    um_per_px : float
        Of `coarse`.

    Notes
    -----
    Peaks are placed between the pixels by the parabola through their neighbors.
    """
    symmetry = measure_symmetry(coarse, um_per_px=um_per_px, **_SENSITIVITY[modality])
    footprint = disk(SEPARATION_UM / um_per_px)
    least = SYMMETRY_MIN[assay]
    highest = symmetry >= np.maximum(cv2.dilate(symmetry, footprint), least)
    rows, cols = np.nonzero(highest)
    order = np.argsort(-symmetry[rows, cols], kind="stable")
    rows, cols = rows[order], cols[order]
    strength = symmetry[rows, cols].astype(np.float32)
    padded = np.pad(symmetry, 1, mode="edge")
    down = _offset(padded[rows, cols + 1], strength, padded[rows + 2, cols + 1])
    right = _offset(padded[rows + 1, cols], strength, padded[rows + 1, cols + 2])
    centers = np.stack([rows + down, cols + right], axis=1)
    if assay == "adherent":
        near = cv2.dilate(highest.view(np.uint8), footprint) > 0
        middles = [place for place in _find_bodies(foreground, footprint) if not near[place]]
        centers = np.concatenate([centers, np.array(middles).reshape(-1, 2)])
    last = 2 * np.array(coarse.shape) - 1
    centers = np.clip(2 * centers[:MAX_PROPOSALS] + 0.5, 0, last).astype(np.float32)
    centers.flags.writeable = False
    return centers


def _find_bodies(foreground: NDArray[np.uint8], footprint: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return the maxima of the smoothed distance map; a level ridge has one, its middle."""
    distance = cv2.distanceTransform(foreground, cv2.DIST_L2, 3)
    smooth = cv2.GaussianBlur(distance, (0, 0), BODY_SIGMA_PX)
    tops = (smooth >= np.maximum(cv2.dilate(smooth, footprint), 1)).view(np.uint8)
    middles = np.rint(cv2.connectedComponentsWithStats(tops, ltype=cv2.CV_16U)[3][1:]).astype(int)
    return [(row, col) for col, row in middles.tolist()]


def measure_symmetry(
    relative: NDArray[np.uint8], *, um_per_px: float, gradient_sigma_um: float, gradient_half_per_um: float
) -> NDArray[np.float32]:
    """Return how far the edges around each pixel lie on circles about it.

    Parameters
    ----------
    relative : (H, W) ndarray of uint8
        Relative gray; not modified.
    um_per_px : float
        Its scale, um/px.
    gradient_sigma_um : float
        Sigma of the smoothing before the gradient, um.
    gradient_half_per_um : float
        Gradient of relative contrast that votes with half its weight, 1/um; weaker ones are noise.

    Returns
    -------
    (H, W) ndarray of float32
        The larger of both radii: below 0 where edges point around the pixel, small along a straight line, 2
        where all edges lie on circles about it.

    Notes
    -----
    Symmetry derivatives of the structure tensor (Bigun): edge directions as doubled angles 2 theta,
    correlated with cos(2 theta - 2 phi) of the direction phi to the pixel, weighted by the second
    derivatives of a Gaussian. Doubled angles make it blind to polarity: a bright cell, a dark one and the
    thin ring of a ghost count alike. It takes the place of the voting of fast radial symmetry, with two
    blurs a radius.
    """
    smooth = cv2.GaussianBlur(relative.astype(np.float32), (0, 0), gradient_sigma_um / um_per_px)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / (8 * GAIN))
    right = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / (8 * GAIN))
    # not cv2.magnitude: its last bit depends on where in memory an array lies, and counts must not
    strength = np.sqrt(down * down + right * right)
    weight = strength * (strength + gradient_half_per_um * um_per_px)
    np.maximum(weight, 1e-12, out=weight)
    cosine, sine = (right * right - down * down) / weight, 2 * right * down / weight
    # r^2 exp(-r^2 / 2 sigma^2) is largest at sqrt(2) sigma
    inner, outer = (_circularity(cosine, sine, radius / np.sqrt(2) / um_per_px) for radius in RADII_UM)
    symmetry: NDArray[np.float32] = np.maximum(inner, outer)
    return symmetry


def _circularity(
    cosine: NDArray[np.float32], sine: NDArray[np.float32], sigma_px: float
) -> NDArray[np.float32]:
    cosine = cv2.GaussianBlur(cosine, (0, 0), sigma_px)
    sine = cv2.GaussianBlur(sine, (0, 0), sigma_px)
    # Sobel's second derivatives sum to 4 for a unit curvature
    symmetry = cv2.Sobel(cosine, cv2.CV_32F, 2, 0) - cv2.Sobel(cosine, cv2.CV_32F, 0, 2)
    symmetry += 2 * cv2.Sobel(sine, cv2.CV_32F, 1, 1)
    return np.asarray(symmetry * np.float32(sigma_px**2 / 4), np.float32)


def _offset(
    before: NDArray[np.float32], peak: NDArray[np.float32], after: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return where between -0.5 and 0.5 px the parabola through three neighbors has its top."""
    curvature = np.maximum(2 * peak - before - after, 1e-6)
    return np.asarray(np.clip((after - before) / (2 * curvature), -0.5, 0.5), np.float32)
