"""What images of a GAN are worth beside real ones: a report for each class, and the gate that they must pass.

Features are those of a frozen network, (N, D). Each figure of one class stands beside what real images show,
and is None where there are too few images to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.records import Interval
from training.evaluation.domain_gap import N_FOLDS, c2st_auc
from training.evaluation.resampling import corrected_lower, share_wilson

SUBSET_MAX = 100
"""Images a side of one KID."""
SUBSET_MIN = 20
"""With smaller subsets nothing is said of a KID, of copies and of diversity."""
N_SUBSETS = 100
NEIGHBORS = 5
"""Of coverage: equal sets of images cover 1 - 0.5^5, 97 % (Naeem et al. 2020)."""
CLOSE_RATIO = 0.9
CLOSE_SHARE = 0.01
FIDELITY_MIN = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images of one class with their features."""

    x: NDArray[np.uint8]
    """(N, 28, 28)."""
    features: Floats
    """(N, D)."""
    group: list[str]
    """(N,) what must not be divided."""
    called: NDArray[np.intp]
    """(N,) class that a classifier gives, fitted to real training images only."""


@dataclass(frozen=True, slots=True)
class Kid:
    """Kernel inception distance over random subsets: mean and the interval of 95 % of them."""

    mean: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Quality:
    """Images that a GAN made of one class beside the real ones it was fitted on and those it never saw."""

    n_train: int
    n_held_out: int
    n_generated: int
    kid: Kid | None
    """Generated against real training images."""
    kid_halves: Kid | None
    """Floor: one half of the training images against the other, groups kept whole."""
    kid_held_out: Kid | None
    """Floor: held-out against training images, which the features were fitted on."""
    nearest_ratio: float | None
    """Median distance to the nearest training image, generated over held-out; copies pull it below 0.9."""
    copied: float | None
    """Share nearer to a training image than 99 % of those are to each other."""
    memorized: bool | None
    """`nearest_ratio` below 0.9, or `copied` above 1 %."""
    diversity: float | None
    """Mean distance of features of two generated over two held-out images; a collapse pulls it to 0."""
    coverage: float | None
    """Share of held-out images with a generated one among as near as their fifth neighbor."""
    fidelity: float
    """Share of generated images that the classifier gives the class they were asked for."""
    fidelity_interval: Interval
    fidelity_held_out: float | None
    """The same of held-out real images."""
    c2st_auc: float | None
    """Held-out real against generated: 0.5 is alike, 1 is told apart always."""
    c2st_interval: Interval | None
    verdict: str
    """What the KID says in words."""


