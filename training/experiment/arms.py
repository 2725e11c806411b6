"""The arms of an experiment: what may be made of a few labels and many images without one.

To add an arm: a function `Draw -> Logits` whose docstring's first line says what it is, and a line in `ARMS`.
An arm sees `Draw.labeled` and nothing else with a label, so that its budget holds: calibration too is fitted
across folds of these.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from training.cotraining import take_pseudo_labeled
from training.cotraining.contrast import ContrastSettings, cell_views, fit_linear, learn_embedding
from training.cotraining.fixmatch import FixMatchSettings, fit_fixmatch
from training.cotraining.paper import PaperSettings, run_paper
from training.cotraining.robust import RobustSettings, co_train_robust
from training.cotraining.shares import shift_to_shares
from training.cotraining.transfer import PretrainSettings, pretrain
from training.cotraining.trust import lead_of_first, select_trusted
from training.dataset.samples import Samples, join_samples
from training.experiment.fits import (
    CALIBRATION_SHARE,
    Draw,
    Logits,
    calibrate,
    calibrate_network,
    fit_forest,
    fit_settings,
    fit_turned,
    mean_turned,
    network_arm,
    soften,
)
from training.gan import GanSettings, generate_samples
from training.gan.paper import open_gans
from training.learners.features import fit_boosted, fit_features

N_GENERATED = 150
"""Generated images, or copies of real ones, that an arm adds: the paper's number."""
GAN_STEPS = 1500
SELF_ROUNDS, SELF_SHARE = 2, 0.5
"""Rounds of self-training; share of the unlabeled images that is believed, the surest first."""
CO_ROUNDS = 3
"""Rounds of co-training at most: each fits two learners anew."""
PRIOR, STATED = "+prior", "+shares"
"""Suffixes of any arm: the same fit, its calls shifted to the class shares of the unlabeled images, estimated
from `features`, or as stated."""

Arm = Callable[[Draw], Logits]


def majority(draw: Draw) -> Logits:
    """Say the share of each class among the labels of whatever image; the first class if they are equal."""
    share = np.bincount(draw.labeled.y, minlength=len(draw.labeled.classes)) + 1.0
    share[share.argmax()] += 1e-3
    logits = np.log(share / share.sum()).astype(np.float32)
    return lambda x: np.tile(logits, (len(x), 1))


def boosting(draw: Draw) -> Logits:
    """Boosted trees on texture and shape."""
    return _classical_arm(draw, fit_boosted)


def features(draw: Draw) -> Logits:
    """Extremely random trees and a kernel machine on texture and shape."""
    return _classical_arm(draw, fit_features)


def forest(draw: Draw) -> Logits:
    """Random forest on texture and shape."""
    return _classical_arm(draw, fit_forest)


def cnn(draw: Draw) -> Logits:
    """Fit the network with classical augmentation: what the others are measured against."""
    return network_arm(draw, fit_settings(draw))


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
    gans = open_gans(_gan_settings(draw), np.unique(draw.labeled.y).tolist())
    made = generate_samples(draw.labeled, gans, N_GENERATED, steps=None, seed=draw.seed)
    return network_arm(draw, fit_settings(draw), made)


def selftrain(draw: Draw) -> Logits:
    """`cnn` taught by itself: twice, the surest half of the unlabeled, classes in the stated shares."""
    settings = fit_settings(draw)
    logits = fit_turned(draw.labeled, settings)
    for _ in range(SELF_ROUNDS if len(draw.unlabeled) else 0):
        raw = logits(draw.unlabeled.x)
        z = raw + shift_to_shares(raw, draw.shares)
        limit = int(SELF_SHARE * len(z))
        pseudo = select_trusted(z.argmax(axis=1), lead_of_first(z), draw.shares, limit)
        believed = take_pseudo_labeled(draw.unlabeled, pseudo)
        logits = fit_turned(join_samples([draw.labeled, believed]), settings)
    return calibrate_network(logits, draw, settings)


def cotrain_paper(draw: Draw) -> Logits:
    """Algorithm 1 with the network twice, without its GAN."""
    return _paper_arm(draw, 0)


def gan_cotrain(draw: Draw) -> Logits:
    """Algorithm 1 with its GAN: the paper."""
    return _paper_arm(draw, N_GENERATED)


