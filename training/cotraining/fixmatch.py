"""FixMatch (Sohn et al. 2020): what a network is sure of, it learns to see through strong changes too.

The modern reference beside Algorithm 1: one network, one view, labels that it gives itself anew each step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.cotraining import require_labels
from training.dataset.samples import SampleOrder, Samples
from training.fitting import FitSettings, Fitted, NDFloat, augment, seed_network

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Step = Callable[[NDFloat, NDArray[np.intp], NDFloat, NDFloat, np.float32], "tuple[tf.Tensor, tf.Tensor]"]
MEAN_AFTER = 10
"""Until about this many steps the mean of the weights forgets faster: it would hold what is random else."""


@dataclass(frozen=True, slots=True)
class FixMatchSettings:
    """How unlabeled crops are used; each field one line: meaning, unit, range."""

    fit: FitSettings = field(
        default_factory=lambda: FitSettings(
            "table2", epochs=20, steps_per_epoch=25, batch=16, shift_px=2, noise=0.05
        )
    )
    """Network, steps, and the changes of labeled crops."""
    confidence_min: float = 0.95
    """Probability from which on the network's own label counts, 0 to 1."""
    ratio: int = 7
    """Unlabeled crops a labeled one in each step, > 0."""
    memory: float = 0.999
    """Share that the mean of the weights, which is what is returned, keeps in a step, 0 to 1."""
    weight: float = 1.0
    """Of the loss on unlabeled crops, >= 0."""
    zoom: float = 0.2
    """Strong changes, in the units of `FitSettings`; shifts are those of `fit`, for weak changes too."""
    contrast: float = 0.5
    brightness: float = 0.15
    noise: float = 0.2
    cutout_px: int = 10
    """Side of the square that is covered with medium, px, 0 to 28."""


def fit_fixmatch(
    labeled: Samples,
    unlabeled: Samples,
    settings: FixMatchSettings,
    progress: Callable[[str], None] | None = None,
) -> Fitted:
    """Return the network fitted to labeled and unlabeled crops: the mean of its weights over the steps.

    Parameters
    ----------
    labeled : Samples
        All classes in it; they are drawn equally often.
    unlabeled : Samples
        Its `y` is never looked at. Empty is no error: what is left is a fit to the labels.
    settings : FixMatchSettings
        Equal settings and samples give equal weights on one machine.
    progress : callable, optional
        Called with one line an epoch.

    Returns
    -------
    Fitted
        With temperature 1: nothing was held out. Its history has the loss of an epoch, and as `sure` the
        share of unlabeled crops that were learned from.

    Raises
    ------
    ConfigError
        If a class has no labels.
    """
    import keras

    require_labels(labeled)
    fit = settings.fit
    model, mean = (seed_network(fit, len(labeled.classes)) for _ in range(2))
    rng = np.random.default_rng(fit.seed)
    steps = fit.steps_per_epoch or max(1, -(-len(labeled) // fit.batch))
    rate = keras.optimizers.schedules.CosineDecay(fit.learning_rate, steps * fit.epochs, alpha=0.02)
    step = _make_step(model, mean, keras.optimizers.Adam(rate), settings)
    known = SampleOrder(labeled.y, fit.balanced, rng)
    others = SampleOrder(np.zeros(len(unlabeled), np.intp), False, rng)
    history: list[dict[str, float]] = []
    for epoch in range(fit.epochs):
        told = []
        for index in range(epoch * steps, (epoch + 1) * steps):
            i = known.take(fit.batch)
            x = unlabeled.x[others.take(settings.ratio * fit.batch if len(unlabeled) else 0)]
            inputs = (augment(labeled.x[i], fit, rng), *_weak_and_strong(x, settings, rng))
            memory = min(settings.memory, (index + 1) / (index + MEAN_AFTER))
            a, b, c = (each[..., None] for each in inputs)
            told.append([float(value) for value in step(a, labeled.y[i], b, c, np.float32(memory))])
        loss, sure = np.mean(told, axis=0).tolist()
        history.append({"loss": loss, "nll": float("nan"), "sure": sure})
        if progress:
            progress(f"epoch {epoch + 1}/{fit.epochs} loss {loss:.3f}, sure of {sure:.0%} of the unlabeled")
    return Fitted(mean, 1.0, tuple(history), fit.epochs - 1)


def _weak_and_strong(
    x: NDArray[np.uint8], settings: FixMatchSettings, rng: np.random.Generator
) -> tuple[NDFloat, NDFloat]:
    """Return network inputs of (N, 28, 28) crops turned and shifted, and changed in all ways and covered."""
    weak = augment(x, replace(settings.fit, zoom=0, contrast=0, brightness=0, noise=0), rng)
    changes = {name: getattr(settings, name) for name in ("zoom", "contrast", "brightness", "noise")}
    strong = augment(x, replace(settings.fit, **changes), rng)
    side = np.arange(x.shape[1])
    corner = rng.integers(-(settings.cutout_px // 2), x.shape[1] - settings.cutout_px // 2, (2, len(x), 1))
    rows, cols = (side >= corner) & (side < corner + settings.cutout_px)
    strong[rows[:, :, None] & cols[:, None, :]] = 0  # medium
    return weak, strong


def _make_step(
    model: "keras.Model",
    mean: "keras.Model",
    optimizer: "keras.optimizers.Optimizer",
    settings: FixMatchSettings,
) -> Step:
    import tensorflow as tf

    variables, smoothing = model.trainable_variables, settings.fit.smoothing

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def step(
        x: "tf.Tensor", y: "tf.Tensor", weak: "tf.Tensor", strong: "tf.Tensor", memory: "tf.Tensor"
    ) -> "tuple[tf.Tensor, tf.Tensor]":
        said = tf.nn.softmax(model(weak, training=False)["logits"])
        sure = tf.cast(tf.reduce_max(said, axis=1) >= settings.confidence_min, tf.float32)
        n = tf.maximum(tf.cast(tf.size(sure), tf.float32), 1.0)
        with tf.GradientTape() as tape:
            logits = model(tf.concat([x, strong], axis=0), training=True)["logits"]
            n_classes = logits.shape[1]
            target = tf.one_hot(y, n_classes) * (1 - smoothing) + smoothing / n_classes
            known = tf.nn.softmax_cross_entropy_with_logits(target, logits[: len(x)])
            own = tf.one_hot(tf.argmax(said, axis=1), n_classes)
            guessed = tf.nn.softmax_cross_entropy_with_logits(own, logits[len(x) :])
            loss = tf.reduce_mean(known) + settings.weight * tf.reduce_sum(sure * guessed) / n
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        for average, variable in zip(mean.trainable_variables, variables, strict=True):
            average.assign(memory * average + (1 - memory) * variable)
        return loss, tf.reduce_sum(sure) / n

    optimizer.build(variables)
    run: Step = step
    return run