def judge_generated(
    train: Images, held_out: Images, generated: Images, class_index: int, *, seed: int = 0
) -> Quality:
    """Return the report on one class.

    Parameters
    ----------
    train, held_out : Images
        Real: what the GAN was fitted on, and what it never saw; may be few or none.
    generated : Images
        At least one.
    class_index : int
        The class they were asked for.
    seed : int
        Of subsets and folds.
    """
    rng = np.random.default_rng(seed)
    size = min(SUBSET_MAX, *(len(part.x) // 2 for part in (train, held_out, generated)))
    kid = halves = held = near = copied = diversity = coverage = None
    if size >= SUBSET_MIN:
        kid = subset_kid(generated.features, train.features, size, rng)
        held = subset_kid(held_out.features, train.features, size, rng)
        halves = halves_kid(train, size, rng)
        near, copied = find_copies(train.x, held_out.x, generated.x)
        diversity = _spread(generated.features) / max(_spread(held_out.features), 1e-12)
        coverage = measure_coverage(held_out.features, generated.features, rng)
    auc, auc_interval = None, None
    if min(len(set(held_out.group)), len(generated.x)) >= N_FOLDS:
        names = [str(i) for i in range(len(generated.x))]
        auc, auc_interval = c2st_auc(held_out.features, generated.features, held_out.group, names, seed=seed)
    right = int(np.sum(generated.called == class_index))
    fidelity = share_wilson(right, len(generated.x))
    if fidelity is None:
        raise ValueError("no generated images of a class; expected at least one")
    return Quality(
        n_train=len(train.x),
        n_held_out=len(held_out.x),
        n_generated=len(generated.x),
        kid=kid,
        kid_halves=halves,
        kid_held_out=held,
        nearest_ratio=near,
        copied=copied,
        memorized=None if near is None or copied is None else near < CLOSE_RATIO or copied > CLOSE_SHARE,
        diversity=diversity,
        coverage=coverage,
        fidelity=right / len(generated.x),
        fidelity_interval=fidelity,
        fidelity_held_out=float(np.mean(held_out.called == class_index)) if len(held_out.x) else None,
        c2st_auc=auc,
        c2st_interval=auc_interval,
        verdict=_compare(kid, [floor for floor in (halves, held) if floor]),
    )


def measure_kid(a: Floats, b: Floats) -> float:
    """Return the unbiased squared MMD of (N, D) and (M, D) features, N, M > 1, kernel (x.y / D + 1)^3.

    Below zero as often as above where both are of one distribution (Binkowski et al. 2018).
    """
    within, other, between = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    means = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (within, other)]
    return float(sum(means) - 2 * between.mean())


def subset_kid(a: Floats, b: Floats, size: int, rng: np.random.Generator) -> Kid:
    """Return the KID of random subsets of `size` images of each, drawn without replacement."""
    return _summarize(
        [
            measure_kid(*(part[rng.choice(len(part), size, replace=False)] for part in (a, b)))
            for _ in range(N_SUBSETS)
        ]
    )


def halves_kid(images: Images, size: int, rng: np.random.Generator) -> Kid | None:
    """Return the KID of random halves of one set at up to `size` images each; None for one group."""
    names, inverse = np.unique(images.group, return_inverse=True)
    if len(names) < 2:
        return None
    found = []
    for _ in range(N_SUBSETS):
        in_first = np.isin(inverse, rng.permutation(len(names))[: len(names) // 2])
        parts = [rng.permutation(images.features[side])[:size] for side in (in_first, ~in_first)]
        if min(len(part) for part in parts) > 1:
            found.append(measure_kid(*parts))
    return _summarize(found) if found else None


def find_copies(
    train: NDArray[np.uint8], held_out: NDArray[np.uint8], generated: NDArray[np.uint8]
) -> tuple[float, float]:
    """Return the ratio of median distances to the training images, and the share of copies among `generated`.

    Parameters
    ----------
    train, held_out, generated : (N, h, h) ndarray of uint8
        At least two of `train`, one of each other. A turned or mirrored copy is a copy.

    Returns
    -------
    float, float
        Generated over held-out: about 1 where neither knows the training images. Share 0 to 1 that is nearer
        to its nearest training image than 99 % of training images are to theirs.
    """
    known = np.quantile(_nearest(train, train, others=True), 0.01)
    made = _nearest(generated, train)
    median = max(float(np.median(_nearest(held_out, train))), 1e-12)
    return float(np.median(made)) / median, float(np.mean(made < known))


def measure_coverage(real: Floats, generated: Floats, rng: np.random.Generator) -> float:
    """Return the share of real features with a generated one within their fifth neighbor's distance.

    Of equally many of both, more than five: the share grows with the generated.
    """
    n = min(len(real), len(generated))
    real, generated = (part[rng.choice(len(part), n, replace=False)] for part in (real, generated))
    reach = np.sort(_distances(real, real), axis=1)[:, NEIGHBORS]  # the first is itself
    return float(np.mean(_distances(real, generated).min(axis=1) <= reach))


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
    results: Sequence[PairedResult], *, memorized: bool | None, fidelity: float | None
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
    if fidelity is None or fidelity < FIDELITY_MIN:
        faults.append("labels not obeyed" if fidelity is not None else "labels not checked")
    return GateResult(not faults, len(results), lowers[0], lowers[1], "; ".join(faults))


def _compare(kid: Kid | None, floors: list[Kid]) -> str:
    if kid is None or not floors:
        return "too few images to say"
    if kid.interval.low > max(floor.interval.high for floor in floors):
        return "farther from real images than these from each other"
    if kid.mean <= max(floor.interval.high for floor in floors):
        return "as near to real images as these to each other"
    return "cannot tell whether farther than real images from each other"


def _summarize(found: list[float]) -> Kid:
    low, high = np.quantile(found, [0.025, 0.975])
    return Kid(float(np.mean(found)), Interval(float(low), float(high)))


def _spread(features: Floats) -> float:
    n = len(features)
    return float(_distances(features, features).sum() / (n * (n - 1)))


def _distances(a: Floats, b: Floats) -> Floats:
    square = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(square, 0)))


def _nearest(a: NDArray[np.uint8], b: NDArray[np.uint8], *, others: bool = False) -> Floats:
    """Return the distance, gray levels (RMS), of each image of `a` to the nearest of `b` in 8 symmetries."""
    flat = b.reshape(len(b), -1).astype(np.float64)
    found = np.full((len(a), len(b)), np.inf)
    for k in range(8):
        turned = np.rot90(a[:, :, ::-1] if k >= 4 else a, k % 4, axes=(1, 2)).reshape(len(a), -1)
        found = np.minimum(found, _distances(turned.astype(np.float64), flat))
    if others:
        np.fill_diagonal(found, np.inf)
    return np.asarray(found.min(axis=1) / np.sqrt(flat.shape[1]))
