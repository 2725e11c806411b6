"""A trainer that knows no network: balanced classes, classical augmentation, the best epoch by validation.

TensorFlow is imported by the functions that need it: settings and figures come without its ten seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from device.analysis.crops import OUTSIDE
from device.errors import ConfigError
from device.model_card import network_input
from training.dataset.samples import SampleOrder, Samples
from training.dataset.symmetry import symmetries
from training.fields import LOGIT_OF_CELL
from training.learners import open_learner

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

NDFloat = NDArray[np.float32]
DENSITY = "density"
"""Layer of a learner that is taught where cells are; its logits are the layer's mean."""
WHOLE_WEIGHT = 10.0
"""Weight of the squared error of the mean over a tile beside that of its places."""
CROWD = 0.5
"""Added to the weighed cells of a tile that its error is divided by: it is the share of dead that counts.
Else crowded images teach alone: AUC on mosaics of chambers, which hold few cells, was 0.71, not 0.89."""
CALIBRATION_MIN = 50
"""With fewer held-out samples no temperature is fitted: a few right answers would give the smallest."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a network is fitted; each field one line: meaning, unit, range."""

    learner: str = "station"
    """Kind of network: a file of `training.learners`."""
    epochs: int = 20
    """At most this many, >= 1."""
    steps_per_epoch: int = 0
    """Batches an epoch; 0 is one pass over the training samples, >= 0."""
    batch: int = 64
    """Samples a step, > 0."""
    learning_rate: float = 1e-3
    """Of Adam at the start; it falls to 2 % along a cosine, > 0."""
    smoothing: float = 0.05
    """Share of the target spread over all classes: small logits have fine int8 steps, 0 to 0.5."""
    zoom: float = 0.1
    """Standard deviation of the log of the magnification, 0 to 0.3."""
    shift_px: float = 0.0
    """Largest translation either way, working px, 0 to 4. Candidates lie off their cells as it is; crops cut
    at true centers do not."""
    contrast: float = 0.25
    """Standard deviation of the log of the contrast factor, 0 to 1."""
    brightness: float = 0.06
    """Standard deviation of the added brightness, network units (128 gray levels), 0 to 0.5."""
    noise: float = 0.0
    """Largest standard deviation of added noise, network units, 0 to 0.2: lets faint crops bear int8."""
    step_noise: float = 0.035
    """Noise on activations of 0 to 6 in training, standard deviation, >= 0: 1.5 int8 steps, so that the
    network bears the conversion. Costs F1 where cells are faint."""
    balanced: bool = True
    """Draw each class equally often."""
    seed: int = 0
    """Of weights, order and augmentation."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fitted network with what its fit showed."""

    model: "keras.Model"
    """keras.Model at its best epoch."""
    temperature: float
    """Fitted on the validation logits; 1 where there were none."""
    history: tuple[dict[str, float], ...]
    """An epoch each: loss of training, nll of validation (nan without)."""
    best_epoch: int
    """From 0."""

    def logits(self, x: NDArray[np.uint8]) -> NDFloat:
        """Return (N, K) logits of (N, 28, 28) crops."""
        return predict_logits(self.model, x)


