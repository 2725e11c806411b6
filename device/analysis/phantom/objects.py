"""The things in a dish, each drawn as the optical path and absorbance that it adds on a small patch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.settings import Culture

Kind = Literal["live", "rounded", "mitotic", "lysed", "debris", "aggregate", "bubble", "fiber"]
FloatMap = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What one object adds to the dish, on a square of pixels whose middle is the object's center."""

    path_um: FloatMap
    absorbance: FloatMap
    body: NDArray[np.bool_]
    """The object's own pixels, hidden ones included."""


def grid(row: float, col: float, reach_um: float, um_per_px: float) -> tuple[int, int, FloatMap, FloatMap]:
    """Return first row and column of a patch and how far (down, right) its pixels lie from the center, um.

    Parameters
    ----------
    row, col : float
        Center, pixels of the canvas.
    reach_um : float
        Half the side of the patch, um.
    um_per_px : float
    """
    reach = math.ceil(reach_um / um_per_px) + 1
    top, left = math.floor(row) - reach, math.floor(col) - reach
    steps = np.arange(2 * reach + 2)
    down = ((top + steps - row) * um_per_px).astype(np.float32)
    right = ((left + steps - col) * um_per_px).astype(np.float32)
    return top, left, down[:, None], right[None, :]


def choose_arms(angle: float, culture: Culture, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return direction (radians) and length (um) of the two to four arms of a spread cell along `angle`."""
    arms = [
        (angle + rng.normal(0, 0.12), rng.uniform(14, 28)),
        (angle + math.pi + rng.normal(0, 0.2), rng.uniform(12, 26)),
    ]
    n_side = int(rng.choice(3, p=(0.5, 0.38, 0.12)))
    arms += [(angle + rng.uniform(-math.pi, math.pi), rng.uniform(9, 17)) for _ in range(n_side)]
    return [(float(turn), float(length) * culture.live_size) for turn, length in arms]


def draw_live(
    down: FloatMap,
    right: FloatMap,
    arms: list[tuple[float, float]],
    culture: Culture,
    rng: np.random.Generator,
) -> Patch:
    """Return a spread cell: tapering arms, a thicker nucleus with nucleoli, granules."""
    angle = arms[0][0]
    outline, taper = _spread(down, right, arms, culture, rng)
    thickness = np.float32(rng.uniform(1.1, 1.9)) * np.sqrt(np.clip(outline * 1.6, 0, 1)) * taper
    shift = rng.uniform(-2.5, 2.5)
    row, col = shift * math.sin(angle), shift * math.cos(angle)
    along = (right - np.float32(col)) * math.cos(angle) + (down - np.float32(row)) * math.sin(angle)
    across = (down - np.float32(row)) * math.cos(angle) - (right - np.float32(col)) * math.sin(angle)
    length, width = rng.uniform(5.0, 7.5) * culture.live_size, rng.uniform(3.6, 5.0) * culture.live_size
    cap = np.sqrt(np.clip(1 - (along / np.float32(length)) ** 2 - (across / np.float32(width)) ** 2, 0, 1))
    thickness += np.float32(rng.uniform(0.6, 1.5)) * cap
    path = thickness * np.float32(culture.live_index)
    spread, sigma_um, height_um = _inclusions(culture, rng)
    a, b = rng.normal(0, spread * length), rng.normal(0, spread * width)
    rows = row + a * math.sin(angle) + b * math.cos(angle)
    cols = col + a * math.cos(angle) - b * math.sin(angle)
    grains = _specks(down, right, rows, cols, sigma_um, height_um)
    path += grains * np.clip(outline * 3 + cap, 0, 1)
    return Patch(np.asarray(path, np.float32), np.zeros_like(path), (outline > 0) | (cap > 0))


def _inclusions(
    culture: Culture, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return nucleoli and granules: spread relative to the nucleus, sigma in um, optical path in um."""
    n_nucleoli = int(rng.integers(1, 4))
    n_granules = round(float(rng.uniform(6, 16)) * culture.granules)
    spread = np.repeat((0.35, 0.75), (n_nucleoli, n_granules))
    sigma_um = np.concatenate([np.full(n_nucleoli, 0.75), rng.uniform(0.5, 0.9, n_granules)])
    height_um = np.concatenate([rng.uniform(0.010, 0.022, n_nucleoli), rng.uniform(0.008, 0.030, n_granules)])
    return spread, sigma_um, height_um


def _spread(
    down: FloatMap,
    right: FloatMap,
    arms: list[tuple[float, float]],
    culture: Culture,
    rng: np.random.Generator,
) -> tuple[FloatMap, FloatMap]:
    """Return the outline (> 0 inside, 1 on the axis) and the relative thickness of a spread cell."""
    width = rng.uniform(4.6, 7.6) * culture.live_size
    outline = np.full((down.shape[0], right.shape[1]), -1, np.float32)
    taper = np.full_like(outline, 0.3)
    ripple = rng.uniform(0.2, 0.7)
    for turn, length in arms:
        along = right * np.float32(math.cos(turn)) + down * np.float32(math.sin(turn))
        across = down * np.float32(math.cos(turn)) - right * np.float32(math.sin(turn))
        share = np.clip(along / np.float32(length), 0, 1)
        across = across + np.float32(rng.normal(0, 0.16) * length) * share**2
        across += np.float32(ripple) * np.sin(along * np.float32(rng.uniform(0.5, 0.9)) + rng.uniform(0, 6))
        half = np.float32(width) * (1 - share) ** np.float32(rng.uniform(0.75, 1.3)) + np.float32(0.7)
        beyond = along - share * np.float32(length)
        arm = 1 - (across**2 + beyond**2) / half**2
        better = arm > outline
        outline = np.where(better, arm, outline)
        taper = np.where(better, 1 - np.float32(0.55) * share, taper)
    return outline, np.asarray(taper, np.float32)


def _specks(
    down: FloatMap,
    right: FloatMap,
    rows_um: NDArray[np.float64],
    cols_um: NDArray[np.float64],
    sigma_um: NDArray[np.float64],
    height_um: NDArray[np.float64],
) -> FloatMap:
    """Return the sum of round gaussian specks, each the product of a column and a row."""
    steepness = (-0.5 / sigma_um**2).astype(np.float32)
    columns = np.exp((down - rows_um.astype(np.float32)) ** 2 * steepness) * height_um.astype(np.float32)
    rows = np.exp((right.T - cols_um.astype(np.float32)) ** 2 * steepness)
    return np.asarray(columns @ rows.T, np.float32)


def _speck(down: FloatMap, right: FloatMap, sigma_um: float, height_um: float) -> FloatMap:
    """Return one round gaussian speck in the middle."""
    middle = np.zeros(1)
    return _specks(down, right, middle, middle, np.array([sigma_um]), np.array([height_um]))


def _rim(down: FloatMap, right: FloatMap, radius_um: float, rng: np.random.Generator) -> FloatMap:
    """Return the distance from the center relative to an outline that differs from a circle by some 4 %."""
    turn = np.arctan2(down, right)
    outline = np.ones_like(turn)
    for harmonic, spread in ((2, 0.04), (3, 0.025), (4, 0.015), (5, 0.01)):
        height, start = rng.normal(0, spread), rng.uniform(0, 2 * math.pi)
        outline += np.float32(height) * np.cos(np.float32(harmonic) * turn + np.float32(start))
    return np.asarray(np.hypot(down, right) / (np.float32(radius_um) * outline), np.float32)


def draw_rounded(
    down: FloatMap, right: FloatMap, radius_um: float, culture: Culture, rng: np.random.Generator
) -> Patch:
    """Return a rounded cell: a flattened sphere with an uneven inside, on some with blebs."""
    rho = _rim(down, right, radius_um, rng)
    dense = 1.2 if radius_um < 5.5 else 1.0
    index = culture.round_index * dense * rng.uniform(0.88, 1.12)
    path = np.float32(2 * radius_um * rng.uniform(0.6, 0.85) * index) * np.clip(
        1 - rho**2, 0, 1
    ) ** np.float32(0.4)
    grain = cv2.GaussianBlur(rng.standard_normal(rho.shape, np.float32), (0, 0), 1.5)
    path *= 1 + np.float32(0.35) * grain
    body = rho < 1
    if rng.random() < culture.bleb_share:
        for _ in range(int(rng.integers(2, 6))):
            turn, size = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 2.2)
            row, col = radius_um * math.sin(turn), radius_um * math.cos(turn)
            near = ((down - np.float32(row)) ** 2 + (right - np.float32(col)) ** 2) / np.float32(size**2)
            path = np.maximum(path, np.float32(2 * size * 0.02) * np.sqrt(np.clip(1 - near, 0, 1)))
            body |= near < 1
    # granules throw light out of the pupil
    scatter = np.float32(rng.uniform(0.1, 0.5)) * np.sqrt(np.clip(1 - rho**2, 0, 1))
    return Patch(np.asarray(path, np.float32), np.asarray(scatter, np.float32), body)


