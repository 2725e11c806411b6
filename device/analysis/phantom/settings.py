"""What a rendered field is made of: the microscope (`Optics`), the dish (`Culture`) and how both may vary.

Robustness is measured outside of the ranges that training draws from (`training_ranges`).
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from device.records import Modality

Range = tuple[float, float]


def _number(
    default: float, allowed: Range, trained: Range | None = None, *, brightfield: Range | None = None
) -> Any:  # noqa: ANN401 - as `field` itself
    """Return a field with the values it takes and those that training draws from, in brightfield others."""
    ranges = {"range": allowed, "phase": trained, "brightfield": brightfield or trained}
    return field(default=default, metadata=ranges)


@dataclass(frozen=True, slots=True)
class _Ranged:
    def __post_init__(self) -> None:
        for item in fields(self):
            value, (low, high) = getattr(self, item.name), item.metadata["range"]
            if not low <= value <= high:  # also refuses NaN
                raise ValueError(f"{item.name} is {value}; expected {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class Optics(_Ranged):
    """A microscope and its camera. The defaults are a 10x objective on a good day."""

    defocus_um: float = _number(0.0, (-100.0, 100.0), (-13.0, 13.0), brightfield=(6.0, 15.0))
    """Distance of the cells from focus, um; brightfield needs some to show live cells."""
    condenser_aperture: float = _number(0.12, (0.0, 0.3), (0.06, 0.15), brightfield=(0.05, 0.12))
    """Spread of the illumination (numerical aperture): what makes defocus blur."""
    stray_light: float = _number(0.20, (0.0, 1.0), (0.08, 0.32), brightfield=(0.0, 0.10))
    """Light that carries no picture, relative to the background: lowers contrast."""
    background: float = _number(0.38, (0.05, 1.0), (0.28, 0.50), brightfield=(0.35, 0.65))
    """Gray level of the empty dish as a share of full scale."""
    gamma: float = _number(1.8, (0.4, 2.5), (1.3, 2.2), brightfield=(1.0, 2.0))
    """Gray level goes with light to the power of 1/gamma; 2.2 is what most cameras do."""
    numerical_aperture: float = _number(0.25, (0.05, 0.6), (0.22, 0.30))
    """Of the objective."""
    wavelength_um: float = _number(0.55, (0.35, 0.8), (0.52, 0.60))
    """Center of the illumination, um."""
    ring_width_um: float = _number(7.0, (4.0, 40.0), (5.5, 14.0))
    """Reach of the halo in phase contrast, um."""
    ring_transmission: float = _number(0.55, (0.1, 1.0), (0.42, 0.65))
    """Amplitude that the phase ring lets through: lower gives more contrast."""
    vignetting: float = _number(0.12, (0.0, 0.6), (0.0, 0.30))
    """Loss of light one half-diagonal from the brightest point, relative."""
    unevenness: float = _number(0.03, (0.0, 0.2), (0.0, 0.05))
    """Slow random variation of the illumination, relative."""
    full_well_e: float = _number(4000.0, (200.0, 50000.0), (1500.0, 8000.0))
    """Electrons of a saturated pixel: fewer gives more shot noise."""
    read_noise_e: float = _number(5.0, (0.0, 50.0), (3.0, 10.0))
    """Noise of reading a pixel, electrons rms."""
    sharpening: float = _number(0.0, (0.0, 2.0), (0.0, 0.5))
    """Weight of the unsharp mask of the camera's image processor."""
    jpeg_quality: int = _number(0, (0, 100))
    """Quality of a JPEG coded and decoded on the way; 0 is none."""


