"""Profile `robust` of co-training: two different learners on two views, labels that can be taken back.

With agreement alone both learners are taught what they share, right or wrong, and labels in equal numbers
teach them to call too many dead. Here the shares of classes among the unlabeled images are found first, each
learner calls as many, a label needs both, and a round that does harm on the labels is rolled back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from training.cotraining import require_labels, take_pseudo_labeled
from training.cotraining.shares import (
    Scaling,
    estimate_shares,
    scale,
    scaling_to_shares,
    shift_to_shares,
    temperature_of_error,
)
from training.cotraining.trust import (
    Fit,
    Logits,
    cohen_kappa,
    cross_fit,
    jaccard,
    lead_of_first,
    select_trusted,
)
from training.dataset.samples import Samples, join_samples

NDFloat = NDArray[np.float64]
Ending = Literal["I_F unchanged", "I_F settled", "rolled back twice", "round limit"]


@dataclass(frozen=True, slots=True)
class RobustSettings:
    """How labels are accepted; each field one line: meaning, unit, range."""

    max_rounds: int = 4
    """Rounds at most, > 0; the first is of labels alone."""
    believed: float = 0.6
    """I_F is at most this share of the unlabeled images; rolling back halves it, 0 to 1."""
    precision_min: float = 0.95
    """The quick learner's threshold rises until it is this often right on labels it did not see, 0 to 1."""
    folds: int = 3
    """Parts of the labels, by whole groups, that the quick learner is cross-fitted over, > 1."""
    settled: float = 0.98
    """Jaccard index of I_F and the one before; above it twice in a row ends the loop, 0 to 1."""
    accuracy_drop: float = 0.02
    """Loss of cross-fitted balanced accuracy on the labels that rolls back, 0 to 1."""
    kappa_max: float = 0.95
    """Agreement of the learners above which a warning says that they are one learner, 0 to 1."""


@dataclass(frozen=True, slots=True)
class RobustRound:
    """What one round did: the learners fitted on I_L + I_F, then I_F estimated anew."""

    round_index: int
    n_trained_on: int
    """|I_F| that the learners of this round were fitted on."""
    n_candidates: int
    """Unlabeled images that both learners call alike, the quick learner above its threshold."""
    n_pseudo_labeled: int
    """|I_F| after the round."""
    per_class: Mapping[str, int]
    """I_F by class."""
    revoked: int
    """Images that left I_F or changed their label in this round."""
    kappa: float
    """Cohen's, of both learners on the unlabeled images."""
    disagreement: float
    """Share of the unlabeled images that the learners call differently, 0 to 1."""
    label_nll: float
    """Of the quick learner on labels that it was not fitted to, nats."""
    label_balanced_accuracy: float
    rolled_back: bool


@dataclass(frozen=True, slots=True, eq=False)
class RobustCoTraining:
    """What the loop leaves: I_F and the learners of its best round."""

    pseudo: Mapping[int, int]
    """I_F of the best round: class by position in the unlabeled images."""
    pseudo_labeled: Samples
    best_round: int
    """The last round that the guard did not roll back, from 0."""
    shares: NDFloat
    """(K,) of classes among the unlabeled images, given or estimated."""
    both: Logits
    """Both learners of the best round as one, calibrated: their shifted and scaled scores, added."""
    one: tuple[Logits, Logits]
    """Each learner of the best round, shifted to the shares and calibrated."""
    rounds: tuple[RobustRound, ...]
    ending: Ending


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A round's I_F with the learners fitted on it, and what they say."""

    pseudo: dict[int, int]
    learners: tuple[Logits, Logits]
    scalings: tuple[Scaling, Scaling]
    """Of each learner."""
    scaled: tuple[NDFloat, NDFloat]
    """(U, K) of each learner, called in the right shares, standard deviation 1."""
    label: NDArray[np.intp]
    """(U,) class where both learners agree and the quick one is sure, else -1."""
    confidence: NDFloat
    """(U,) distance of the first class from the second in the sum of both."""
    nll: NDFloat
    """(L,) of each label, cross-fitted."""
    accuracy: float
    kappa: float
    disagreement: float
    round_index: int


