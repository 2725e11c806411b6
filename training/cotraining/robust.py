"""Profile `robust` of co-training: two different learners on two views, labels that can be taken back.

With agreement alone both learners are taught what they share, right or wrong. Here a label needs the
confidence that was right on held-out labels, and a round that does harm on those is rolled back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device.classifier import softmax
from device.errors import ConfigError
from training.cotraining import take_pseudo_labeled
from training.cotraining.trust import cohen_kappa, jaccard, precision_threshold, select_trusted
from training.dataset import Samples, join_samples
from training.dataset.apart import require_apart
from training.fitting import fit_temperature

NDFloat = NDArray[np.float64]
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives (N, K) logits, not calibrated, of (N, 28, 28) images; N may be 0."""
FitWeighted = Callable[[Samples, NDFloat, int], Logits]
"""Fits a learner to samples with weights in a round (from 0), from scratch, and returns how it scores."""
Ending = Literal["I_F unchanged", "I_F settled", "rolled back twice", "round limit"]


@dataclass(frozen=True, slots=True)
class RobustSettings:
    """How labels are accepted; each field one line: meaning, unit, range."""

    max_rounds: int = 10
    """Rounds at most, > 0."""
    confidence_min: float = 0.9
    """Least threshold of a calibrated probability, 0 to 1."""
    precision_min: float = 0.95
    """A threshold rises until those above it are this often right on the held-out labels, 0 to 1."""
    growth: float = 0.25
    """I_F may grow by this share of the labeled images a round; rolling back halves it, > 0."""
    full_weight_round: int = 5
    """Pseudo-labels reach the weight of their confidence in this round; before, a share of it, > 0."""
    settled: float = 0.98
    """Jaccard index of I_F and the one before; above it twice in a row ends the loop, 0 to 1."""
    accuracy_drop: float = 0.02
    """Loss of balanced accuracy on the held-out labels that rolls back, 0 to 1."""
    kappa_max: float = 0.95
    """Agreement of the learners above which a warning says that they are one learner, 0 to 1."""


@dataclass(frozen=True, slots=True)
class RobustRound:
    """What one round did: the learners fitted on I_L + I_F, then I_F estimated anew."""

    round_index: int
    n_trained_on: int
    """|I_F| that the learners of this round were fitted on."""
    n_candidates: int
    """Unlabeled images that both learners call alike, each above its threshold, usable."""
    n_pseudo_labeled: int
    """|I_F| after the round."""
    per_class: Mapping[str, int]
    """I_F by class."""
    revoked: int
    """Images that left I_F or changed their label in this round."""
    threshold_a: tuple[float, ...]
    """By class; above 1 where no threshold was right often enough."""
    threshold_b: tuple[float, ...]
    kappa: float
    """Cohen's, of both learners on the unlabeled images."""
    disagreement: float
    """Share of the unlabeled images that the learners call differently, 0 to 1."""
    val_nll: float
    """Of the mean of both learners' probabilities on the held-out labels, nats."""
    val_balanced_accuracy: float
    rolled_back: bool


@dataclass(frozen=True, slots=True, eq=False)
class RobustCoTraining:
    """What the loop leaves: I_F and the learners of its best round."""

    pseudo: Mapping[int, int]
    """I_F of the best round: class by position in the unlabeled images."""
    pseudo_labeled: Samples
    weights: NDFloat
    """(|I_F|,) of `pseudo_labeled` in the best round."""
    best_round: int
    """The last round that the guard did not roll back, from 0."""
    temperatures: tuple[float, float]
    """Of learner A and B in the best round."""
    rounds: tuple[RobustRound, ...]
    ending: Ending


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A round's I_F with the learners fitted on it, and what they say."""

    pseudo: dict[int, int]
    weights: NDFloat
    temperatures: tuple[float, float]
    nll: NDFloat
    """(V,) of each held-out label."""
    accuracy: float
    thresholds: tuple[NDFloat, NDFloat]
    label: NDArray[np.intp]
    """(U,) class where both learners agree above threshold, else -1."""
    confidence: NDFloat
    """(U,) of the less certain learner."""
    kappa: float
    disagreement: float
    round_index: int


