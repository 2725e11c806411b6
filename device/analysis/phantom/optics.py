"""How light makes a picture of a dish: one complex field for phase contrast and brightfield."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.settings import Optics
from device.records import Modality

FloatMap = NDArray[np.floating]
"""float32 in all of the renderer: Python's floats leave it so, numpy's float64 scalars would not."""
_SLICES = ((-3.0, 0.25), (0.0, 0.5), (3.0, 0.25))
"""Depth of the culture and of the illumination: offset um, weight."""


def intensity(
    path_um: FloatMap, absorbance: FloatMap, um_per_px: float, *, modality: Modality, optics: Optics
) -> FloatMap:
    """Return the light on the sensor, >= 0 and 1 where the dish is empty.

    Parameters
    ----------
    path_um : (M, N) ndarray of float32
        Optical path that the cells add, um (thickness times index difference). The image is periodic: leave a
        margin.
    absorbance : (M, N) ndarray of float32
        Natural absorbance of the intensity, >= 0.
    um_per_px, modality, optics
        As for `render_field`.

    Notes
    -----
    t = exp(-a/2 + 2 pi i path / wavelength); E(z) = IFFT(FFT(t) P(z) R); I = sum of |E|^2 over three planes,
    blurred by the spread of the illumination. The phase ring R passes the undiffracted light weakened and a
    quarter wave late, which gives halo and shade-off. For weak phases I - 1 = -(2/zeta)(phi - phi * h).
    """
    phase = path_um * np.float32(2 * math.pi / optics.wavelength_um)
    amplitude = np.exp(absorbance * np.float32(-0.5))
    field = np.dstack([amplitude * np.cos(phase), amplitude * np.sin(phase)])
    spectrum = cv2.dft(field, flags=cv2.DFT_COMPLEX_OUTPUT)
    waves = spectrum[..., 0] + 1j * spectrum[..., 1]
    rows, cols = (np.fft.fftfreq(side, um_per_px).astype(np.float32) for side in path_um.shape)
    squared = rows[:, None] ** 2 + cols[None, :] ** 2  # of the spatial frequency, cycles^2 per um^2
    if modality == "phase":
        # the ring, softened to the reach of its halo: s = 1 / (2 pi w)
        reach = np.exp(squared * np.float32(-2 * (math.pi * optics.ring_width_um) ** 2))
        waves *= 1 + np.complex64(-1 - 1j * optics.ring_transmission) * reach
    total = np.zeros(path_um.shape, np.float32)
    for offset_um, weight in _SLICES:
        passed = waves * _pupil(squared, optics, optics.defocus_um + offset_um)
        packed = np.dstack([passed.real, passed.imag])
        plane = cv2.dft(packed, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_COMPLEX_OUTPUT)
        total += np.float32(weight) * (plane[..., 0] ** 2 + plane[..., 1] ** 2)
    if modality == "phase":
        total /= np.float32(optics.ring_transmission**2)
    sigma_px = 0.7 * abs(optics.defocus_um) * optics.condenser_aperture / um_per_px
    if sigma_px > 0.1:
        total = cv2.GaussianBlur(total, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    stray = np.float32(optics.stray_light)
    return np.asarray((total + stray) / (1 + stray), np.float32)


def _pupil(squared: FloatMap, optics: Optics, defocus_um: float) -> NDArray[np.complex64]:
    """Return the aperture with a soft rim (3 % of its radius), times the wavefront of defocus."""
    cutoff = optics.numerical_aperture / optics.wavelength_um
    edge = (np.sqrt(squared) - np.float32(cutoff)) / np.float32(0.03 * cutoff)
    aperture = 1 / (1 + np.exp(np.clip(edge, -30, 30)))
    turn = squared * np.float32(-math.pi * optics.wavelength_um * defocus_um)
    return np.asarray(aperture * (np.cos(turn) + 1j * np.sin(turn)), np.complex64)


def illuminate(light: FloatMap, optics: Optics, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return `light` times vignetting around a random center and a slow random unevenness."""
    height, width = light.shape
    half_diagonal = 0.5 * math.hypot(height, width)
    rows, cols = (
        ((np.arange(side) - side * rng.uniform(1 / 3, 2 / 3)) / half_diagonal).astype(np.float32)
        for side in (height, width)
    )
    shading = 1 - np.float32(optics.vignetting) * (rows[:, None] ** 2 + cols[None, :] ** 2)
    coarse = rng.uniform(-1, 1, (height // 60 + 3, width // 60 + 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(light * shading * (1 + np.float32(optics.unevenness) * smooth), np.float32)


def expose(light: FloatMap, optics: Optics, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the gray image that the camera gives for `light` (1 = background), with all its noise."""
    exposure = optics.background**optics.gamma
    expected = np.clip(light, 0, None).astype(np.float64) * (exposure * optics.full_well_e)
    electrons = rng.poisson(expected).astype(np.float32)
    electrons += np.float32(optics.read_noise_e) * rng.standard_normal(light.shape, np.float32)
    level = np.clip(electrons / np.float32(optics.full_well_e), 0, 1)
    if optics.gamma != 1:
        level **= np.float32(1 / optics.gamma)
    if optics.sharpening > 0:
        soft = cv2.GaussianBlur(level, (0, 0), 1.0)
        level = np.clip(level + np.float32(optics.sharpening) * (level - soft), 0, 1)
    image: NDArray[np.uint8] = np.rint(level * 255).astype(np.uint8)
    if optics.jpeg_quality > 0:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, optics.jpeg_quality])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return image