def draw_mitotic(
    down: FloatMap, right: FloatMap, radius_um: float, culture: Culture, rng: np.random.Generator
) -> Patch:
    """Return a cell in metaphase: round, smooth, bright, its chromosomes a bar across the middle."""
    rho = _rim(down, right, radius_um, rng)
    path = np.float32(1.5 * radius_um * culture.round_index * 0.85) * np.sqrt(np.clip(1 - rho**2, 0, 1))
    turn = rng.uniform(0, math.pi)
    along = right * np.float32(math.cos(turn)) + down * np.float32(math.sin(turn))
    across = down * np.float32(math.cos(turn)) - right * np.float32(math.sin(turn))
    path += np.float32(0.10) * np.exp(-((along / np.float32(3.6)) ** 4) - (across / np.float32(1.3)) ** 2)
    return Patch(np.asarray(path, np.float32), np.zeros_like(path), rho < 1)


def draw_lysed(
    down: FloatMap, right: FloatMap, radius_um: float, culture: Culture, rng: np.random.Generator
) -> Patch:
    """Return a ghost: the thin shell of a cell that has lost its inside, with the remains of its nucleus."""
    distance = _rim(down, right, radius_um, rng) * np.float32(radius_um)
    shell = np.exp(((distance - np.float32(radius_um)) / np.float32(0.7)) ** 2 * np.float32(-0.5))
    disk = 1 / (1 + np.exp(np.clip((distance - np.float32(radius_um)) * 2, -30, 30)))
    path = np.float32(culture.ghost_opl_um) * shell + np.float32(0.2 * culture.ghost_opl_um) * disk
    row, col = rng.normal(0, 0.2 * radius_um, 2)
    nucleus = rng.uniform(1.6, 2.6)
    path += _speck(down - np.float32(row), right - np.float32(col), nucleus, float(rng.uniform(0.006, 0.025)))
    number = int(rng.integers(3, 9))
    rows, cols = rng.normal(0, 0.45 * radius_um, (2, number))
    path += _specks(down, right, rows, cols, np.full(number, 0.6), rng.uniform(0.006, 0.025, number))
    return Patch(np.asarray(path, np.float32), np.zeros_like(path), distance < radius_um + 0.7)


