"""Fields of dishes that never were: single ones, those of a well, those of a plate."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.phantom.canvas import Canvas, draw_cell, draw_matter
from device.analysis.phantom.optics import expose, illuminate, intensity
from device.analysis.phantom.placement import Dish, place_cells
from device.analysis.phantom.settings import Culture, Optics, default_optics, vary, vary_culture
from device.analysis.phantom.truth import Phantom, read_truth, true_matter
from device.records import CellClass, Modality, PlateWell

_DENSITY_CV = 0.35  # of the number of cells between the fields of a well: standard deviation over mean


def render_field(
    *,
    modality: Modality,
    seed: int | None = None,
    rng: np.random.Generator | None = None,
    size: tuple[int, int] = (480, 640),
    um_per_px: float = 0.65,
    n_cells: int = 60,
    dead_fraction: float = 0.1,
    numbers: tuple[int, int, int] | None = None,
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
    n_cells : int
        Cells with their center in the field (more may reach in), at most 20000; `dead_fraction` of them are
        dead (0 to 1, rounded to whole cells), of these `culture.lysed_share` lysed.
    numbers : (int, int, int), optional
        Live, rounded and lysed cells, in place of what `n_cells` and `dead_fraction` give.
    optics : Optics, optional
        Default `default_optics(modality)`.
    culture : Culture, optional

    Raises
    ------
    ValueError
        If an argument is out of its range, or the cells do not fit.
    """
    if rng is not None and seed is None:
        seed = int(rng.integers(2**63))
    elif seed is None or rng is not None:
        raise ValueError("give either seed or rng to render_field")
    optics, culture = optics or default_optics(modality), culture or Culture()
    numbers = numbers or _split(n_cells, dead_fraction, culture.lysed_share)
    counts = dict(zip(("n_live", "n_rounded", "n_lysed"), numbers, strict=True))
    _check_arguments(modality, seed, size, um_per_px)
    if min(numbers) < 0 or sum(numbers) > 20000:
        raise ValueError(f"live, rounded and lysed cells are {numbers}; expected 0 to 20000 in all")
    draw = np.random.Generator(np.random.PCG64(seed))
    canvas = Canvas(size, um_per_px)
    dish = Dish(size[0] * um_per_px, size[1] * um_per_px, draw)
    matter = draw_matter(canvas, dish, culture)
    sites = place_cells(dish, **counts, culture=culture)
    areas = [draw_cell(canvas, site, index, culture, draw) for index, site in enumerate(sites, start=1)]
    image = expose(illuminate(light_on_sensor(canvas, size, modality, optics), optics, draw), optics, draw)
    labels, cells = read_truth(canvas, sites, areas)
    live = [cell.region for cell in cells if cell.cell_class is CellClass.LIVE]
    parameters = {
        "modality": modality,
        "height_px": size[0],
        "width_px": size[1],
        "um_per_px": um_per_px,
        **counts,
        "optics": asdict(optics),
        "culture": asdict(culture),
        "confluence": float(np.isin(labels, live).mean()),
    }
    image.flags.writeable = False
    labels.flags.writeable = False
    return Phantom(image, labels, (*cells, *true_matter(matter, size, um_per_px)), parameters, seed)


def light_on_sensor(
    canvas: Canvas, size: tuple[int, int], modality: Modality, optics: Optics
) -> NDArray[np.float32]:
    """Return the light of a drawn dish on a sensor of `size` (rows, columns), 1 where it is empty."""
    path = canvas.live + canvas.others
    light = intensity(path, canvas.absorbance, canvas.um_per_px, modality=modality, optics=optics)
    light = np.ascontiguousarray(light[canvas.view])
    if canvas.binning > 1:
        light = cv2.resize(light, size[::-1], interpolation=cv2.INTER_AREA)
    return light


def _split(n_cells: int, dead_fraction: float, lysed_share: float) -> tuple[int, int, int]:
    """Return live, rounded and lysed cells among `n_cells`."""
    if not 0 <= dead_fraction <= 1:
        raise ValueError(f"dead_fraction is {dead_fraction}; expected 0 to 1")
    dead = round(n_cells * dead_fraction)
    lysed = round(dead * lysed_share)
    return n_cells - dead, dead - lysed, lysed


def _check_arguments(modality: Modality, seed: int, size: tuple[int, int], um_per_px: float) -> None:
    if modality not in ("phase", "brightfield"):
        raise ValueError(f"modality is {modality!r}; expected 'phase' or 'brightfield'")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    if not (16 <= size[0] <= 8192 and 16 <= size[1] <= 8192):
        raise ValueError(f"size is {size}; expected 16 to 8192 rows and columns")
    if not 0.1 <= um_per_px <= 4:
        raise ValueError(f"um_per_px is {um_per_px}; expected 0.1 to 4")