def co_train_robust(
    labeled: Samples,
    unlabeled: Samples,
    *,
    fit_a: Fit,
    fit_b: Fit,
    quick: Fit,
    settings: RobustSettings,
    progress: Callable[[str], None],
    shares: NDFloat | None = None,
) -> RobustCoTraining:
    """Return the labels that two learners on two views come to share, and both learners taught by them.

    Parameters
    ----------
    labeled : Samples
        I_L, all classes in it.
    unlabeled : Samples
        I_U, at least one; its `y` is never looked at.
    fit_a, fit_b : Fit
        Two different learners. Exchanging them changes nothing.
    quick : Fit
        One of them or another that is quickly fitted: it finds the shares, and is cross-fitted over the
        labels in each round to set the threshold and to guard.
    settings : RobustSettings
        The thresholds and limits.
    progress : callable
        Called with one line a round, and with a warning if the learners hardly differ.
    shares : (K,) ndarray of float, optional
        Of classes among the unlabeled images where they are known, such as from counting; else estimated.

    Raises
    ------
    ConfigError
        If a class has no label, or nothing is unlabeled.

    Notes
    -----
    A round is harmful if the cross-fitted NLL of the labels is more than one standard error above the lowest,
    or their balanced accuracy `accuracy_drop` below the highest. The pseudo-labels that the quick learner is
    fitted to there were chosen with the help of all labels: the guard sees harm, and is no score. I_F is
    chosen anew from all unlabeled images each time, classes in their shares.
    """
    check_start(labeled, unlabeled)
    if shares is None:
        shares = estimate_shares(quick(labeled, 0)(unlabeled.x))
    pseudo: dict[int, int] = {}
    standing: list[_State] = []  # rounds that were not rolled back
    rounds: list[RobustRound] = []
    believed, rollbacks, calm = settings.believed, 0, 0
    ending: Ending | None = None
    while ending is None:
        state = _fit_round(labeled, unlabeled, pseudo, len(rounds), (fit_a, fit_b, quick), shares, settings)
        harmed = _is_worse(state, standing, settings.accuracy_drop)
        if harmed:
            rollbacks, believed = rollbacks + 1, believed / 2
        else:
            standing.append(state)
        best = standing[-1]
        limit = int(believed * len(unlabeled))
        found = select_trusted(best.label, best.confidence, shares, limit)
        rounds.append(_log(state, found, labeled.classes, harmed=harmed))
        _tell(rounds, settings.kappa_max, progress)
        calm = calm + 1 if jaccard(found, pseudo) > settings.settled else 0
        if rollbacks == 2:
            ending = "rolled back twice"
        elif found == pseudo and not harmed:
            ending = "I_F unchanged"
        elif calm == 2:
            ending = "I_F settled"
        elif len(rounds) >= settings.max_rounds:
            ending = "round limit"
        pseudo = found
    kept = take_pseudo_labeled(unlabeled, best.pseudo)
    both, a, b = (_calibrated(best, which, shares) for which in ((0, 1), (0,), (1,)))
    return RobustCoTraining(best.pseudo, kept, best.round_index, shares, both, (a, b), tuple(rounds), ending)


def check_start(labeled: Samples, unlabeled: Samples) -> None:
    """Raise ConfigError if a class has no label, or nothing is unlabeled."""
    require_labels(labeled)
    if not len(unlabeled):
        raise ConfigError("nothing is unlabeled; expected images to label for each other (lower --labels)")


