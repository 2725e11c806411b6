"""What a rendered field is made of: the microscope (`Optics`), the dish (`Culture`) and how both may vary.

Training draws its microscopes and dishes with `vary` and `vary_culture`, inside `training_ranges`; robustness
is then measured outside of them.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from device.records import Modality


@dataclass(frozen=True, slots=True)
class Optics:
    """A microscope and its camera. The defaults are a 10x objective on a good day."""

    numerical_aperture: float = 0.25
    """Of the objective, 0.05 to 0.6."""
    wavelength_um: float = 0.55
    """Center of the illumination, um, 0.35 to 0.8."""
    defocus_um: float = 0.0
    """Distance of the cells from focus, um, -100 to 100; brightfield needs some to show live cells."""
    condenser_aperture: float = 0.12
    """Spread of the illumination (numerical aperture, 0 to 0.3): what makes defocus blur."""
    ring_width_um: float = 7.0
    """Reach of the halo in phase contrast, um, 4 to 40."""
    ring_transmission: float = 0.55
    """Amplitude that the phase ring lets through, 0.1 to 1: lower gives more contrast."""
    stray_light: float = 0.20
    """Light that carries no picture, relative to the background, 0 to 1: lowers contrast."""
    vignetting: float = 0.12
    """Loss of light one half-diagonal from the brightest point, relative, 0 to 0.6."""
    unevenness: float = 0.03
    """Slow random variation of the illumination, relative, 0 to 0.2."""
    background: float = 0.38
    """Gray level of the empty dish as a share of full scale, 0.05 to 1."""
    full_well_e: float = 4000.0
    """Electrons of a saturated pixel, 200 to 50000: fewer gives more shot noise."""
    read_noise_e: float = 5.0
    """Noise of reading a pixel, electrons rms, 0 to 50."""
    gamma: float = 1.8
    """Gray level goes with light to the power of 1/gamma, 0.4 to 2.5; 2.2 is what most cameras do."""
    sharpening: float = 0.0
    """Weight of the unsharp mask of the camera's image processor, 0 to 2."""
    jpeg_quality: int = 0
    """Quality of a JPEG coded and decoded on the way, 1 to 100; 0 is none."""

    def __post_init__(self) -> None:
        _check_limits(self, _OPTICS_LIMITS)


_OPTICS_LIMITS: dict[str, tuple[float, float]] = {
    "numerical_aperture": (0.05, 0.6),
    "wavelength_um": (0.35, 0.8),
    "defocus_um": (-100.0, 100.0),
    "condenser_aperture": (0.0, 0.3),
    "ring_width_um": (4.0, 40.0),
    "ring_transmission": (0.1, 1.0),
    "stray_light": (0.0, 1.0),
    "vignetting": (0.0, 0.6),
    "unevenness": (0.0, 0.2),
    "background": (0.05, 1.0),
    "full_well_e": (200.0, 50000.0),
    "read_noise_e": (0.0, 50.0),
    "gamma": (0.4, 2.5),
    "sharpening": (0.0, 2.0),
    "jpeg_quality": (0, 100),
}


@dataclass(frozen=True, slots=True)
class Culture:
    """A dish of L-929-like cells. Sizes are textbook values, not measured here."""

    live_size: float = 1.0
    """Size of spread cells relative to a half length of 14 to 28 um, 0.5 to 2."""
    live_index: float = 0.024
    """Refractive index of spread cells above that of the medium, 0.005 to 0.06."""
    granules: float = 1.0
    """Number of granules relative to 6 to 16 in a live cell, 0 to 4."""
    alignment: float = 0.6
    """How far neighbors lie parallel, 0 (not at all) to 1."""
    round_radius_um: float = 6.5
    """Mean radius of rounded cells, um, 4 to 10; single cells differ by 10 %."""
    round_index: float = 0.036
    """Refractive index of rounded cells above that of the medium, 0.01 to 0.08."""
    shrunken_share: float = 0.2
    """Share of rounded cells that are shrunken and dense (3.5 to 5.5 um radius), 0 to 1."""
    bleb_share: float = 0.3
    """Share of rounded cells with blebs, 0 to 1."""
    mitotic_share: float = 0.05
    """Share of rounded cells that are in mitosis; the truth counts them as rounded, 0 to 1."""
    lysed_share: float = 0.25
    """Share of ghosts among dead cells where only a dead fraction is asked for, 0 to 1."""
    ghost_opl_um: float = 0.022
    """Optical path that the shell of a ghost adds, um, 0.01 to 0.2."""
    cluster: float = 0.35
    """Probability that a rounded cell touches one that is there already, 0 to 1."""
    texture_rad: float = 0.015
    """Phase texture of the empty dish at 1.5 um, radians rms, 0 to 0.1."""
    debris_per_mm2: float = 250.0
    """Specks of 0.6 to 2 um, 0 to 10000."""
    aggregates_per_mm2: float = 0.0
    """Clumps of nanoparticles of 2 to 20 um, 0 to 2000."""
    bubbles: int = 0
    """Air bubbles in the field, 0 to 20."""
    bubble_radius_um: float = 25.0
    """Mean radius of bubbles, um, 5 to 150; single ones differ by 30 %."""
    fibers: int = 0
    """Fibers and scratches across the field, 0 to 20."""

    def __post_init__(self) -> None:
        _check_limits(self, _CULTURE_LIMITS)


