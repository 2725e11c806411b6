"""The gate that generated images must pass before they train a model that ships (SCIENCE.md 6.4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device.records import Interval
from training.evaluation.resampling import corrected_lower

FIDELITY_MIN = 0.95


@dataclass(frozen=True, slots=True)
class PairedResult:
    """Balanced accuracies, 0 to 1, of three fits on one fold of real data, judged on the same images."""

    with_gan: float
    classical: float
    """Classical augmentation only."""
    duplicates: float
    """As many copies of real images as the GAN adds generated ones."""
    n_train: int
    n_test: int


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether generated images may train a model that ships (SCIENCE.md 6.4), as a card states it."""

    passed: bool
    n_folds: int
    lower_classical: float
    """Lower end of the one-sided 90 % interval of the gain over classical augmentation; -1 of one fold."""
    lower_duplicates: float
    """The same over the duplicate control."""
    note: str
    """Every reason against it."""


def pass_gate(
    results: Sequence[PairedResult],
    *,
    memorized: bool | None,
    fidelity: float | None,
    fidelity_real: Interval | None = None,
) -> GateResult:
    """Return whether generated images help for sure and are neither copies nor mislabeled.

    Parameters
    ----------
    results : sequence of PairedResult
        One of each fold of nested, grouped cross-validation.
    memorized : bool or None
        None where that could not be said, which does not pass.
    fidelity : float or None
        Smallest of any class, 0 to 1; 0.95 passes.
    fidelity_real : Interval or None
        Of the same judge on held-out real images of that class. A fidelity not below it passes too: no
        generator can be called right more often than real images (docs/decisions/0007).
    """
    lowers, faults = [], []
    for name in ("classical", "duplicates"):
        gains = [fold.with_gan - float(getattr(fold, name)) for fold in results]
        ratio = float(np.mean([fold.n_test / fold.n_train for fold in results])) if results else 0.0
        lower = corrected_lower(gains, ratio)
        lowers.append(-1.0 if lower is None else lower)
        if lowers[-1] <= 0:
            faults.append(f"no sure gain over {name}")
    if len(results) < 2:
        faults.append(f"{len(results)} folds are too few")
    if memorized is not False:
        faults.append("copies of training images" if memorized else "too few images to rule copies out")
    least = min(FIDELITY_MIN, fidelity_real.low) if fidelity_real else FIDELITY_MIN
    if fidelity is None or fidelity < least:
        faults.append("labels not obeyed" if fidelity is not None else "labels not checked")
    return GateResult(not faults, len(results), lowers[0], lowers[1], "; ".join(faults))