def _fit_round(
    labeled: Samples,
    unlabeled: Samples,
    pseudo: dict[int, int],
    index: int,
    fits: tuple[Fit, Fit, Fit],
    shares: NDFloat,
    settings: RobustSettings,
) -> _State:
    more = take_pseudo_labeled(unlabeled, pseudo)
    both = join_samples([labeled, more])
    a, b = fits[0](both, index), fits[1](both, index)
    raw = [learner(unlabeled.x) for learner in (a, b)]
    scalings = [scaling_to_shares(z, shares) for z in raw]
    scaled = [scale(z, scaling) for z, scaling in zip(raw, scalings, strict=True)]
    calls = [z.argmax(axis=1) for z in raw] + [z.argmax(axis=1) for z in scaled]
    nll, accuracy, sure = cross_fit(
        labeled,
        more,
        unlabeled.x,
        lambda samples: fits[2](samples, index),
        folds=settings.folds,
        precision_min=settings.precision_min,
    )
    alike = np.all([call == calls[0] for call in calls], axis=0) & sure
    return _State(
        pseudo,
        (a, b),
        (scalings[0], scalings[1]),
        (scaled[0], scaled[1]),
        np.where(alike, calls[0], -1),
        lead_of_first(scaled[0] + scaled[1]),
        nll,
        accuracy,
        cohen_kappa(calls[2], calls[3]),
        float(np.mean(calls[2] != calls[3])),
        index,
    )


def _calibrated(state: _State, which: tuple[int, ...], shares: NDFloat) -> Logits:
    """Return the sum of learners' scaled scores, shifted to the shares, as often wrong as they differ."""
    total = np.sum([state.scaled[i] for i in which], axis=0)
    last = shift_to_shares(total, shares)
    temperature = temperature_of_error(total + last, max(1 / len(total), state.disagreement))

    def logits(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [scale(state.learners[i](x), state.scalings[i]) for i in which]
        return np.asarray((np.sum(parts, axis=0) + last) / temperature, np.float32)

    return logits


def _is_worse(state: _State, standing: list[_State], accuracy_drop: float) -> bool:
    if not standing:
        return False
    lowest = min(standing, key=lambda other: float(other.nll.mean()))
    error = lowest.nll.std(ddof=1) / np.sqrt(len(lowest.nll))
    accuracy = max(other.accuracy for other in standing) - accuracy_drop - 1e-9
    return bool(state.nll.mean() > lowest.nll.mean() + error or state.accuracy < accuracy)


def _tell(rounds: list[RobustRound], kappa_max: float, progress: Callable[[str], None]) -> None:
    step = rounds[-1]
    classes = ", ".join(f"{count} {name}" for name, count in step.per_class.items())
    progress(
        f"round {len(rounds)}: {step.n_candidates} candidates, I_F {step.n_trained_on} -> "
        f"{step.n_pseudo_labeled} ({classes}; {step.revoked} revoked), kappa {step.kappa:.2f}, "
        f"cross-fitted nll {step.label_nll:.3f}, balanced accuracy {step.label_balanced_accuracy:.3f}"
        + (", rolled back" if step.rolled_back else "")
    )
    if step.kappa > kappa_max and all(earlier.kappa <= kappa_max for earlier in rounds[:-1]):
        progress(f"warning: kappa {step.kappa:.2f}: the learners hardly differ and teach little")


def _log(state: _State, found: dict[int, int], classes: tuple[str, ...], *, harmed: bool) -> RobustRound:
    labels = list(found.values())
    return RobustRound(
        round_index=state.round_index,
        n_trained_on=len(state.pseudo),
        n_candidates=int(np.sum(state.label >= 0)),
        n_pseudo_labeled=len(found),
        per_class={name: labels.count(k) for k, name in enumerate(classes)},
        revoked=sum(found.get(i) != label for i, label in state.pseudo.items()),
        kappa=state.kappa,
        disagreement=state.disagreement,
        label_nll=float(state.nll.mean()),
        label_balanced_accuracy=state.accuracy,
        rolled_back=harmed,
    )