def render_well(
    dead_fraction: float,
    rho: float = 0.03,
    fields: int | None = 10,
    *,
    seed: int,
    modality: Modality,
    n_cells: int = 60,
    size: tuple[int, int] = (480, 640),
    um_per_px: float = 0.65,
    varied: bool = False,
) -> Iterator[Phantom]:
    """Return the fields of a well one by one: fractions scatter between fields as the interval assumes.

    Parameters
    ----------
    dead_fraction : float
        Of the well, 0 to 1.
    rho : float
        Correlation of cells within a field, 0 to less than 1; 0 gives every field the fraction of the well.
    fields : int or None
        None never ends. Field i is the same whatever the number.
    n_cells : int
        Mean number of cells in a field, at least 0.
    seed, modality, size, um_per_px
        As for `render_field`.
    varied : bool
        Draw microscope and dish of each field from the training ranges, instead of the defaults.

    Raises
    ------
    ValueError
        At once if an argument is out of its range; while rendering if the cells of a field do not fit.

    Notes
    -----
    The dead of a field are binomial with a fraction from Beta(p (1-rho)/rho, (1-p) (1-rho)/rho).
    """
    if not 0 <= dead_fraction <= 1:
        raise ValueError(f"dead_fraction is {dead_fraction}; expected 0 to 1")
    if not 0 <= rho < 1:
        raise ValueError(f"rho is {rho}; expected 0 to less than 1")
    if n_cells < 0:
        raise ValueError(f"n_cells is {n_cells}; expected 0 or more")
    _check_arguments(modality, seed, size, um_per_px)

    def render(field: int) -> Phantom:
        draw = np.random.Generator(np.random.PCG64([seed, field]))
        optics = vary(draw, modality) if varied else None
        culture = vary_culture(draw) if varied else Culture()
        dead, number = _field_numbers(dead_fraction, rho, n_cells, _DENSITY_CV, draw)
        lysed = draw.binomial(dead, culture.lysed_share)
        return render_field(
            modality=modality,
            rng=draw,
            size=size,
            um_per_px=um_per_px,
            numbers=(number - dead, dead - lysed, lysed),
            optics=optics,
            culture=culture,
        )

    return map(render, itertools.count() if fields is None else range(fields))


def _field_numbers(
    dead_fraction: float, rho: float, n_cells: int, density_cv: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Return dead and all cells of one field; all are gamma-distributed, at most 2.5 times the mean."""
    share, number = dead_fraction, n_cells
    if rho > 0 and 0 < dead_fraction < 1:
        scale = (1 - rho) / rho
        share = rng.beta(dead_fraction * scale, (1 - dead_fraction) * scale)
    if density_cv > 0 and n_cells > 0:
        shape = 1 / density_cv**2
        number = min(round(rng.gamma(shape, n_cells / shape)), round(2.5 * n_cells))
    return int(rng.binomial(number, share)), number


def render_plate(
    wells: Sequence[PlateWell],
    *,
    seed: int,
    fields: int = 10,
    **options: Any,  # noqa: ANN401 - modality, rho, n_cells, size, um_per_px, varied of `render_well`
) -> Iterator[tuple[PlateWell, int, Phantom]]:
    """Return the fields of all wells in the order of the plate, as (well, field from 0, phantom).

    A well shows the same fields whatever the other wells are: its seed comes from `seed` and its name.

    Parameters
    ----------
    wells : sequence of PlateWell
        Each with its `dead_fraction`; its own `fields` come before the argument.
    seed, fields, **options
        As for `render_well`.

    Raises
    ------
    ValueError
        If a well states no dead fraction, or as `render_well`.
    """
    unknown = [well.well for well in wells if well.dead_fraction is None]
    if unknown:
        raise ValueError(
            f"well {', '.join(unknown)} has no dead_fraction; expected 0 to 1 in this column of plate.csv, "
            "because the phantom renders what it says"
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    rendered = []
    for well in wells:
        own = np.random.SeedSequence([seed, *well.well.encode()]).generate_state(1, np.uint64)
        number = fields if well.fields is None else well.fields
        rendered.append(render_well(well.dead_fraction or 0.0, fields=number, seed=int(own[0]), **options))
    return (
        (well, field, phantom)
        for well, several in zip(wells, rendered, strict=True)
        for field, phantom in enumerate(several)
    )