_CULTURE_LIMITS: dict[str, tuple[float, float]] = {
    "live_size": (0.5, 2.0),
    "live_index": (0.005, 0.06),
    "granules": (0.0, 4.0),
    "alignment": (0.0, 1.0),
    "round_radius_um": (4.0, 10.0),
    "round_index": (0.01, 0.08),
    "shrunken_share": (0.0, 1.0),
    "bleb_share": (0.0, 1.0),
    "mitotic_share": (0.0, 1.0),
    "lysed_share": (0.0, 1.0),
    "ghost_opl_um": (0.01, 0.2),
    "cluster": (0.0, 1.0),
    "texture_rad": (0.0, 0.1),
    "debris_per_mm2": (0.0, 10000.0),
    "aggregates_per_mm2": (0.0, 2000.0),
    "bubbles": (0, 20),
    "bubble_radius_um": (5.0, 150.0),
    "fibers": (0, 20),
}


def _check_limits(record: Any, limits: dict[str, tuple[float, float]]) -> None:  # noqa: ANN401 - Optics or Culture
    for item in fields(record):
        value = getattr(record, item.name)
        low, high = limits[item.name]
        if not low <= value <= high:  # also refuses NaN
            raise ValueError(f"{item.name} is {value}; expected {low:g} to {high:g}")


_OPTICS_RANGES: dict[str, tuple[float, float]] = {
    "numerical_aperture": (0.22, 0.30),
    "wavelength_um": (0.52, 0.60),
    "ring_width_um": (5.5, 14.0),
    "ring_transmission": (0.42, 0.65),
    "vignetting": (0.0, 0.30),
    "unevenness": (0.0, 0.05),
    "full_well_e": (1500.0, 8000.0),
    "read_noise_e": (3.0, 10.0),
    "sharpening": (0.0, 0.5),
}
_MODALITY_RANGES: dict[Modality, dict[str, tuple[float, float]]] = {
    "phase": {
        "defocus_um": (-10.0, 10.0),
        "condenser_aperture": (0.06, 0.15),
        "stray_light": (0.08, 0.32),
        "background": (0.28, 0.50),
        "gamma": (1.3, 2.2),
    },
    "brightfield": {
        "defocus_um": (7.0, 16.0),
        "condenser_aperture": (0.05, 0.12),
        "stray_light": (0.0, 0.10),
        "background": (0.35, 0.65),
        "gamma": (1.0, 2.0),
    },
}
_CULTURE_RANGES: dict[str, tuple[float, float]] = {
    "live_size": (0.8, 1.25),
    "live_index": (0.019, 0.029),
    "granules": (0.5, 2.0),
    "alignment": (0.2, 0.9),
    "round_radius_um": (5.6, 7.4),
    "round_index": (0.030, 0.043),
    "shrunken_share": (0.05, 0.4),
    "bleb_share": (0.1, 0.5),
    "mitotic_share": (0.0, 0.1),
    "lysed_share": (0.1, 0.5),
    "ghost_opl_um": (0.016, 0.034),
    "cluster": (0.1, 0.6),
    "texture_rad": (0.008, 0.025),
    "debris_per_mm2": (50.0, 700.0),
    "aggregates_per_mm2": (0.0, 40.0),
}
_RARE: dict[str, float] = {"bubbles": 0.06, "fibers": 0.08}  # probability of one in a field


def default_optics(modality: Modality) -> Optics:
    """Return the microscope as a lab would set it: in focus for phase, 12 um beside it for brightfield."""
    if modality == "phase":
        return Optics()
    return Optics(defocus_um=12.0, condenser_aperture=0.08, stray_light=0.03, background=0.5, gamma=1.3)


def training_ranges(modality: Modality) -> dict[str, tuple[float, float]]:
    """Return the ranges that `vary` and `vary_culture` draw from, by name of the field.

    Parameters
    ----------
    modality : {"phase", "brightfield"}
        Defocus, condenser, stray light, background and gamma depend on it.

    Returns
    -------
    dict of str to (float, float)
        Lowest and highest value of each field that varies; a field that is not named keeps its default.
    """
    return {**_MODALITY_RANGES[modality], **_OPTICS_RANGES, **_CULTURE_RANGES}


def describe_ranges(modality: Modality) -> str:
    """Return the training ranges as one line per field: name, lowest, highest."""
    ranges = training_ranges(modality)
    return "\n".join(f"{name:<20} {low:>9g} {high:>9g}" for name, (low, high) in ranges.items())


def vary(rng: np.random.Generator, modality: Modality) -> Optics:
    """Return a random realistic microscope, uniform inside `training_ranges`."""
    ranges = {**_MODALITY_RANGES[modality], **_OPTICS_RANGES}
    drawn = {name: float(rng.uniform(low, high)) for name, (low, high) in ranges.items()}
    return Optics(**drawn)  # type: ignore[arg-type]  # jpeg_quality, the only int, is not drawn


def vary_culture(rng: np.random.Generator) -> Culture:
    """Return a random realistic dish inside `training_ranges`, now and then with a bubble or a fiber."""
    drawn = {name: float(rng.uniform(low, high)) for name, (low, high) in _CULTURE_RANGES.items()}
    rare = {name: int(rng.random() < share) for name, share in _RARE.items()}
    return Culture(**drawn, **rare)  # type: ignore[arg-type]  # both dictionaries hold what their fields expect
