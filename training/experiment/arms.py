"""The arms of an experiment: what may be made of a few labels and many images without one.

To add an arm: a function `Draw -> Logits` whose docstring's first line says what it is, and a line in `ARMS`.
An arm sees `Draw.labeled` and nothing else with a label, so that its budget holds: calibration too is fitted
across folds of these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from device.classifier import softmax
from device.errors import ConfigError
from training.cotraining import take_pseudo_labeled
from training.cotraining.fixmatch import FixMatchSettings, fit_fixmatch
from training.cotraining.paper import PaperSettings, run_paper, split_groups
from training.cotraining.robust import RobustSettings, co_train_robust
from training.cotraining.transfer import PretrainSettings, pretrain
from training.dataset import Samples, join_samples
from training.experiment.draws import group_folds
from training.fitting import FitSettings, fit_network, fit_temperature, predict_logits
from training.gan import GanSettings, generate_samples, open_gan
from training.learners.features import fit_features, measure_features

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives (N, K) calibrated logits of (N, 28, 28) images: their softmax is the probability. N may be 0."""
Fit = Callable[[Samples], Logits]
"""Fits one learner from scratch; its logits are not calibrated."""
N_GENERATED = 150
"""Generated images, or copies of real ones, that an arm adds: the paper's number."""
GAN_STEPS = 1500
CALIBRATION_FOLDS = 3
DOUBT = 2.0
"""Weight of (log T)^2: as much as some labels of doubt that T is 1."""
SELF_ROUNDS, SELF_SHARE = 2, 0.5
"""Rounds of self-training; share of those called each class that is believed, the surest first."""
CO_ROUNDS = 3
"""Rounds of co-training at most: each fits two learners anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What one task of an experiment may learn from."""

    labeled: Samples
    """All labels of the budget, of both classes."""
    unlabeled: Samples
    """The other images; each `y` is -1."""
    steps: int
    """Gradient steps of the final fit, equal for all arms, > 0."""
    seed: int


Arm = Callable[[Draw], Logits]


def majority(draw: Draw) -> Logits:
    """Say the share of each class among the labels of whatever image; the first class if they are equal."""
    share = np.bincount(draw.labeled.y, minlength=len(draw.labeled.classes)) + 1.0
    share[share.argmax()] += 1e-3
    logits = np.log(share / share.sum()).astype(np.float32)
    return lambda x: np.tile(logits, (len(x), 1))


def features(draw: Draw) -> Logits:
    """Boosted trees on texture and shape."""

    def fit(samples: Samples) -> Logits:
        return fit_features(samples, np.ones(len(samples)), draw.seed)

    return calibrate(fit(draw.labeled), draw, fit)


def forest(draw: Draw) -> Logits:
    """Random forest on texture and shape."""

    def fit(samples: Samples) -> Logits:
        trees = RandomForestClassifier(200, class_weight="balanced", random_state=draw.seed)
        trees.fit(measure_features(samples.x), samples.y)

        def logits(x: NDArray[np.uint8]) -> NDArray[np.float32]:
            given = np.full((len(x), len(samples.classes)), 1e-3)
            if len(x):
                given[:, trees.classes_] = trees.predict_proba(measure_features(x)).clip(1e-3)
            return np.asarray(np.log(given), np.float32)

        return logits

    return calibrate(fit(draw.labeled), draw, fit)


def cnn(draw: Draw) -> Logits:
    """Table 2's network with classical augmentation: what the others are measured against."""
    return network_arm(draw, fit_settings(draw))


def station(draw: Draw) -> Logits:
    """Fit the station's network as `cnn` is fitted."""
    return network_arm(draw, fit_settings(draw, "station"))


def cnn_duplicates(draw: Draw) -> Logits:
    """`cnn` with copies of its real images, as many as `cnn+gan` adds: the control of it."""
    rng = np.random.default_rng(draw.seed)
    y = draw.labeled.y
    classes = np.unique(y)
    share = N_GENERATED // len(classes)
    copies = np.concatenate([rng.choice(np.flatnonzero(y == k), share) for k in classes])
    return network_arm(draw, fit_settings(draw), draw.labeled.take(copies))


