"""The things in a dish, each drawn as the optical path and absorbance that it adds on a small patch."""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from device.analysis.phantom.optics import FloatMap
from device.analysis.phantom.settings import Culture

Kind = Literal["live", "rounded", "mitotic", "lysed", "debris", "aggregate", "bubble", "fiber"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A square of pixels, and how far its (M, 1) rows and (1, M) columns lie from an object's center, um."""

    top: int
    """First row on the canvas, may lie outside of it."""
    left: int
    down: FloatMap
    right: FloatMap


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What one object adds to the dish on its grid."""

    path_um: FloatMap
    absorbance: FloatMap
    body: NDArray[np.bool_]
    """The object's own pixels, hidden ones included."""


def choose_arms(angle: float, culture: Culture, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return direction (radians) and length (um) of the two to four arms of a spread cell along `angle`."""
    arms = [
        (angle + rng.normal(0, 0.12), rng.uniform(14, 28)),
        (angle + math.pi + rng.normal(0, 0.2), rng.uniform(12, 26)),
    ]
    n_side = rng.choice(3, p=(0.5, 0.38, 0.12))
    arms += [(angle + rng.uniform(-math.pi, math.pi), rng.uniform(9, 17)) for _ in range(n_side)]
    return [(turn, length * culture.live_size) for turn, length in arms]


def draw_live(
    grid: Grid, arms: list[tuple[float, float]], culture: Culture, rng: np.random.Generator
) -> Patch:
    """Return a spread cell: tapering arms, a thicker nucleus with nucleoli, granules."""
    outline, taper = _spread(grid, arms, culture, rng)
    path = rng.uniform(1.1, 1.9) * np.sqrt(np.clip(outline * 1.6, 0, 1)) * taper
    angle, shift = arms[0][0], rng.uniform(-2.5, 2.5)
    row, col = shift * math.sin(angle), shift * math.cos(angle)
    along, across = _turn(grid.down - row, grid.right - col, angle)
    length, width = rng.uniform(5.0, 7.5) * culture.live_size, rng.uniform(3.6, 5.0) * culture.live_size
    cap = np.sqrt(np.clip(1 - (along / length) ** 2 - (across / width) ** 2, 0, 1))
    path += rng.uniform(0.6, 1.5) * cap
    path *= culture.live_index
    n_nucleoli = int(rng.integers(1, 4))
    n_granules = round(rng.uniform(6, 16) * culture.granules)
    spread = np.repeat([0.35, 0.75], [n_nucleoli, n_granules])
    sigma_um = np.concatenate([np.full(n_nucleoli, 0.75), rng.uniform(0.5, 0.9, n_granules)])
    height_um = np.concatenate([rng.uniform(0.010, 0.022, n_nucleoli), rng.uniform(0.008, 0.030, n_granules)])
    a, b = rng.normal(0, spread * length), rng.normal(0, spread * width)
    rows = row + a * math.sin(angle) + b * math.cos(angle)
    cols = col + a * math.cos(angle) - b * math.sin(angle)
    path += _specks(grid, rows, cols, sigma_um, height_um) * np.clip(outline * 3 + cap, 0, 1)
    return Patch(path, np.zeros_like(path), (outline > 0) | (cap > 0))


def _spread(
    grid: Grid, arms: list[tuple[float, float]], culture: Culture, rng: np.random.Generator
) -> tuple[FloatMap, FloatMap]:
    """Return the outline (> 0 inside, 1 on the axis) and the relative thickness of a spread cell."""
    width = rng.uniform(4.6, 7.6) * culture.live_size
    outline = np.full((grid.down.size, grid.right.size), -1, np.float32)
    taper = np.full_like(outline, 0.3)
    ripple = rng.uniform(0.2, 0.7)
    for angle, length in arms:
        along, across = _turn(grid.down, grid.right, angle)
        share = np.clip(along / length, 0, 1)
        across += rng.normal(0, 0.16) * length * share**2
        across += ripple * np.sin(along * rng.uniform(0.5, 0.9) + rng.uniform(0, 6))
        half = width * (1 - share) ** rng.uniform(0.75, 1.3) + 0.7
        arm = 1 - (across**2 + (along - share * length) ** 2) / half**2
        better = arm > outline
        outline = np.where(better, arm, outline)
        taper = np.where(better, 1 - 0.55 * share, taper)
    return outline, taper


def _turn(down: FloatMap, right: FloatMap, angle: float) -> tuple[FloatMap, FloatMap]:
    """Return the coordinates along and across a direction."""
    sine, cosine = math.sin(angle), math.cos(angle)
    return right * cosine + down * sine, down * cosine - right * sine


def _specks(
    grid: Grid, rows_um: ArrayLike, cols_um: ArrayLike, sigma_um: ArrayLike, height_um: ArrayLike
) -> FloatMap:
    """Return the sum of K round gaussian specks, each the product of a column and a row."""
    steepness = np.asarray(-0.5 / np.square(sigma_um), np.float32)
    down = grid.down - np.atleast_1d(rows_um).astype(np.float32)  # (M, K)
    right = grid.right.T - np.atleast_1d(cols_um).astype(np.float32)
    columns = np.exp(down**2 * steepness) * np.asarray(height_um, np.float32)
    return np.asarray(columns @ np.exp(right**2 * steepness).T)


def _rim(grid: Grid, radius_um: float, rng: np.random.Generator) -> FloatMap:
    """Return the distance from the center relative to an outline that differs from a circle by some 4 %."""
    turn = np.arctan2(grid.down, grid.right)
    outline = np.ones_like(turn)
    for harmonic, spread in ((2, 0.04), (3, 0.025), (4, 0.015), (5, 0.01)):
        outline += rng.normal(0, spread) * np.cos(harmonic * turn + rng.uniform(0, 2 * math.pi))
    return np.asarray(np.hypot(grid.down, grid.right) / (radius_um * outline))


def draw_rounded(grid: Grid, radius_um: float, culture: Culture, rng: np.random.Generator) -> Patch:
    """Return a rounded cell: a flattened sphere with an uneven inside, on some with blebs."""
    rho = _rim(grid, radius_um, rng)
    index = culture.round_index * (1.2 if radius_um < 5.5 else 1.0) * rng.uniform(0.88, 1.12)
    path = 2 * radius_um * rng.uniform(0.6, 0.85) * index * np.clip(1 - rho**2, 0, 1) ** 0.4
    path *= 1 + 0.35 * cv2.GaussianBlur(rng.standard_normal(rho.shape, np.float32), (0, 0), 1.5)
    body = rho < 1
    if rng.random() < culture.bleb_share:
        for _ in range(rng.integers(2, 6)):
            turn, size = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 2.2)
            row, col = radius_um * math.sin(turn), radius_um * math.cos(turn)
            near = ((grid.down - row) ** 2 + (grid.right - col) ** 2) / size**2
            path = np.maximum(path, 2 * size * 0.02 * np.sqrt(np.clip(1 - near, 0, 1)))
            body |= near < 1
    # granules throw light out of the pupil
    scatter = rng.uniform(0.1, 0.5) * np.sqrt(np.clip(1 - rho**2, 0, 1))
    return Patch(path, scatter, body)


def draw_mitotic(grid: Grid, radius_um: float, culture: Culture, rng: np.random.Generator) -> Patch:
    """Return a cell in metaphase: round, smooth, bright, its chromosomes a bar across the middle."""
    rho = _rim(grid, radius_um, rng)
    path = 1.5 * radius_um * culture.round_index * 0.85 * np.sqrt(np.clip(1 - rho**2, 0, 1))
    along, across = _turn(grid.down, grid.right, rng.uniform(0, math.pi))
    path += 0.10 * np.exp(-((along / 3.6) ** 4) - (across / 1.3) ** 2)
    return Patch(path, np.zeros_like(path), rho < 1)


def draw_lysed(grid: Grid, radius_um: float, culture: Culture, rng: np.random.Generator) -> Patch:
    """Return a ghost: the thin shell of a cell that has lost its inside, with the remains of its nucleus."""
    distance = _rim(grid, radius_um, rng) * radius_um
    shell = np.exp(((distance - radius_um) / 0.7) ** 2 * -0.5)
    disk = 1 / (1 + np.exp(np.clip((distance - radius_um) * 2, -30, 30)))
    path = culture.ghost_opl_um * shell + 0.2 * culture.ghost_opl_um * disk
    row, col = rng.normal(0, 0.2 * radius_um, 2)
    path += _specks(grid, row, col, rng.uniform(1.6, 2.6), rng.uniform(0.006, 0.025))
    n_grains = rng.integers(3, 9)
    rows, cols = rng.normal(0, 0.45 * radius_um, (2, n_grains))
    path += _specks(grid, rows, cols, 0.6, rng.uniform(0.006, 0.025, n_grains))
    return Patch(path, np.zeros_like(path), distance < radius_um + 0.7)


def draw_debris(grid: Grid, radius_um: float, rng: np.random.Generator) -> Patch:
    """Return a speck: a gaussian of this sigma."""
    bump = _specks(grid, 0, 0, radius_um, 1)
    path = rng.uniform(0.02, 0.14) * bump
    return Patch(path, float(rng.choice((0.0, rng.uniform(0.1, 0.5)))) * bump, bump > 0.6)


def draw_aggregate(grid: Grid, radius_um: float, rng: np.random.Generator) -> Patch:
    """Return a clump of nanoparticles: grains added at random to grains, dark by absorption."""
    grain = max(0.5, 0.12 * radius_um)
    places = np.zeros((1, 2))
    for _ in range(rng.integers(12, 36)):
        start = places[rng.integers(len(places))]
        turn = rng.uniform(0, 2 * math.pi)
        step = start + 1.4 * grain * np.array((math.sin(turn), math.cos(turn)))
        if np.hypot(*step) < radius_um:
            places = np.vstack([places, step])
    total = _specks(grid, places[:, 0], places[:, 1], grain, 1)
    return Patch(total * 0.04, np.minimum(total * 0.8, 4), total > 0.5)


def draw_bubble(grid: Grid, radius_um: float, rng: np.random.Generator) -> Patch:
    """Return an air bubble: a lens so strong that only light through its middle reaches the objective."""
    rho = np.hypot(grid.down, grid.right) / radius_um
    lens = np.sqrt(np.clip(1 - rho**2, 0, 1)) * (-0.33 * min(radius_um, 6.0))
    dark = np.clip((rho - rng.uniform(0.55, 0.7)) * 12, 0, 6) * (rho < 1)
    return Patch(lens, dark, rho < 1)


def draw_fiber(
    shape: tuple[int, int], um_per_px: float, rng: np.random.Generator
) -> tuple[FloatMap, FloatMap]:
    """Return path and absorbance of one fiber or scratch across the whole canvas."""
    rows, cols = (np.arange(side, dtype=np.float32) * um_per_px for side in shape)
    angle = rng.uniform(0, math.pi)
    row, col = (rng.uniform(0.2, 0.8, 2) * shape * um_per_px).tolist()
    along, across = _turn(rows[:, None] - row, cols[None, :] - col, angle)
    across -= rng.normal(0, 0.0015) * along**2
    line = np.exp((across / rng.uniform(0.8, 2.2)) ** 2 * -0.5)
    path = float(rng.choice((-1, 1))) * rng.uniform(0.05, 0.2) * line
    return path, line * rng.uniform(0, 0.6)


ROUND_CELLS = {"rounded": draw_rounded, "mitotic": draw_mitotic, "lysed": draw_lysed}
MATTER = {"bubble": draw_bubble, "aggregate": draw_aggregate, "debris": draw_debris}