def contrast(draw: Draw) -> Logits:
    """Draw a line through an embedding that all images of the draw taught without labels (SimCLR)."""
    embed = _embedding(draw)
    return _classical_arm(draw, lambda samples, _: fit_linear(embed, samples))


def views(draw: Draw) -> Logits:
    """Add the scores of `contrast` and `features`, in the estimated shares; no pseudo-labels."""
    return _robust_arm(draw, max_rounds=1)


def cotrain_robust(draw: Draw) -> Logits:
    """Let the two of `views` teach each other: pseudo-labels need both and can be taken back."""
    return _robust_arm(draw)


def cotrain_stated(draw: Draw) -> Logits:
    """Do `cotrain-robust`, told the shares of the classes among the unlabeled images."""
    return _robust_arm(draw, shares=draw.shares)


def transfer(draw: Draw) -> Logits:
    """Fit the network to rendered cells first, for as many steps again (the paper's future work)."""
    settings, quick = fit_settings(draw), max(1, draw.steps // CALIBRATION_SHARE)
    start = pretrain(PretrainSettings(settings.learner, steps=draw.steps))

    def fit(samples: Samples, steps: int) -> Logits:
        return fit_turned(samples, replace(settings, steps_per_epoch=steps), start=start)

    return calibrate(fit(draw.labeled, draw.steps), draw, lambda samples: fit(samples, quick))


def fixmatch(draw: Draw) -> Logits:
    """Fit the network by FixMatch: it learns from the unlabeled images that it is sure of."""
    settings = replace(fit_settings(draw), batch=16)
    fitted = fit_fixmatch(draw.labeled, draw.unlabeled, FixMatchSettings(settings))
    return calibrate_network(lambda x: mean_turned(fitted.logits, x), draw, settings)


ARMS: dict[str, Arm] = {
    "majority": majority,
    "boosting": boosting,
    "features": features,
    "forest": forest,
    "cnn": cnn,
    "cnn+duplicates": cnn_duplicates,
    "cnn+gan": cnn_gan,
    "selftrain": selftrain,
    "cotrain-paper": cotrain_paper,
    "contrast": contrast,
    "views": views,
    "cotrain-robust": cotrain_robust,
    "cotrain-stated": cotrain_stated,
    "gan+cotrain": gan_cotrain,
    "transfer": transfer,
    "fixmatch": fixmatch,
}


def plain_arm(name: str) -> str:
    """Return the arm that a name with or without a suffix is fitted by."""
    return name.removesuffix(PRIOR).removesuffix(STATED)


def check_arms(names: tuple[str, ...]) -> None:
    """Raise ConfigError, listing the arms there are, if a name is none of them."""
    unknown = [name for name in names if plain_arm(name) not in ARMS]
    if unknown:
        raise ConfigError(
            f"unknown arm {', '.join(unknown)}; expected some of {', '.join(ARMS)}, each also with "
            f"{PRIOR} or {STATED} after it (--arms)"
        )


def _classical_arm(draw: Draw, learner: Callable[[Samples, int], Logits]) -> Logits:
    def fit(samples: Samples) -> Logits:
        return learner(samples, draw.seed)

    return calibrate(fit(draw.labeled), draw, fit)


def _robust_arm(draw: Draw, *, shares: NDArray[np.float64] | None = None, max_rounds: int = 4) -> Logits:
    if not len(draw.unlabeled):
        parts = (contrast(draw), features(draw))
        return lambda x: np.asarray(np.mean([part(x) for part in parts], axis=0), np.float32)
    fit_pixels, fit_texture = cell_views(_embedding(draw), draw.seed)
    return co_train_robust(
        draw.labeled,
        draw.unlabeled,
        fit_a=fit_pixels,
        fit_b=fit_texture,
        quick=fit_texture,
        settings=RobustSettings(max_rounds=max_rounds),
        progress=_quiet,
        shares=shares,
    ).both


def _embedding(draw: Draw) -> Logits:
    """Return the embedding of all images of the draw, labeled or not: the same for every draw from them."""
    return learn_embedding(np.concatenate([draw.labeled.x, draw.unlabeled.x]), ContrastSettings())


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
