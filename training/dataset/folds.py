"""Folds that divide no group."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from training.dataset.samples import Samples

N_FOLDS = 5


def draw_folds(groups: Iterable[str]) -> dict[str, int]:
    """Return a fold, 0 to 4, for each group: the largest first, each to the fold with fewest images."""
    sizes = Counter(groups)
    n_images, folds = [0] * N_FOLDS, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        folds[name] = n_images.index(min(n_images))
        n_images[folds[name]] += sizes[name]
    return folds


def fold_splits(groups: Iterable[str], seed: int) -> dict[str, str]:
    """Return a split for each group: fold `seed` (mod 5) is `test`, the next `val`, the others `train`."""
    splits = ("test", "val", *["train"] * (N_FOLDS - 2))
    return {group: splits[(fold - seed) % N_FOLDS] for group, fold in draw_folds(groups).items()}


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
