"""What an experiment learns from and is judged on: real samples of two classes, and draws of labels."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from training.dataset import UNLABELED, read_dataset
from training.dataset.apart import require_apart
from training.dataset.samples import Samples, join_samples
from training.fields import bundle_samples

Ratio = Literal["equal", "natural"]
CLASSES = ("live", "dead")
"""Of cells; the second class, dead (of fields: toxic), is the positive one."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Real samples of both classes; what judges shares no image and no group with the others."""

    train: Samples
    """What a number of labels is drawn from."""
    everything: Samples
    """What `all` takes: split val too, where it does not judge."""
    judged: Samples


@lru_cache(maxsize=1)
def read_material(folder: Path, unit: str, split: str) -> Material:
    """Return what an experiment on a dataset folder draws labels from and is judged on.

    Parameters
    ----------
    folder : Path
        Dataset folder. Read once a process, whatever the number of tasks.
    unit : {"cell", "field"}
        One crop a true cell, live or dead, or whole fields.
    split : {"val", "test"}
        What judges.

    Raises
    ------
    ConfigError
        If a class is missing, all samples are of one group, or the two are not apart.
    """
    dataset = read_dataset(folder)
    train, judged = (bundle_samples(unit, CLASSES, dataset, name) for name in ("train", split))
    everything = train
    if split == "test":
        everything = join_samples([train, bundle_samples(unit, CLASSES, dataset, "val")])
    for name, samples in (("train", train), (split, judged)):
        empty = [label for label, n in samples.count().items() if n == 0]
        if empty:
            raise ConfigError(
                f"split {name} of {folder} has no {' and no '.join(empty)} (found {samples.count()}); "
                "expected both classes (another dataset, or --unit cell|field)"
            )
        if len(np.unique(samples.group)) < 2:
            raise ConfigError(
                f"split {name} of {folder} has one group; expected at least two: wells, not images, "
                "are independent (column group of manifest.csv)"
            )
    require_apart(everything, judged)
    return Material(train, everything, judged)


def draw_labels(samples: Samples, n: int | None, seed: int, ratio: Ratio) -> tuple[Samples, Samples]:
    """Return `n` samples with their labels, and the rest with every label forgotten (-1).

    Parameters
    ----------
    samples : Samples
        What may be drawn.
    n : int or None
        Labels in all; None takes every one.
    seed : int
        Equal seeds draw equal samples.
    ratio : {"equal", "natural"}
        As many of each class, or the shares that they have in `samples`, but two of each.

    Raises
    ------
    ConfigError
        If there are not so many labels.

    Notes
    -----
    Of each class the samples of whole groups, in random order, where they fit into what is still wanted; then
    single samples of others. A lab labels images, not cells strewn over all of them. Classes are drawn apart:
    drawn together, the rarer one would come from images without the other as soon as that is complete.
    """
    if n is None:
        return samples, _forget(samples.take(np.zeros(0, np.intp)))
    rng = np.random.default_rng((seed, n))
    chosen = np.zeros(len(samples), bool)
    for k, wanted in enumerate(_wanted(samples, n, ratio)):
        of_class = np.flatnonzero(samples.y == k)
        groups = [of_class[samples.group[of_class] == g] for g in rng.permutation(np.unique(samples.group))]
        for members in [*groups, *rng.permutation(of_class)[:, None]]:
            new = members[~chosen[members]]
            if len(new) <= wanted:
                chosen[new] = True
                wanted -= len(new)
    return samples.take(chosen), _forget(samples.take(~chosen))


def _wanted(samples: Samples, n: int, ratio: Ratio) -> NDArray[np.intp]:
    there = np.bincount(samples.y, minlength=len(samples.classes))
    share = np.full(len(there), 1 / len(there)) if ratio == "equal" else there / there.sum()
    wanted = np.maximum(np.floor(n * share), min(2, n // len(there))).astype(np.intp)
    wanted[there.argmax()] += n - wanted.sum()
    if (wanted > there).any():
        most = int(len(there) * there.min()) if ratio == "equal" else len(samples)
        raise ConfigError(
            f"--labels {n} in {ratio} ratio needs {wanted.tolist()} of {', '.join(samples.classes)}, there "
            f"are {there.tolist()}; expected at most {most} (or --labels all, or --ratio natural)"
        )
    return np.asarray(wanted, np.intp)


def _forget(samples: Samples) -> Samples:
    return replace(samples, y=np.full(len(samples), -1, np.intp), split=UNLABELED)
