"""Folds that divide no group, and the import of sets with masks and without splits into five of them."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from device.plates import DatasetInfo
from training.dataset import MANIFEST, Entry, ImportOptions, Samples, TrueCell, copy_images, write_dataset
from training.dataset.masks import mask_path, read_mask

N_FOLDS = 5


def import_masked(
    source: Path,
    out: Path,
    options: ImportOptions,
    info: DatasetInfo,
    *,
    group_of: Callable[[dict[str, str]], str],
    cells_of: Callable[[NDArray[np.uint16]], tuple[TrueCell, ...]] | None = None,
) -> None:
    """Write a folder of `manifest.csv` (file, mask), images and masks as a dataset folder.

    Parameters
    ----------
    source, out : Path
        Folder to read and dataset folder to write.
    options : ImportOptions
        Its seed is the fold: of five, that one (mod 5) is `test`, the next `val`, the others `train`.
    info : DatasetInfo
        What dataset.json says.
    group_of : callable
        Gives the group of a row of the manifest.
    cells_of : callable, optional
        Gives the cells of a mask, for sets in which they have classes; without it there is no `cells.csv`.

    Raises
    ------
    ConfigError
        If the table, a column or a file is missing.
    """
    try:
        with (source / MANIFEST).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        groups = [group_of(row) for row in rows]
        images = {source / row["file"]: out / row["file"] for row in rows}
        masks = {source / row["mask"]: mask_path(out, row["file"]) for row in rows}
    except (OSError, KeyError) as error:
        raise ConfigError(
            f"{source / MANIFEST} lacks {error}; expected the table of {info.origin}"
        ) from error
    copy_images(images | masks)
    folds = draw_folds(groups)
    entries = [
        Entry(row["file"], "", group, fold_split(folds[group], options.seed))
        for row, group in zip(rows, groups, strict=True)
    ]
    cells = None
    if cells_of:
        cells = {entry.file: cells_of(read_mask(mask_path(out, entry.file))) for entry in entries}
    write_dataset(out, info, entries, cells)


def draw_folds(groups: Iterable[str]) -> dict[str, int]:
    """Return a fold, 0 to 4, for each group: the largest first, each to the fold with fewest images."""
    sizes = Counter(groups)
    n_images, folds = [0] * N_FOLDS, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        folds[name] = n_images.index(min(n_images))
        n_images[folds[name]] += sizes[name]
    return folds


def fold_split(fold: int, seed: int) -> str:
    """Return the split of a fold: that of `seed` (mod 5) is `test`, the next `val`, the others `train`."""
    return ("test", "val", *["train"] * (N_FOLDS - 2))[(fold - seed) % N_FOLDS]


def group_folds(samples: Samples, n_folds: int, seed: int) -> NDArray[np.intp]:
    """Return the fold of each sample, 0 to n_folds - 1; no fold divides a group, classes spread evenly.

    Fewer groups than folds leave folds empty.
    """
    rng = np.random.default_rng(seed)
    _, place = np.unique(samples.group, return_inverse=True)
    table = np.zeros((place.max(initial=-1) + 1, len(samples.classes)))
    np.add.at(table, (place, samples.y), 1)
    share = table / np.maximum(table.sum(axis=0), 1)
    order = rng.permutation(len(table))
    load, fold = np.zeros((n_folds, table.shape[1])), np.zeros(len(table), np.intp)
    for g in order[np.argsort(-share[order].max(axis=1), kind="stable")]:
        fold[g] = np.argmin(np.square(load + share[g]).sum(axis=1) - np.square(load).sum(axis=1))
        load[fold[g]] += share[g]
    return fold[place]
