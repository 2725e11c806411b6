"""What images of a GAN are worth beside real ones: a report for each class.

Features are those of a frozen network, (N, D). Each figure of one class stands beside what real images show,
and is None where there are too few images to say.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.records import Interval
from training.dataset.symmetry import symmetries
from training.evaluation.domain_gap import N_FOLDS, c2st_auc
from training.evaluation.resampling import share_wilson

SUBSET_MAX = 100
"""Images a side of one KID."""
SUBSET_MIN = 20
"""With smaller subsets nothing is said of a KID, nor of copies and diversity with twice as few held out."""
N_SUBSETS = 100
NEIGHBORS = 5
"""Of coverage: equal sets of images cover 1 - 0.5^5, 97 % (Naeem et al. 2020)."""
CLOSE_RATIO = 0.9
CLOSE_SHARE = 0.01

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
    """Median distance to the nearest training image, generated over held-out; copies pull it below 0.9, and
    so does blur: a smooth image is near to all."""
    copied: Interval | None
    """Of the share nearer to a training image than 99 % of those are to each other (Wilson)."""
    copied_held_out: float | None
    """The same share of held-out images, which are no copies."""
    memorized: bool | None
    """`nearest_ratio` below 0.9, or `copied` for sure above 1 % and above the held-out share."""
    diversity: float | None
    """Mean distance of features of two generated over two held-out images; a collapse pulls it to 0."""
    coverage: float | None
    """Share of held-out images with a generated one among as near as their fifth neighbor."""
    density: float | None
    """Held-out images that have a generated one so near, over five and by generated image: 1 for equal sets,
    less where generated ones lie off (Naeem et al. 2020)."""
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
    overfit: float | None = None
    """How far the discriminator puts training above held-out images, over how far above generated ones: 0
    where it knows none by heart, 1 where held-out ones look generated to it (Karras et al. 2020)."""


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
    kid = halves = held = diversity = coverage = density = None
    if size >= SUBSET_MIN:
        kid = subset_kid(generated.features, train.features, size, rng)
        held = subset_kid(held_out.features, train.features, size, rng)
        halves = halves_kid(train, size, rng)
    near, copied, known = None, None, None
    if min(len(held_out.x), len(generated.x)) >= 2 * SUBSET_MIN and len(train.x) > 1:
        near, share, known = find_copies(train.x, held_out.x, generated.x)
        copied = share_wilson(round(share * len(generated.x)), len(generated.x))
        diversity = _spread(generated.features) / max(_spread(held_out.features), 1e-12)
        coverage, density = measure_coverage(held_out.features, generated.features, rng)
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
        copied_held_out=known,
        memorized=_is_memorized(near, copied, known),
        diversity=diversity,
        coverage=coverage,
        density=density,
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
) -> tuple[float, float, float]:
    """Return the ratio of median distances to the training images, and the shares that lie close to one.

    Parameters
    ----------
    train, held_out, generated : (N, h, h) ndarray of uint8
        At least two of `train`, one of each other. A turned or mirrored copy is a copy.

    Returns
    -------
    float, float, float
        Generated over held-out: about 1 where neither knows the training images. Shares 0 to 1 of generated
        and of held-out images nearer to their nearest training image than 99 % of these are to theirs.
    """
    known = np.quantile(_nearest(train, train, others=True), 0.01)
    made, new = _nearest(generated, train), _nearest(held_out, train)
    ratio = float(np.median(made)) / max(float(np.median(new)), 1e-12)
    return ratio, float(np.mean(made < known)), float(np.mean(new < known))


def measure_coverage(real: Floats, generated: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return coverage and density of real features by generated ones, as in `Quality`.

    Of equally many of both, more than five: coverage grows with the generated.
    """
    n = min(len(real), len(generated))
    real, generated = (part[rng.choice(len(part), n, replace=False)] for part in (real, generated))
    reach = np.sort(_distances(real, real), axis=1)[:, NEIGHBORS]  # the first is itself
    near = _distances(real, generated) <= reach[:, None]
    return float(near.any(axis=1).mean()), float(near.sum() / (NEIGHBORS * n))


def measure_overfit(train: Floats, held_out: Floats, generated: Floats) -> float | None:
    """Return `Quality.overfit` from a discriminator's logits; None without some of each or if it is blind."""
    if not (len(train) and len(held_out) and train.mean() > generated.mean()):
        return None
    return float((train.mean() - held_out.mean()) / (train.mean() - generated.mean()))


def _is_memorized(near: float | None, copied: Interval | None, known: float | None) -> bool | None:
    if near is None or copied is None or known is None:
        return None
    return near < CLOSE_RATIO or copied.low > max(CLOSE_SHARE, known)


def _compare(kid: Kid | None, floors: list[Kid]) -> str:
    if kid is None or not floors:
        return "too few images to say"
    if kid.interval.low > max(floor.interval.high for floor in floors):
        return "above the floor of real images"
    if kid.mean <= max(floor.interval.high for floor in floors):
        return "within the floor of real images"
    return "perhaps above the floor of real images"


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
    for turned in symmetries(a):
        found = np.minimum(found, _distances(turned.reshape(len(a), -1).astype(np.float64), flat))
    if others:
        np.fill_diagonal(found, np.inf)
    return np.asarray(found.min(axis=1) / np.sqrt(flat.shape[1]))
