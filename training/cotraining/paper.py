"""Profile `paper` of co-training: Algorithm 1 with Table 2's network twice and a GAN for each class."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training.cotraining import MAX_ROUNDS, CoTraining, Predict, co_train
from training.dataset.samples import Samples, join_samples
from training.fitting import CALIBRATION_MIN, FitSettings, Fitted, fit_network, predict_logits
from training.gan import Gan, GanSettings, generate_samples
from training.gan.paper import open_gans

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """The paper's recipe; each field one line: meaning, unit, range."""

    n_labeled: int = 35
    """Labeled images, > 1."""
    n_generated: int = 150
    """Generated images a round and at the end; 0 fits no GAN, >= 0."""
    max_rounds: int = MAX_ROUNDS
    """Rounds of Algorithm 1 at most, > 0."""
    refit_steps: int = 300
    """GAN steps of each later round, which starts from the GAN of the round before, > 0."""
    gan: GanSettings = field(default_factory=GanSettings)
    """Of the first round."""
    fit: FitSettings = field(
        default_factory=lambda: FitSettings("table2", epochs=20, batch=32, balanced=False)
    )
    """Of both learners and of TC."""
    validation: float = 0.2
    """Share of the real labeled images that TC is chosen on: the paper's 80/20, 0 to 1."""
    seed: int = 0
    """Of the choice of labeled images, the split and all fits."""


@dataclass(frozen=True, slots=True, eq=False)
class PaperRun:
    """Algorithm 1 from its labeled set to TC."""

    co_training: CoTraining
    fitted: Fitted
    """TC, line 16."""
    train: Samples
    """What TC was fitted on: real and pseudo-labeled images."""
    unlabeled: Samples
    """I_U, without those of groups in `val`."""
    generated: Samples
    """The generated images that TC was fitted on beside them."""
    val: Samples
    """Real labeled images, kept from the GANs, the learners and TC."""
    gans: dict[int, Gan]
    """GANs at the end, by class; they have seen `train` only."""


def run_paper(labeled: Samples, unlabeled: Samples, settings: PaperSettings, progress: Progress) -> PaperRun:
    """Return what Algorithm 1 and TC make of labeled and unlabeled images.

    Parameters
    ----------
    labeled : Samples
        I_L, at least two of each of two classes.
    unlabeled : Samples
        I_U, may be empty.
    settings : PaperSettings
        The recipe.
    progress : callable
        Called with one line of text at a time.

    Notes
    -----
    The paper splits 80/20 after generation, so that fakes of a validation image stand in the training set.
    Here I_L is split first: no GAN and no learner sees a validation image, nor is one pseudo-labeled. So the
    GANs of line 15 may go on from those of the last round, as each round does.
    """
    known, val = split_groups(labeled, settings.validation, settings.seed)
    unlabeled = unlabeled.take(~np.isin(unlabeled.group, val.group))
    gans = open_gans(settings.gan, np.unique(known.y).tolist())

    def generate(known: Samples, round_index: int) -> Samples:
        seed = settings.seed + round_index
        return generate_samples(
            known, gans, settings.n_generated, steps=settings.refit_steps, seed=seed, progress=progress
        )

    def learner(offset: int) -> Callable[[Samples, int], Predict]:
        def fit(samples: Samples, round_index: int) -> Predict:
            chosen = replace(settings.fit, seed=settings.seed + 1000 * offset + round_index)
            model = fit_network(samples, None, chosen).model
            return lambda x: predict_logits(model, x).argmax(axis=1) if len(x) else np.zeros(0, np.intp)

        return fit

    found = co_train(
        known,
        unlabeled,
        fit_a=learner(1),
        fit_b=learner(2),
        generate=generate,
        max_rounds=settings.max_rounds,
        progress=progress,
    )
    train = join_samples([known, found.pseudo_labeled])
    generated = generate(train, 999)
    fitted = fit_network(
        join_samples([train, generated]), val, replace(settings.fit, seed=settings.seed), progress
    )
    if len(val) < CALIBRATION_MIN:
        fitted = replace(fitted, temperature=1.0)
    return PaperRun(found, fitted, train, unlabeled, generated, val, gans)


def choose_labeled(samples: Samples, count: int, seed: int) -> tuple[Samples, Samples]:
    """Return `count` samples with labels and the rest, whose labels are to be forgotten.

    Classes keep their shares, but each gets at least two of its samples where it has them.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(samples))
    first = [i for k in np.unique(samples.y) for i in order[samples.y[order] == k][:2]]
    rest = [i for i in order if i not in set(first)]
    chosen = np.array([*first, *rest][: max(count, len(first))], np.intp)
    mask = np.zeros(len(samples), bool)
    mask[chosen] = True
    return samples.take(mask), samples.take(~mask)


def split_groups(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Return training and validation parts of `samples`; no group is in both, training keeps each class.

    Parameters
    ----------
    samples : Samples
        To be split.
    share : float
        Wanted share of validation, 0 to 1; groups are taken whole, so it is met to a group.
    seed : int
        Of the order in which groups are taken.
    """
    rng = np.random.default_rng(seed)
    in_val: NDArray[np.bool_] = np.zeros(len(samples), bool)
    for k in np.unique(samples.y):
        of_class = samples.y == k
        wanted = share * of_class.sum()
        for group in rng.permutation(np.unique(samples.group[of_class])):
            member = samples.group == group
            enough = np.sum(in_val & of_class) + np.sum(member & of_class) / 2 > wanted
            last = any(np.all((in_val | member)[samples.y == j]) for j in np.unique(samples.y))
            if not enough and not last:
                in_val |= member
    return samples.take(~in_val), samples.take(in_val)
