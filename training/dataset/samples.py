"""Samples: the images and labels that a learner is fitted to or judged on, whatever they came from."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """28x28 images with their labels: what a learner is fitted on."""

    x: NDArray[np.uint8]
    """(N, 28, 28) as `device.analysis.crops` makes them."""
    y: NDArray[np.intp]
    """(N,) index into `classes`."""
    group: NDArray[np.str_]
    """(N,) group of the image that each came from."""
    split: str
    source: str
    """The dataset's folder name, `rendered`, or `generated` (by a GAN; never validation data)."""
    classes: tuple[str, ...]
    density: NDArray[np.float32] | None = None
    """(N, R, C, K) true density of cells that speak for each class, for learners that are taught where."""
    whole: NDArray[np.intp] | None = None
    """(N, 2) number and class of the whole field that each is a tile of; None where each is a whole."""

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Samples":
        """Return the samples at `index` (positions or a mask)."""
        density = None if self.density is None else self.density[index]
        whole = None if self.whole is None else self.whole[index]
        x, y, group = self.x[index], self.y[index], self.group[index]
        return Samples(x, y, group, self.split, self.source, self.classes, density, whole)

    def count(self) -> dict[str, int]:
        """Return how many samples each class has."""
        return {name: int(np.sum(self.y == i)) for i, name in enumerate(self.classes)}


def join_samples(parts: Iterable[Samples]) -> Samples:
    """Return all `parts` as one, in their order; split and source are those of the first.

    Raises
    ------
    ValueError
        If there are none, or their classes differ.
    """
    several = list(parts)
    if not several or any(part.classes != several[0].classes for part in several):
        raise ValueError(
            f"samples of {[part.classes for part in several]}; expected one or more of equal classes"
        )
    first = several[0]
    density = [part.density for part in several if part.density is not None]
    wholes, n_wholes = [], 0
    for whole in (part.whole for part in several if part.whole is not None):
        wholes.append(whole + np.array([n_wholes, 0]))
        n_wholes += int(whole[:, 0].max(initial=-1)) + 1
    return Samples(
        np.concatenate([part.x for part in several]),
        np.concatenate([part.y for part in several]),
        np.concatenate([part.group for part in several]),
        first.split,
        first.source,
        first.classes,
        np.concatenate(density) if len(density) == len(several) else None,
        np.concatenate(wholes) if len(wholes) == len(several) else None,
    )


class SampleOrder:
    """Gives positions of training samples: shuffled passes, or equally many of each class."""

    def __init__(self, y: NDArray[np.intp], balanced: bool, rng: np.random.Generator) -> None:
        classes = [np.flatnonzero(y == k) for k in np.unique(y)]
        self._pools = classes if balanced else [np.arange(len(y))]
        self._rng = rng
        self._queues: list[NDArray[np.intp]] = [np.zeros(0, np.intp) for _ in self._pools]

    def take(self, count: int) -> NDArray[np.intp]:
        """Return the next `count` positions."""
        which = (np.arange(count) + self._rng.integers(len(self._pools))) % len(self._pools)
        return np.concatenate([self._from(k, int(np.sum(which == k))) for k in range(len(self._pools))])

    def _from(self, k: int, count: int) -> NDArray[np.intp]:
        while len(self._queues[k]) < count:
            self._queues[k] = np.concatenate([self._queues[k], self._rng.permutation(self._pools[k])])
        taken, self._queues[k] = self._queues[k][:count], self._queues[k][count:]
        return taken
