"""One field of a dish that never was, with the truth about every cell in it."""

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.canvas import Canvas, draw_cell, draw_matter
from device.analysis.phantom.optics import expose, illuminate, intensity
from device.analysis.phantom.placement import Dish, place_cells
from device.analysis.phantom.settings import Culture, Optics, default_optics
from device.analysis.phantom.truth import Phantom, measure_confluence, read_truth, true_matter
from device.records import Modality


def render_field(
    *,
    modality: Modality,
    seed: int | None = None,
    rng: np.random.Generator | None = None,
    size: tuple[int, int] = (480, 640),
    um_per_px: float = 0.65,
    n_cells: int | None = None,
    dead_fraction: float | None = None,
    n_live: int | None = None,
    n_rounded: int | None = None,
    n_lysed: int | None = None,
    optics: Optics | None = None,
    culture: Culture | None = None,
) -> Phantom:
    """Return one field of view with its truth.

    Parameters
    ----------
    modality : {"phase", "brightfield"}
    seed : int, optional
        Same seed and settings give the same bytes, >= 0. Give either `seed` or `rng`.
    rng : Generator, optional
        Draws the seed.
    size : (int, int)
        Rows and columns, 16 to 8192.
    um_per_px : float
        Micrometers a pixel, 0.1 to 4.
    n_cells : int, optional
        Cells in the field, `dead_fraction` (0 to 1) of them dead (rounded to whole cells), of these
        `culture.lysed_share` lysed. Default 60 with 0.1 dead.
    n_live, n_rounded, n_lysed : int, optional
        The numbers themselves, instead; those not given are 0.
    optics : Optics, optional
        Default `default_optics(modality)`.
    culture : Culture, optional

    Returns
    -------
    Phantom
        Image, labels and objects. The numbers asked for are cells with their center in the field; more may
        reach in from outside.

    Raises
    ------
    ValueError
        If an argument is out of its range, both ways of counting are mixed, or the cells do not fit.
    """
    seed = _seed(seed, rng)
    optics = optics or default_optics(modality)
    culture = culture or Culture()
    counts = _counts(n_cells, dead_fraction, (n_live, n_rounded, n_lysed), culture)
    check_arguments(modality, seed, size, um_per_px)
    draw = np.random.Generator(np.random.PCG64(seed))
    canvas = Canvas(size, um_per_px)
    dish = Dish(size[0] * um_per_px, size[1] * um_per_px, draw)
    others = draw_matter(canvas, dish, culture)
    sites = place_cells(dish, n_live=counts[0], n_rounded=counts[1], n_lysed=counts[2], culture=culture)
    areas = [draw_cell(canvas, site, index, culture, draw) for index, site in enumerate(sites, start=1)]
    image = _picture(canvas, modality=modality, optics=optics, rng=draw)
    labels, cells = read_truth(canvas, sites, areas)
    parameters: dict[str, Any] = {
        "modality": modality,
        "height_px": size[0],
        "width_px": size[1],
        "um_per_px": um_per_px,
        "n_live": counts[0],
        "n_rounded": counts[1],
        "n_lysed": counts[2],
        "optics": asdict(optics),
        "culture": asdict(culture),
        "confluence": measure_confluence(labels, cells),
    }
    image.flags.writeable = False
    labels.flags.writeable = False
    return Phantom(image, labels, (*cells, *true_matter(others, size, um_per_px)), parameters, seed)


def _picture(
    canvas: Canvas, *, modality: Modality, optics: Optics, rng: np.random.Generator
) -> NDArray[np.uint8]:
    light = intensity(
        canvas.live + canvas.others, canvas.absorbance, canvas.um_per_px, modality=modality, optics=optics
    )
    light = np.ascontiguousarray(canvas.field(light))
    if canvas.binning > 1:
        size = (canvas.width // canvas.binning, canvas.height // canvas.binning)
        light = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    return expose(illuminate(light, optics, rng), optics, rng)


def _counts(
    n_cells: int | None,
    dead_fraction: float | None,
    numbers: tuple[int | None, int | None, int | None],
    culture: Culture,
) -> tuple[int, int, int]:
    """Return live, rounded and lysed cells to draw."""
    if any(number is not None for number in numbers):
        if n_cells is not None or dead_fraction is not None:
            raise ValueError(
                "give either n_cells and dead_fraction or n_live, n_rounded and n_lysed, not both"
            )
        live, rounded, lysed = (number or 0 for number in numbers)
    else:
        n_cells = 60 if n_cells is None else n_cells
        dead_fraction = 0.1 if dead_fraction is None else dead_fraction
        if not 0 <= dead_fraction <= 1:
            raise ValueError(f"dead_fraction is {dead_fraction}; expected 0 to 1")
        dead = round(n_cells * dead_fraction)
        lysed = round(dead * culture.lysed_share)
        live, rounded = n_cells - dead, dead - lysed
    if min(live, rounded, lysed) < 0 or live + rounded + lysed > 20000:
        raise ValueError(
            f"{live} live, {rounded} rounded and {lysed} lysed cells; expected 0 to 20000 in all"
        )
    return live, rounded, lysed


def _seed(seed: int | None, rng: np.random.Generator | None) -> int:
    if seed is not None and rng is None:
        return seed
    if rng is not None and seed is None:
        return int(rng.integers(2**63))
    raise ValueError("give either seed or rng to render_field")


def check_arguments(modality: Modality, seed: int, size: tuple[int, int], um_per_px: float) -> None:
    """Raise ValueError if an argument of `render_field` is out of its range."""
    if modality not in ("phase", "brightfield"):
        raise ValueError(f"modality is {modality!r}; expected 'phase' or 'brightfield'")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    if not (16 <= size[0] <= 8192 and 16 <= size[1] <= 8192):
        raise ValueError(f"size is {size}; expected 16 to 8192 rows and columns")
    if not 0.1 <= um_per_px <= 4:
        raise ValueError(f"um_per_px is {um_per_px}; expected 0.1 to 4")
