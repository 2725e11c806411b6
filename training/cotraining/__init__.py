"""Algorithm 1 of Saini et al. (2020) as a protocol of two learners; it knows no network.

As printed, line 5 applies learner 1 twice, so every unlabeled image would be accepted, and line 12 adds old
items again each round. Here learner 2 speaks in line 5, and I_F holds each item once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from training.dataset.samples import Samples, join_samples

Predict = Callable[[NDArray[np.uint8]], NDArray[np.intp]]
"""Gives the class of each of (N, 28, 28) images."""
Fit = Callable[[Samples, int], Predict]
"""Fits a learner to samples in a round (from 0) and returns how it predicts."""
Generate = Callable[[Samples, int], Samples]
"""Returns generated samples after looking at real ones, in a round."""

MAX_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of Algorithm 1 did."""

    round_index: int
    n_unlabeled: int
    """|I_U| before the round."""
    n_accepted: int
    """Images that the learners agreed on."""
    agreement: float
    """n_accepted / n_unlabeled, 0 to 1; near 1 means that the second learner adds nothing."""
    n_pseudo_labeled: int
    """|I_F| after the round."""
    per_class: Mapping[str, int]
    """I_F by class."""


@dataclass(frozen=True, slots=True, eq=False)
class CoTraining:
    """What Algorithm 1 leaves at line 14."""

    pseudo: Mapping[int, int]
    """I_F: class by position in the unlabeled images."""
    pseudo_labeled: Samples
    """The same as samples."""
    rounds: tuple[Round, ...]
    unchanged: bool
    """True if it ended because I_F no longer changed, False if `max_rounds` ended it."""


def co_train(
    labeled: Samples,
    unlabeled: Samples,
    *,
    fit_a: Fit,
    fit_b: Fit,
    generate: Generate,
    max_rounds: int = MAX_ROUNDS,
    progress: Callable[[str], None] | None = None,
) -> CoTraining:
    """Return the images that two learners come to agree on, with the labels that they agree on.

    Parameters
    ----------
    labeled : Samples
        I_L, all classes in it.
    unlabeled : Samples
        I_U; its `y` is never looked at.
    fit_a, fit_b : Fit
        Toxlearner 1 and 2. Exchanging them changes nothing.
    generate : Generate
        The GAN, fitted again each round to I_L + I_F; its images train the learners and are then dropped.
    max_rounds : int
        Ends the loop in any case, > 0. By itself it ends within |I_U| + 1 rounds, since I_U only shrinks.
    progress : callable, optional
        Called with one line a round.

    Returns
    -------
    CoTraining
        I_F empty if the learners agree on nothing.
    """
    pseudo: dict[int, int] = {}
    rounds: list[Round] = []
    unchanged = False
    while not unchanged and len(rounds) < max_rounds:
        known = join_samples([labeled, take_pseudo_labeled(unlabeled, pseudo)])
        both = join_samples([known, generate(known, len(rounds))])  # lines 2 and 3
        left = np.array([i for i in range(len(unlabeled)) if i not in pseudo], np.intp)
        label_a = fit_a(both, len(rounds))(unlabeled.x[left])
        label_b = fit_b(both, len(rounds))(unlabeled.x[left])  # line 5, misprinted: learner 2
        agreed = left[label_a == label_b]
        pseudo |= dict(zip(agreed.tolist(), label_a[label_a == label_b].tolist(), strict=True))
        unchanged = len(agreed) == 0 or len(pseudo) == len(unlabeled)
        rounds.append(_log(len(rounds), len(left), len(agreed), pseudo, labeled.classes))
        if progress:
            progress(describe(rounds[-1]))
    return CoTraining(dict(pseudo), take_pseudo_labeled(unlabeled, pseudo), tuple(rounds), unchanged)


def require_labels(labeled: Samples) -> None:
    """Raise ConfigError, naming them, if classes have no label."""
    empty = [name for name, n in labeled.count().items() if n == 0]
    if empty:
        raise ConfigError(
            f"the labeled samples have no {', '.join(empty)} (found {labeled.count()}); expected some of "
            "each class; label more or ask for fewer classes (--labels, --classes)"
        )


def describe(step: Round) -> str:
    """Return one line about a round."""
    classes = ", ".join(f"{count} {name}" for name, count in step.per_class.items())
    return (
        f"round {step.round_index + 1}: {step.n_accepted} of {step.n_unlabeled} agreed "
        f"({step.agreement:.0%}), I_F {step.n_pseudo_labeled} ({classes})"
    )


def take_pseudo_labeled(unlabeled: Samples, pseudo: Mapping[int, int]) -> Samples:
    """Return I_F as training samples, in the order of their positions in the unlabeled images."""
    index = np.array(sorted(pseudo), np.intp)
    taken = unlabeled.take(index)
    y = np.array([pseudo[int(i)] for i in index], np.intp)
    return Samples(taken.x, y, taken.group, "train", unlabeled.source, unlabeled.classes)


def _log(
    round_index: int, n_left: int, n_agreed: int, pseudo: Mapping[int, int], classes: tuple[str, ...]
) -> Round:
    labels = list(pseudo.values())
    per_class = {name: labels.count(k) for k, name in enumerate(classes)}
    return Round(round_index, n_left, n_agreed, n_agreed / n_left if n_left else 1.0, len(pseudo), per_class)