def cnn_gan(draw: Draw) -> Logits:
    """`cnn` with images of the paper's GAN, one fitted to the labeled images of each class."""
    settings = _gan_settings(draw)
    classes = np.unique(draw.labeled.y).tolist()
    gans = {k: open_gan(replace(settings, seed=draw.seed + k)) for k in classes}
    made = generate_samples(draw.labeled, gans, N_GENERATED, steps=None, seed=draw.seed)
    return network_arm(draw, fit_settings(draw), made)


def selftrain(draw: Draw) -> Logits:
    """`cnn` taught by itself: twice, the surest half of those called each class join the labels."""
    settings = fit_settings(draw)
    logits = fit_turned(draw.labeled, settings)
    for _ in range(SELF_ROUNDS if len(draw.unlabeled) else 0):
        pseudo = most_certain(softmax(logits(draw.unlabeled.x), 1.0), SELF_SHARE)
        believed = take_pseudo_labeled(draw.unlabeled, pseudo)
        logits = fit_turned(join_samples([draw.labeled, believed]), settings)
    return calibrate_network(logits, draw, settings)


def cotrain_paper(draw: Draw) -> Logits:
    """Algorithm 1 with Table 2's network twice, without its GAN."""
    return _paper_arm(draw, 0)


def gan_cotrain(draw: Draw) -> Logits:
    """Algorithm 1 with its GAN: the paper."""
    return _paper_arm(draw, N_GENERATED)


def cotrain_robust(draw: Draw) -> Logits:
    """Table 2's network and boosted trees on two views, pseudo-labels by confidence and revocable."""
    settings = fit_settings(draw)
    known, held = split_groups(draw.labeled, 0.3, draw.seed)
    unlabeled = draw.unlabeled.take(~np.isin(draw.unlabeled.group, held.group))
    found = co_train_robust(
        known,
        unlabeled,
        held,
        fit_a=lambda samples, weights, _: fit_turned(samples, settings, weights),
        fit_b=lambda samples, weights, _: fit_features(samples, weights, draw.seed),
        settings=RobustSettings(max_rounds=CO_ROUNDS),
        progress=_quiet,
    )
    weights = np.concatenate([np.ones(len(draw.labeled)), found.weights])
    both = join_samples([draw.labeled, found.pseudo_labeled])
    return soften(fit_turned(both, settings, weights), found.temperatures[0])


