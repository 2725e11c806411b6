"""The fields of a well and of a plate, scattering as the verdict's interval assumes."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from device.analysis.phantom.render import check_arguments, render_field
from device.analysis.phantom.settings import Culture, Optics, vary, vary_culture
from device.analysis.phantom.truth import Phantom
from device.records import Modality, PlateWell


def render_well(
    dead_fraction: float,
    rho: float = 0.03,
    fields: int | None = 10,
    *,
    seed: int,
    modality: Modality,
    n_cells: int = 60,
    density_cv: float = 0.35,
    size: tuple[int, int] = (480, 640),
    um_per_px: float = 0.65,
    optics: Optics | None = None,
    culture: Culture | None = None,
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
        At least 0; None never ends.
    seed : int
        Field i is the same whatever `fields` is, >= 0.
    modality : {"phase", "brightfield"}
    n_cells : int
        Mean number of cells in a field, at least 0.
    density_cv : float
        Spread of that number between fields (standard deviation over mean), 0 to 1.
    size, um_per_px, optics, culture
        As for `render_field`.
    varied : bool
        Draw microscope and dish of each field from the training ranges, instead of `optics` and `culture`.

    Returns
    -------
    iterator of Phantom
        The dead of a field are binomial with a fraction from Beta(p (1-rho)/rho, (1-p) (1-rho)/rho).

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    for name, value, fits in (
        ("dead_fraction", dead_fraction, 0 <= dead_fraction <= 1),
        ("rho", rho, 0 <= rho < 1),
        ("density_cv", density_cv, 0 <= density_cv <= 1),
    ):
        if not fits:
            raise ValueError(f"{name} is {value}; expected 0 to {'less than ' * (name == 'rho')}1")
    if n_cells < 0:
        raise ValueError(f"n_cells is {n_cells}; expected 0 or more")
    if varied and (optics or culture):
        raise ValueError("give either varied or optics and culture to render_well")
    check_arguments(modality, seed, size, um_per_px)

    def render(field: int) -> Phantom:
        draw = np.random.Generator(np.random.PCG64([seed, field]))
        scope = vary(draw, modality) if varied else optics
        dish = vary_culture(draw) if varied else culture or Culture()
        dead, number = _field_numbers(dead_fraction, rho, n_cells, density_cv, draw)
        lysed = int(draw.binomial(dead, dish.lysed_share))
        return render_field(
            modality=modality,
            rng=draw,
            size=size,
            um_per_px=um_per_px,
            n_live=number - dead,
            n_rounded=dead - lysed,
            n_lysed=lysed,
            optics=scope,
            culture=dish,
        )

    return map(render, itertools.count() if fields is None else range(fields))


def render_plate(
    wells: Sequence[PlateWell],
    *,
    seed: int,
    modality: Modality,
    fields: int = 10,
    rho: float = 0.03,
    n_cells: int = 60,
    size: tuple[int, int] = (480, 640),
    um_per_px: float = 0.65,
    varied: bool = False,
) -> Iterator[tuple[PlateWell, int, Phantom]]:
    """Return the fields of all wells in the order of the plate, as (well, field from 0, phantom).

    A well shows the same fields whatever the other wells are: its seed comes from `seed` and its name.

    Parameters
    ----------
    wells : sequence of PlateWell
        Each with its `dead_fraction`; its own `fields` come before the argument.
    seed, modality, fields, rho, n_cells, size, um_per_px, varied
        As for `render_well`.

    Raises
    ------
    ValueError
        If a well states no dead fraction, or an argument is out of its range.
    """
    unknown = [well.well for well in wells if well.dead_fraction is None]
    if unknown:
        raise ValueError(
            f"well {', '.join(unknown)} has no dead_fraction; expected 0 to 1 in this column of plate.csv, "
            "because the phantom renders what it says"
        )
    rendered = [
        render_well(
            well.dead_fraction or 0.0,
            rho,
            fields if well.fields is None else well.fields,
            seed=_well_seed(seed, well.well),
            modality=modality,
            n_cells=n_cells,
            size=size,
            um_per_px=um_per_px,
            varied=varied,
        )
        for well in wells
    ]
    return (
        (well, field, phantom)
        for well, several in zip(wells, rendered, strict=True)
        for field, phantom in enumerate(several)
    )


def _well_seed(seed: int, name: str) -> int:
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0])


def _field_numbers(
    dead_fraction: float, rho: float, n_cells: int, density_cv: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Return dead and all cells of one field of a well."""
    share = _field_share(dead_fraction, rho, rng)
    number = n_cells if density_cv == 0 or n_cells == 0 else _crowd(n_cells, density_cv, rng)
    return int(rng.binomial(number, share)), number


def _field_share(dead_fraction: float, rho: float, rng: np.random.Generator) -> float:
    if rho == 0 or dead_fraction in (0, 1):
        return dead_fraction
    scale = (1 - rho) / rho
    return float(rng.beta(dead_fraction * scale, (1 - dead_fraction) * scale))


def _crowd(n_cells: int, density_cv: float, rng: np.random.Generator) -> int:
    """Return a gamma-distributed number of cells with this mean and spread, at most 2.5 times the mean."""
    shape = 1 / density_cv**2
    return min(round(float(rng.gamma(shape, n_cells / shape))), round(2.5 * n_cells))