def fit_network(
    train: Samples,
    val: Samples | None,
    settings: FitSettings,
    progress: Callable[[str], None] | None = None,
    *,
    start: Sequence[NDFloat] | None = None,
) -> Fitted:
    """Return the network of `settings.learner` fitted to `train`.

    Parameters
    ----------
    train : Samples
        At least one sample of two classes.
    val : Samples, optional
        Chooses the epoch and fits the temperature. Without it the last epoch stays, with temperature 1.
    settings : FitSettings
        How it is fitted. Equal settings and samples give equal weights on one machine.
    progress : callable, optional
        Called with one line an epoch.
    start : sequence of ndarray of float32, optional
        Weights of a network of the same learner to go on from (`pretrain`). Its last layer starts anew: the
        classes may be others. By default all layers start at random.

    Raises
    ------
    ValueError
        If the samples are of one class only.
    """
    import keras

    if len(np.unique(train.y)) < 2:
        raise ValueError(f"training samples are {train.count()}; expected at least two classes")
    judged = val if val is not None and len(val) else None
    model = seed_network(settings, len(train.classes), start)
    rng = np.random.default_rng(settings.seed)
    if model.input_shape[1:3] != train.x.shape[1:]:
        raise ConfigError(
            f"learner {settings.learner} sees {model.input_shape[1:3]} px; expected {train.x.shape[1:]}, the "
            "size of the samples; choose another learner"
        )
    steps = settings.steps_per_epoch or max(1, -(-len(train) // settings.batch))
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps * settings.epochs, alpha=0.02)
    learned: NDArray[np.intp] | NDFloat = train.y if train.density is None else train.density
    step = _make_step(model, keras.optimizers.Adam(rate), settings.smoothing, where=learned.ndim > 1)
    order = SampleOrder(train.y, settings.balanced, rng)
    history: list[dict[str, float]] = []
    best = (float("inf"), 0, model.get_weights())
    for epoch in range(settings.epochs):
        losses = []
        for _ in range(steps):
            index = order.take(settings.batch)
            truth = learned[index]
            inputs = augment(train.x[index], settings, rng, truth)[..., None]
            losses.append(step(inputs, truth))
        nll = mean_nll(predict_logits(model, judged.x), judged.y) if judged else float("nan")
        history.append({"loss": float(np.mean([float(loss) for loss in losses])), "nll": nll})
        if progress:
            progress(f"epoch {epoch + 1}/{settings.epochs} loss {history[-1]['loss']:.3f} val nll {nll:.3f}")
        if not nll >= best[0]:  # nan (no validation) takes each epoch, so the last stays
            best = (nll, epoch, model.get_weights())
    model.set_weights(best[2])
    temperature = fit_temperature(predict_logits(model, judged.x), judged.y) if judged else 1.0
    return Fitted(model, temperature, tuple(history), best[1])


def seed_network(
    settings: FitSettings, n_classes: int, start: Sequence[NDFloat] | None = None
) -> "keras.Model":
    """Return the network that a fit begins with; all randomness of TensorFlow hangs on its seed from here."""
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    model = open_learner(settings.learner)(n_classes, settings.step_noise)
    if start is not None:
        model.set_weights([*start[:-2], *model.get_weights()[-2:]])
    return model


def augment(
    x: NDArray[np.uint8],
    settings: FitSettings,
    rng: np.random.Generator,
    truth: NDArray[np.intp] | NDFloat | None = None,
) -> NDFloat:
    """Return network inputs of crops after a random symmetry, zoom, shift, contrast, brightness and noise.

    Parameters
    ----------
    x : (N, 28, 28) ndarray of uint8
        Crops; not modified.
    truth : ndarray, optional
        Maps (N, R, C, K) are turned with their crops, in place.

    Returns
    -------
    (N, 28, 28) ndarray of float32
        Clipped to -1..1, the range of the network's input. What lies beyond the border of the image stays so.
    """
    turned = x.copy()
    symmetry = rng.integers(0, 8, len(x))
    maps = [] if truth is None or truth.ndim == 1 else [truth]
    for k in range(1, 8):
        mine = symmetry == k
        for images in (turned, *maps):
            images[mine] = symmetries(images[mine])[k]
    if settings.zoom > 0 or settings.shift_px > 0:
        _warp(turned, settings, rng)
    gain = np.exp(rng.normal(0, settings.contrast, (len(x), 1, 1))).astype(np.float32)
    offset = rng.normal(0, settings.brightness, (len(x), 1, 1)).astype(np.float32)
    changed = network_input(turned) * gain + offset
    if settings.noise > 0:
        level = rng.uniform(0, settings.noise, (len(x), 1, 1)).astype(np.float32)
        changed += level * rng.standard_normal(x.shape, np.float32)
    changed[turned == OUTSIDE] = network_input(np.array(OUTSIDE, np.uint8))
    return np.asarray(np.clip(changed, -1, 1), np.float32)


def _warp(crops: NDArray[np.uint8], settings: FitSettings, rng: np.random.Generator) -> None:
    """Magnify and shift each crop at random, in place."""
    middle = ((crops.shape[2] - 1) / 2, (crops.shape[1] - 1) / 2)
    warp = partial(cv2.warpAffine, dsize=crops.shape[2:0:-1], borderMode=cv2.BORDER_REPLICATE)
    factors = np.exp(rng.normal(0, settings.zoom, len(crops))) if settings.zoom > 0 else np.ones(len(crops))
    reach = settings.shift_px
    shifts = rng.uniform(-reach, reach, (len(crops), 2)) if reach > 0 else np.zeros((len(crops), 2))
    for i, factor in enumerate(factors.tolist()):
        grid = cv2.getRotationMatrix2D(middle, 0, factor)
        grid[:, 2] += shifts[i]
        beyond = crops[i] == OUTSIDE
        crops[i] = warp(crops[i], grid)
        if beyond.any():  # the border of the image stays sharp
            crops[i][warp(beyond.view(np.uint8), grid, flags=cv2.INTER_NEAREST) > 0] = OUTSIDE


def predict_logits(model: "keras.Model", x: NDArray[np.uint8]) -> NDFloat:
    """Return (N, K) logits of (N, 28, 28) crops; N may be 0."""
    return predict(model, x)["logits"]


def predict_symmetric(model: "keras.Model", x: NDArray[np.uint8], output: str = "logits") -> NDFloat:
    """Return an output of a network for (N, 28, 28) crops, the mean over the eight symmetries of each."""
    return np.asarray(np.mean([predict(model, y)[output] for y in symmetries(x)], axis=0), np.float32)


def predict(model: "keras.Model", x: NDArray[np.uint8]) -> dict[str, NDFloat]:
    """Return the outputs of a network, by name, for (N, 28, 28) crops, in batches; N may be 0."""
    parts = [
        model(network_input(x[start : start + 512])[..., None], training=False)
        for start in range(0, max(len(x), 1), 512)
    ]
    return {name: np.concatenate([np.asarray(part[name], np.float32) for part in parts]) for name in parts[0]}


def mean_nll(logits: NDFloat, y: NDArray[np.intp], temperature: float = 1.0) -> float:
    """Return the mean negative log likelihood, nats a sample, of the classes `y`."""
    log_p = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -float(np.mean(log_p[np.arange(len(y)), y]))


def fit_temperature(logits: NDFloat, y: NDArray[np.intp], *, doubt: float = 0.0) -> float:
    """Return the temperature that minimizes the NLL, within e^-2 to e^2.

    `doubt`, >= 0, weighs the square of its logarithm against the sum of NLL: few labels leave it near 1.
    """

    def cost(log_t: float) -> float:
        return mean_nll(logits, y, float(np.exp(log_t))) + doubt * log_t**2 / len(y)

    return float(np.exp(minimize_scalar(cost, bounds=(-2, 2), method="bounded").x))


def _make_step(
    model: "keras.Model", optimizer: "keras.optimizers.Optimizer", smoothing: float, *, where: bool
) -> Callable[[NDFloat, NDArray[np.intp] | NDFloat], "tf.Tensor"]:
    """Return the step on images and their classes or (`where`) maps of the layer `density`."""
    import keras
    import tensorflow as tf

    taught = keras.Model(model.input, model.get_layer(DENSITY).output) if where else model
    variables = taught.trainable_variables

    def errors(x: "tf.Tensor", truth: "tf.Tensor") -> "tf.Tensor":
        if where:
            off = taught(x, training=True) - truth
            whole = tf.reduce_sum(tf.square(tf.reduce_mean(off, (1, 2))), 1)
            cells = tf.reduce_sum(tf.reduce_mean(truth, (1, 2)), 1) / LOGIT_OF_CELL
            error = tf.reduce_mean(tf.square(off), (1, 2, 3)) + WHOLE_WEIGHT * whole
            return error / (CROWD + cells)
        logits = taught(x, training=True)["logits"]
        n_classes = logits.shape[1]
        target = tf.one_hot(truth, n_classes) * (1 - smoothing) + smoothing / n_classes
        return tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=logits)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def step(x: "tf.Tensor", truth: "tf.Tensor") -> "tf.Tensor":
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(errors(x, truth))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    optimizer.build(variables)
    run: Callable[[NDFloat, NDArray[np.intp] | NDFloat], tf.Tensor] = step
    return run