def transfer(draw: Draw) -> Logits:
    """Table 2's network that saw rendered cells first, for as many steps again (the paper's future work)."""
    settings, quick = fit_settings(draw), max(1, draw.steps // CALIBRATION_FOLDS)
    start = pretrain(PretrainSettings(settings.learner, steps=draw.steps))

    def fit(samples: Samples, steps: int) -> Logits:
        return fit_turned(samples, replace(settings, steps_per_epoch=steps), start=start)

    return calibrate(fit(draw.labeled, draw.steps), draw, lambda samples: fit(samples, quick))


def fixmatch(draw: Draw) -> Logits:
    """Table 2's network by FixMatch: it learns from the unlabeled images that it is sure of."""
    settings = replace(fit_settings(draw), batch=16)
    model = fit_fixmatch(draw.labeled, draw.unlabeled, FixMatchSettings(settings)).model
    return calibrate_network(lambda x: _turned(lambda y: predict_logits(model, y), x), draw, settings)


ARMS: dict[str, Arm] = {
    "majority": majority,
    "features": features,
    "forest": forest,
    "cnn": cnn,
    "station": station,
    "cnn+duplicates": cnn_duplicates,
    "cnn+gan": cnn_gan,
    "selftrain": selftrain,
    "cotrain-paper": cotrain_paper,
    "cotrain-robust": cotrain_robust,
    "gan+cotrain": gan_cotrain,
    "transfer": transfer,
    "fixmatch": fixmatch,
}


def describe_arms() -> str:
    """Return one line for each arm: its name and the first line of its docstring."""
    return "\n".join(f"{name:<16}{(arm.__doc__ or '').splitlines()[0]}" for name, arm in ARMS.items())


def check_arms(names: tuple[str, ...]) -> None:
    """Raise ConfigError, listing the arms there are, if a name is none of them."""
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ConfigError(f"unknown arm {', '.join(unknown)}; expected some of {', '.join(ARMS)} (--arms)")


def fit_settings(draw: Draw, learner: str = "table2") -> FitSettings:
    """Return how networks are fitted in all arms: symmetries, 2 px shifts, contrast, noise, equal classes."""
    return FitSettings(
        learner, epochs=1, steps_per_epoch=draw.steps, zoom=0, shift_px=2, noise=0.1, seed=draw.seed
    )


def network_arm(draw: Draw, settings: FitSettings, more: Samples | None = None) -> Logits:
    """Return a network fitted to the labels, and to `more` samples beside them, calibrated on the labels."""
    samples = draw.labeled if more is None else join_samples([draw.labeled, more])
    return calibrate_network(fit_turned(samples, settings), draw, settings)


def fit_turned(
    samples: Samples,
    settings: FitSettings,
    weights: NDArray[np.float64] | None = None,
    *,
    start: Sequence[NDArray[np.float32]] | None = None,
) -> Logits:
    """Return the mean logits of a fitted network over the four rotations of an image."""
    model = fit_network(samples, None, settings, weights=weights, start=start).model
    return lambda x: _turned(lambda y: predict_logits(model, y), x)


def calibrate_network(logits: Logits, draw: Draw, settings: FitSettings) -> Logits:
    """Return `logits` with the temperature of the same network on the labels alone, a third of the steps."""
    quick = replace(settings, steps_per_epoch=max(1, settings.steps_per_epoch // CALIBRATION_FOLDS))
    return calibrate(logits, draw, lambda samples: fit_turned(samples, quick))


def calibrate(logits: Logits, draw: Draw, fit: Fit) -> Logits:
    """Return `logits` divided by the temperature that `fit` needs on labels that it was not fitted to.

    The temperature is 1 where the labels are too few to hold out a group and keep both classes.
    """
    labeled = draw.labeled
    fold = group_folds(labeled, CALIBRATION_FOLDS, draw.seed)
    given, y = [np.zeros((0, len(labeled.classes)), np.float32)], [np.zeros(0, np.intp)]
    for k in range(CALIBRATION_FOLDS):
        known, held = labeled.take(fold != k), labeled.take(fold == k)
        if len(held) and len(np.unique(known.y)) == len(labeled.classes):
            given.append(fit(known)(held.x))
            y.append(held.y)
    pooled = np.concatenate(y)
    return soften(logits, fit_temperature(np.concatenate(given), pooled, doubt=DOUBT) if len(pooled) else 1.0)


def soften(logits: Logits, temperature: float) -> Logits:
    """Return `logits` divided by a temperature."""
    return lambda x: np.asarray(logits(x) / temperature, np.float32)


def most_certain(p: NDArray[np.floating], share: float) -> dict[int, int]:
    """Return the class by position of the most certain `share` of those called each class."""
    called = p.argmax(axis=1)
    found: dict[int, int] = {}
    for k in range(p.shape[1]):
        mine = np.flatnonzero(called == k)
        order = mine[np.argsort(-p[mine, k], kind="stable")]
        found |= dict.fromkeys(order[: round(share * len(mine))].tolist(), k)
    return found


def _paper_arm(draw: Draw, n_generated: int) -> Logits:
    fit = replace(fit_settings(draw), epochs=5, steps_per_epoch=max(1, draw.steps // 5))
    settings = PaperSettings(
        n_labeled=len(draw.labeled),
        n_generated=n_generated,
        max_rounds=CO_ROUNDS,
        gan=_gan_settings(draw),
        refit_steps=max(1, _gan_settings(draw).steps // 5),
        fit=fit,
        seed=draw.seed,
    )
    fitted = run_paper(draw.labeled, draw.unlabeled, settings, _quiet).fitted
    return soften(lambda x: _turned(fitted.logits, x), fitted.temperature)


def _turned(logits: Logits, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    turned = [logits(np.rot90(x, k, axes=(1, 2))) for k in range(4)]
    return np.asarray(np.mean(turned, axis=0), np.float32)


def _gan_settings(draw: Draw) -> GanSettings:
    return GanSettings(steps=min(GAN_STEPS, 3 * draw.steps), seed=draw.seed)


def _quiet(_line: str) -> None:
    pass
