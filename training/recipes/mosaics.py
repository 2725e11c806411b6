"""Mosaics: 16 tiles of a chamber set side by side as one field of view, with the true cells of all."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device.records import DEAD_CLASSES, CellClass
from training.dataset import TrueCell
from training.export.acceptance import MOSAIC_TILES
from training.labeling import LabeledField

TILE = (219, 220)
"""Rows and columns that nearly all tiles of ldc have; smaller ones are left out."""
SHARES = (0.02, 0.6)
"""Least and largest share of dead cells that mosaics are drawn for."""
_A_ROW = 4


def even_tiles(fields: Iterable[LabeledField]) -> list[LabeledField]:
    """Return the tiles that are large enough, in one size and at one gray level, with the cells in them."""
    large = [field for field in fields if np.all(np.greater_equal(field.image.shape, TILE))]
    levels = [np.median(field.image) for field in large]
    middle = np.median(levels) if levels else 0.0
    tiles = []
    for field, level in zip(large, levels, strict=True):
        image = np.clip(np.rint(field.image[: TILE[0], : TILE[1]] / level * middle), 0, 255)
        cells = tuple(cell for cell in field.cells if cell.row < TILE[0] and cell.col < TILE[1])
        tiles.append(LabeledField(image.astype(np.uint8), cells, field.group))
    return tiles


def count_dead(tiles: Iterable[LabeledField]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of dead and of all cells of each tile."""
    labels = [[cell.label for cell in tile.cells] for tile in tiles]
    dead = np.array([sum(label in DEAD_CLASSES for label in several) for several in labels], np.int64)
    return dead, dead + np.array([several.count(CellClass.LIVE) for several in labels], np.int64)


def tilt(dead: NDArray[np.int64], cells: NDArray[np.int64], target: float) -> NDArray[np.float64]:
    """Return how likely each tile is drawn for a `target` share of dead cells, as evenly as that allows."""
    if not target:
        return np.asarray((dead == 0) / np.sum(dead == 0), np.float64)
    away = dead - target * cells
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(middle * away - (middle * away).max())
        low, high = (middle, high) if weights @ away < 0 else (low, middle)
    share: NDArray[np.float64] = weights / weights.sum()
    return share


def mosaic(tiles: Sequence[LabeledField], group: str) -> LabeledField:
    """Return 16 even tiles as one field, four a row."""
    rows = [np.hstack([t.image for t in tiles[i : i + _A_ROW]]) for i in range(0, MOSAIC_TILES, _A_ROW)]
    cells: list[TrueCell] = []
    for place, tile in enumerate(tiles):
        down, right = place // _A_ROW * TILE[0], place % _A_ROW * TILE[1]
        cells += [
            replace(c, xmin=c.xmin + right, xmax=c.xmax + right, ymin=c.ymin + down, ymax=c.ymax + down)
            for c in tile.cells
        ]
    return LabeledField(np.vstack(rows), tuple(cells), group)


def draw_mosaics(
    fields: Iterable[LabeledField], count: int, *, pools: int = 1, seed: int
) -> Iterator[LabeledField]:
    """Yield `count` mosaics, each of another share of dead cells, drawn from tiles of one split.

    Parameters
    ----------
    fields : iterable of LabeledField
        Tiles of one split.
    count : int
        Mosaics, over all pools.
    pools : int
        Groups of tiles are dealt to as many pools, those with dead cells evenly; a mosaic takes its tiles
        from one, with replacement, and names it as its group: mosaics of two pools share no cell, so that
        intervals over groups are honest.
    seed : int
        Of the draws.
    """
    tiles = even_tiles(fields)
    dead, _ = count_dead(tiles)
    families: dict[str, int] = {}
    for tile, n in zip(tiles, dead.tolist(), strict=True):
        families[tile.group] = families.get(tile.group, 0) + n
    order = {name: i for i, name in enumerate(sorted(families, key=lambda name: (-families[name], name)))}
    for pool in range(pools):
        mine = [tile for tile in tiles if order[tile.group] % pools == pool]
        counts = count_dead(mine)
        for index in range(pool, count, pools):
            rng = np.random.default_rng((seed, index))
            drawn = rng.choice(len(mine), MOSAIC_TILES, p=tilt(*counts, float(rng.uniform(*SHARES))))
            yield mosaic([mine[i] for i in drawn], f"pool-{pool}")
