"""The arms of an experiment: what may be made of a few labels and many images without one.

To add an arm: a function `Draw -> Logits` whose docstring's first line says what it is, and a line in `ARMS`.
An arm sees `Draw.labeled` and nothing else with a label, so that its budget holds: calibration too is fitted
across folds of these.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device.classifier import softmax
from device.errors import ConfigError
from training.cotraining import take_pseudo_labeled
from training.cotraining.paper import PaperSettings, run_paper, split_groups
from training.cotraining.robust import RobustSettings, co_train_robust
from training.dataset import join_samples
from training.experiment.fits import (
    Draw,
    Logits,
    calibrate,
    calibrate_network,
    fit_boosted,
    fit_forest,
    fit_settings,
    fit_turned,
    mean_turned,
    network_arm,
    soften,
)
from training.gan import GanSettings, generate_samples, open_gan
from training.learners.features import fit_features

N_GENERATED = 150
"""Generated images, or copies of real ones, that an arm adds: the paper's number."""
GAN_STEPS = 1500
SELF_ROUNDS, SELF_SHARE = 2, 0.5
"""Rounds of self-training; share of those called each class that is believed, the surest first."""
CO_ROUNDS = 3
"""Rounds of co-training at most: each fits two learners anew."""
PRIOR = "+prior"
"""Suffix of any arm: the same fit, its probabilities adapted to the class shares of the unlabeled images."""

Arm = Callable[[Draw], Logits]


def majority(draw: Draw) -> Logits:
    """Say the share of each class among the labels of whatever image; the first class if they are equal."""
    share = np.bincount(draw.labeled.y, minlength=len(draw.labeled.classes)) + 1.0
    share[share.argmax()] += 1e-3
    logits = np.log(share / share.sum()).astype(np.float32)
    return lambda x: np.tile(logits, (len(x), 1))


def features(draw: Draw) -> Logits:
    """Boosted trees on texture and shape."""
    return calibrate(fit_boosted(draw.labeled, draw.seed), draw, lambda some: fit_boosted(some, draw.seed))


def forest(draw: Draw) -> Logits:
    """Random forest on texture and shape."""
    return calibrate(fit_forest(draw.labeled, draw.seed), draw, lambda some: fit_forest(some, draw.seed))


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
}


def check_arms(names: tuple[str, ...]) -> None:
    """Raise ConfigError, listing the arms there are, if a name is none of them."""
    unknown = [name for name in names if name.removesuffix(PRIOR) not in ARMS]
    if unknown:
        raise ConfigError(
            f"unknown arm {', '.join(unknown)}; expected some of {', '.join(ARMS)}, each also with "
            f"{PRIOR} after it (--arms)"
        )


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
    return soften(lambda x: mean_turned(fitted.logits, x), fitted.temperature)


def _gan_settings(draw: Draw) -> GanSettings:
    return GanSettings(steps=min(GAN_STEPS, 3 * draw.steps), seed=draw.seed)


def _quiet(_line: str) -> None:
    pass