def co_train_robust(
    labeled: Samples,
    unlabeled: Samples,
    val: Samples,
    *,
    fit_a: FitWeighted,
    fit_b: FitWeighted,
    settings: RobustSettings,
    progress: Callable[[str], None],
    usable: Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | None = None,
) -> RobustCoTraining:
    """Return the labels that two learners on two views come to share, from the best round on held-out labels.

    Parameters
    ----------
    labeled : Samples
        I_L, all classes in it.
    unlabeled : Samples
        I_U; its `y` is never looked at.
    val : Samples
        Held-out real labels of groups of their own, all classes in it. They calibrate, set thresholds and
        choose the round; nothing trains on them.
    fit_a, fit_b : FitWeighted
        Two different learners. Exchanging them changes nothing but whose threshold is whose.
    settings : RobustSettings
        The thresholds and limits.
    progress : callable
        Called with one line a round, and with a warning if the learners hardly differ.
    usable : callable, optional
        True for images that may be labeled: in focus, and like what is labeled. By default all are.

    Raises
    ------
    ConfigError
        If a class is empty, or an image or group of `val` stands among the others.

    Notes
    -----
    A round is harmful if its NLL on the held-out labels is more than one standard error above the lowest, or
    its balanced accuracy `accuracy_drop` below the highest. The last that is not harmful counts as the best:
    a dozen held-out labels cannot choose among those. I_F is chosen anew from all unlabeled images each time.
    """
    _check(labeled, unlabeled, val)
    allowed = usable(unlabeled.x) if usable else np.ones(len(unlabeled), bool)
    prior = np.bincount(labeled.y, minlength=len(labeled.classes)) / len(labeled)
    pseudo: dict[int, int] = {}
    confidence = np.zeros(len(unlabeled))
    standing: list[_State] = []  # rounds that were not rolled back
    rounds: list[RobustRound] = []
    growth, limit, rollbacks, calm = settings.growth * len(labeled), 0.0, 0, 0
    ending: Ending | None = None
    while ending is None:
        weights = min(1.0, (len(rounds) + 1) / settings.full_weight_round) * confidence[sorted(pseudo)]
        start = (pseudo, weights, len(rounds))
        state = _fit_round(labeled, unlabeled, val, (fit_a, fit_b), start, settings)
        harmed = _is_worse(state, standing, settings.accuracy_drop)
        if harmed:
            rollbacks, growth = rollbacks + 1, growth / 2
            limit = len(standing[-1].pseudo) + growth
        else:
            standing.append(state)
            limit += growth
        best = standing[-1]
        found = select_trusted(np.where(allowed, best.label, -1), best.confidence, prior, int(limit))
        rounds.append(_log(state, found, allowed, labeled.classes, harmed=harmed))
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
        pseudo, confidence = found, best.confidence
    kept = take_pseudo_labeled(unlabeled, best.pseudo)
    return RobustCoTraining(
        best.pseudo, kept, best.weights, best.round_index, best.temperatures, tuple(rounds), ending
    )


def _check(labeled: Samples, unlabeled: Samples, val: Samples) -> None:
    for name, samples in (("labeled", labeled), ("held-out labeled", val)):
        empty = [label for label, n in samples.count().items() if n == 0]
        if empty:
            raise ConfigError(
                f"the {name} samples have no {', '.join(empty)} (found {samples.count()}); expected some of "
                "each class in at least two groups; label more or ask for fewer classes (--labels, --classes)"
            )
    require_apart(join_samples([labeled, unlabeled]), val)


def _fit_round(
    labeled: Samples,
    unlabeled: Samples,
    val: Samples,
    learners: tuple[FitWeighted, FitWeighted],
    start: tuple[dict[int, int], NDFloat, int],
    settings: RobustSettings,
) -> _State:
    pseudo, weights, index = start
    both = join_samples([labeled, take_pseudo_labeled(unlabeled, pseudo)])
    on_val, on_unlabeled, temperatures = [], [], []
    for fit in learners:
        score = fit(both, np.concatenate([np.ones(len(labeled)), weights]), index)
        logits = score(val.x)
        # few held-out labels that are all right would sharpen without end: they may only soften
        temperatures.append(max(1.0, fit_temperature(logits, val.y)))
        on_val.append(softmax(logits, temperatures[-1]).astype(np.float64))
        on_unlabeled.append(softmax(score(unlabeled.x), temperatures[-1]).astype(np.float64))
    t_a, t_b = (
        precision_threshold(
            p, val.y, precision_min=settings.precision_min, confidence_min=settings.confidence_min
        )
        for p in on_val
    )
    (p_a, p_b), mean = on_unlabeled, (on_val[0] + on_val[1]) / 2
    a, b = p_a.argmax(axis=1), p_b.argmax(axis=1)
    sure = (a == b) & (p_a.max(axis=1) >= t_a[a]) & (p_b.max(axis=1) >= t_b[b])
    accuracy = float(np.mean([np.mean(mean.argmax(axis=1)[val.y == k] == k) for k in np.unique(val.y)]))
    nll = -np.log(np.maximum(mean[np.arange(len(val)), val.y], 1e-7))
    return _State(
        pseudo,
        weights,
        (temperatures[0], temperatures[1]),
        nll,
        accuracy,
        (t_a, t_b),
        np.where(sure, a, -1),
        np.minimum(p_a.max(axis=1), p_b.max(axis=1)),
        cohen_kappa(a, b),
        float(np.mean(a != b)) if len(a) else 0.0,
        index,
    )


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
        f"{step.n_pseudo_labeled} ({classes}; {step.revoked} revoked), kappa {step.kappa:.2f}, held-out nll "
        f"{step.val_nll:.3f}, balanced accuracy {step.val_balanced_accuracy:.3f}"
        + (", rolled back" if step.rolled_back else "")
    )
    if step.kappa > kappa_max and all(earlier.kappa <= kappa_max for earlier in rounds[:-1]):
        progress(f"warning: kappa {step.kappa:.2f}: the learners hardly differ and teach little")


def _log(
    state: _State,
    found: dict[int, int],
    allowed: NDArray[np.bool_],
    classes: tuple[str, ...],
    *,
    harmed: bool,
) -> RobustRound:
    labels = list(found.values())
    return RobustRound(
        round_index=state.round_index,
        n_trained_on=len(state.pseudo),
        n_candidates=int(np.sum((state.label >= 0) & allowed)),
        n_pseudo_labeled=len(found),
        per_class={name: labels.count(k) for k, name in enumerate(classes)},
        revoked=sum(found.get(i) != label for i, label in state.pseudo.items()),
        threshold_a=tuple(state.thresholds[0].tolist()),
        threshold_b=tuple(state.thresholds[1].tolist()),
        kappa=state.kappa,
        disagreement=state.disagreement,
        val_nll=float(state.nll.mean()),
        val_balanced_accuracy=state.accuracy,
        rolled_back=harmed,
    )