@dataclass(frozen=True, slots=True)
class Culture(_Ranged):
    """A dish of L-929-like cells. Sizes are textbook values, not measured here."""

    live_size: float = _number(1.0, (0.5, 2.0), (0.8, 1.25))
    """Size of spread cells relative to a half length of 14 to 28 um."""
    live_index: float = _number(0.024, (0.005, 0.06), (0.019, 0.029))
    """Refractive index of spread cells above that of the medium."""
    granules: float = _number(1.0, (0.0, 4.0), (0.5, 2.0))
    """Number of granules relative to 6 to 16 in a live cell."""
    alignment: float = _number(0.6, (0.0, 1.0), (0.2, 0.9))
    """How far neighbors lie parallel, 0 (not at all) to 1."""
    round_radius_um: float = _number(6.5, (4.0, 10.0), (5.6, 7.4))
    """Mean radius of rounded cells, um; single cells differ by 10 %."""
    round_index: float = _number(0.036, (0.01, 0.08), (0.030, 0.043))
    """Refractive index of rounded cells above that of the medium."""
    shrunken_share: float = _number(0.2, (0.0, 1.0), (0.05, 0.4))
    """Share of rounded cells that are shrunken and dense (3.5 to 5.5 um radius)."""
    bleb_share: float = _number(0.3, (0.0, 1.0), (0.1, 0.5))
    """Share of rounded cells with blebs."""
    mitotic_share: float = _number(0.05, (0.0, 1.0), (0.0, 0.1))
    """Share of rounded cells that are in mitosis; the truth counts them as rounded."""
    lysed_share: float = _number(0.25, (0.0, 1.0), (0.1, 0.5))
    """Share of ghosts among dead cells where only a dead fraction is asked for."""
    ghost_opl_um: float = _number(0.022, (0.01, 0.2), (0.016, 0.034))
    """Optical path that the shell of a ghost adds, um."""
    cluster: float = _number(0.35, (0.0, 1.0), (0.1, 0.6))
    """Probability that a rounded cell touches one that is there already."""
    texture_rad: float = _number(0.015, (0.0, 0.1), (0.008, 0.025))
    """Phase texture of the empty dish at 1.5 um, radians rms."""
    debris_per_mm2: float = _number(250.0, (0.0, 10000.0), (50.0, 700.0))
    """Specks of 0.6 to 2 um."""
    aggregates_per_mm2: float = _number(0.0, (0.0, 2000.0), (0.0, 40.0))
    """Clumps of nanoparticles of 2 to 20 um."""
    bubbles: int = _number(0, (0, 20))
    """Air bubbles in the field."""
    bubble_radius_um: float = _number(25.0, (5.0, 150.0))
    """Mean radius of bubbles, um; single ones differ by 30 %."""
    fibers: int = _number(0, (0, 20))
    """Fibers and scratches across the field."""


def default_optics(modality: Modality) -> Optics:
    """Return the microscope as a lab would set it: in focus for phase, 12 um beside it for brightfield."""
    if modality == "phase":
        return Optics()
    return Optics(defocus_um=12.0, condenser_aperture=0.08, stray_light=0.03, background=0.5, gamma=1.3)


def training_ranges(modality: Modality) -> dict[str, Range]:
    """Return the range that `vary` and `vary_culture` draw each field from that does not keep its default."""
    return _ranges(Optics, modality) | _ranges(Culture, modality)


def vary(rng: np.random.Generator, modality: Modality) -> Optics:
    """Return a random realistic microscope, uniform inside `training_ranges`."""
    return Optics(**_draw(rng, _ranges(Optics, modality)))


def vary_culture(rng: np.random.Generator) -> Culture:
    """Return a random realistic dish inside `training_ranges`, now and then with a bubble or a fiber."""
    drawn = _draw(rng, _ranges(Culture, "phase"))  # those of brightfield are the same
    return Culture(**drawn, bubbles=int(rng.random() < 0.06), fibers=int(rng.random() < 0.08))


def _ranges(record: type[_Ranged], modality: Modality) -> dict[str, Range]:
    return {item.name: item.metadata[modality] for item in fields(record) if item.metadata[modality]}


def _draw(rng: np.random.Generator, ranges: dict[str, Range]) -> dict[str, Any]:
    # in the order of the fields: another one would give other pictures for the same seed
    return {name: rng.uniform(low, high) for name, (low, high) in ranges.items()}