def draw_debris(down: FloatMap, right: FloatMap, size_um: float, rng: np.random.Generator) -> Patch:
    """Return a speck: a gaussian of sigma 0.6 to 2 um."""
    bump = _speck(down, right, size_um, 1.0)
    path = np.float32(rng.uniform(0.02, 0.14)) * bump
    absorbance = np.float32(rng.choice((0.0, rng.uniform(0.1, 0.5)))) * bump
    return Patch(np.asarray(path, np.float32), np.asarray(absorbance, np.float32), bump > 0.6)


def draw_aggregate(down: FloatMap, right: FloatMap, size_um: float, rng: np.random.Generator) -> Patch:
    """Return a clump of nanoparticles: grains added at random to grains, dark by absorption."""
    grain = max(0.5, 0.12 * size_um)
    places = np.zeros((1, 2))
    for _ in range(int(rng.integers(12, 36))):
        start = places[rng.integers(len(places))]
        turn = rng.uniform(0, 2 * math.pi)
        step = start + 1.4 * grain * np.array((math.sin(turn), math.cos(turn)))
        if np.hypot(*step) < size_um:
            places = np.vstack([places, step])
    number = len(places)
    total = _specks(down, right, places[:, 0], places[:, 1], np.full(number, grain), np.ones(number))
    return Patch(total * np.float32(0.04), np.minimum(total * np.float32(0.8), 4), total > 0.5)


def draw_bubble(down: FloatMap, right: FloatMap, radius_um: float, rng: np.random.Generator) -> Patch:
    """Return an air bubble: a lens so strong that only light through its middle reaches the objective."""
    rho = np.hypot(down, right) / np.float32(radius_um)
    lens = np.sqrt(np.clip(1 - rho**2, 0, 1)) * np.float32(-0.33 * min(radius_um, 6.0))
    dark = np.clip((rho - np.float32(rng.uniform(0.55, 0.7))) * 12, 0, 6) * (rho < 1)
    return Patch(np.asarray(lens, np.float32), np.asarray(dark, np.float32), rho < 1)


def fiber(shape: tuple[int, int], um_per_px: float, rng: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """Return path and absorbance of one fiber or scratch across the whole canvas."""
    rows = np.arange(shape[0], dtype=np.float32)[:, None] * np.float32(um_per_px)
    cols = np.arange(shape[1], dtype=np.float32)[None, :] * np.float32(um_per_px)
    turn = rng.uniform(0, math.pi)
    row, col = rng.uniform(0.2, 0.8, 2) * np.array(shape) * um_per_px
    along = (cols - np.float32(col)) * math.cos(turn) + (rows - np.float32(row)) * math.sin(turn)
    across = (rows - np.float32(row)) * math.cos(turn) - (cols - np.float32(col)) * math.sin(turn)
    across = across - np.float32(rng.normal(0, 0.0015)) * along**2
    line = np.exp((across / np.float32(rng.uniform(0.8, 2.2))) ** 2 * np.float32(-0.5))
    path = np.float32(rng.choice((-1, 1)) * rng.uniform(0.05, 0.2)) * line
    return np.asarray(path, np.float32), np.asarray(line * np.float32(rng.uniform(0, 0.6)), np.float32)


DrawRound = Callable[[FloatMap, FloatMap, float, Culture, np.random.Generator], Patch]
ROUND_CELLS: dict[Kind, DrawRound] = {"rounded": draw_rounded, "mitotic": draw_mitotic, "lysed": draw_lysed}
