"""Profile `robust`: one small class-conditional GAN that few images do not overwhelm at once.

Spectral norm and R1 tame the discriminator, DiffAugment (Zhao et al. 2020) keeps it from learning the real
images by heart, the generator that is used is the mean of its last steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.gan import Gan, GanSettings, Step, accuracy, descend, judge_losses

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True, slots=True)
class RobustSettings(GanSettings):
    """How the robust GAN is fitted; fields and units as in `GanSettings`, which it adds to."""

    latent: int = 64
    beta_1: float = 0.0
    dropout: float = 0.0
    r1_gamma: float = 1.0
    """Weight of half the squared gradient of the discriminator at real images, >= 0."""
    r1_every: int = 16
    """Steps between two penalties, each then so many times as heavy, > 0."""
    ema_decay: float = 0.995
    """Of the generator's mean: half its weight is of the last 138 steps, 0 to 1."""
    brightness: float = 0.1
    """Largest added brightness of DiffAugment, network units: more would make live of dead, 0 to 1."""
    shift_px: int = 3
    """Largest translation of DiffAugment either way, px, 0 to 14."""
    cutout_px: int = 10
    """Side of the square that DiffAugment blanks, px, 0 to 28."""


def open_robust_gan(settings: RobustSettings, n_classes: int) -> Gan:
    """Return an untrained GAN for `n_classes` classes; its `generator` is the mean one."""
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    generator = _build_generator(settings, n_classes)
    mean = keras.models.clone_model(generator)
    mean.set_weights(generator.get_weights())
    discriminator = _build_discriminator(settings, n_classes)
    step = _make_step(generator, mean, discriminator, settings, n_classes)
    return Gan(mean, discriminator, settings, step, n_classes)


def diff_augment(images: "tf.Tensor", settings: RobustSettings) -> "tf.Tensor":
    """Return (N, 28, 28, 1) images each turned, flipped, shifted, brightened and cut at random.

    Everything passes gradients back to `images`. What comes in from beyond the border, and the cut square, is
    0: the background's gray. Contrast stays, and brightness nearly: they tell live from dead.
    """
    import tensorflow as tf

    n, side = tf.shape(images)[0], images.shape[1]
    x = images[..., 0]
    x = tf.where(tf.random.uniform((n, 1, 1)) < 0.5, tf.transpose(x, (0, 2, 1)), x)

    def moves() -> "tf.Tensor":
        # one-hot rows: a flip and a shift in one product, where a gather would scatter its gradient
        shift = tf.random.uniform((n, 1), -settings.shift_px, settings.shift_px + 1, tf.int32)
        place = tf.range(side)[None] + shift
        return tf.one_hot(tf.where(tf.random.uniform((n, 1)) < 0.5, side - 1 - place, place), side)

    x = moves() @ x @ tf.transpose(moves(), (0, 2, 1))
    x += tf.random.uniform((n, 1, 1), -settings.brightness, settings.brightness)
    low = tf.random.uniform((2, n, 1), 1 - settings.cutout_px, side, tf.int32)
    inside = (tf.range(side) >= low) & (tf.range(side) < low + settings.cutout_px)
    x = tf.where(inside[0][:, :, None] & inside[1][:, None, :], 0.0, x)
    return x[..., None]


def bound_norm(kernel: "keras.Variable", u: "tf.Variable") -> None:
    """Divide a kernel, as a matrix of (inputs, outputs), by its largest singular value.

    `u` (1, outputs) is the estimate of its direction; one step of power iteration improves it each time.

    Notes
    -----
    Miyato et al. (2018) divide within the forward pass; here the weights are put back after each update.
    """
    import tensorflow as tf

    weight = tf.reshape(kernel, (-1, kernel.shape[-1]))
    v = tf.math.l2_normalize(u @ tf.transpose(weight))
    u.assign(tf.math.l2_normalize(v @ weight))
    kernel.assign(kernel / tf.maximum(tf.reduce_sum((v @ weight) * u), 1e-12))


def mean_decay(step: int, decay: float) -> float:
    """Return the decay of the generator's mean in a step (from 0): early means forget the start sooner."""
    return min(decay, (1 + step) / (10 + step))


def _build_generator(settings: RobustSettings, n_classes: int) -> "keras.Model":
    import keras
    from keras import layers

    from training.gan.upsampling import UpConv2D

    latent = keras.Input((settings.latent + n_classes,))  # the class is one-hot behind the noise
    x = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(latent))
    for filters in (64, 32):
        x = UpConv2D(filters)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=settings.momentum)(x))
    return keras.Model(latent, layers.Conv2D(1, 3, padding="same", activation="tanh")(x), name="generator")


def _build_discriminator(settings: RobustSettings, n_classes: int) -> "keras.Model":
    """Return the network of images and one-hot classes: a judgment of all, plus a projection on the class."""
    import keras
    from keras import layers

    image, label = keras.Input((28, 28, 1)), keras.Input((n_classes,))
    x = image
    for filters in (32, 64, 128):
        x = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = layers.LeakyReLU(negative_slope=settings.slope)(x)
    x = layers.Dropout(settings.dropout)(layers.Flatten()(x))
    of_class = layers.Dot(axes=1)([layers.Dense(n_classes, use_bias=False)(x), label])
    logit = layers.Add()([layers.Dense(1)(x), of_class])
    return keras.Model([image, label], logit, name="discriminator")


def _make_step(
    generator: "keras.Model",
    mean: "keras.Model",
    discriminator: "keras.Model",
    settings: RobustSettings,
    n_classes: int,
) -> Step:
    """Return the function of one step; the mean generator follows the trained one."""
    import keras
    import tensorflow as tf

    d_adam, g_adam = (
        keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1, beta_2=0.99) for _ in range(2)
    )
    d_adam.build(discriminator.trainable_variables)
    g_adam.build(generator.trainable_variables)
    kernels = [v for v in discriminator.trainable_variables if v.name == "kernel"]
    directions = [tf.Variable(tf.math.l2_normalize(tf.random.normal((1, k.shape[-1])))) for k in kernels]
    bound = _bounder(kernels, directions)
    for _ in range(20):  # the estimates start at random
        bound()

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def step(
        real: "tf.Tensor", y: "tf.Tensor", decay: "tf.Tensor", penalized: bool
    ) -> "tuple[tf.Tensor, tf.Tensor, tf.Tensor]":
        label = tf.one_hot(y, n_classes)
        latent = tf.concat([tf.random.normal((tf.shape(real)[0], settings.latent)), label], axis=1)
        with tf.GradientTape() as d_tape, tf.GradientTape() as g_tape:
            fake = diff_augment(generator(latent, training=True), settings)
            on_fake = discriminator([fake, label], training=True)
            with tf.GradientTape() as r1_tape:
                r1_tape.watch(real)
                on_real = discriminator([diff_augment(real, settings), label], training=True)
            d_loss, g_loss = judge_losses(on_real, on_fake)
            penalty = 0.0
            if penalized:
                slopes = tf.reduce_sum(tf.square(r1_tape.gradient(on_real, real)), axis=(1, 2, 3))
                penalty = settings.r1_gamma / 2 * settings.r1_every * tf.reduce_mean(slopes)
            total = d_loss + penalty
        descend(d_tape, total, discriminator, d_adam)
        descend(g_tape, g_loss, generator, g_adam)
        for kernel, direction in zip(kernels, directions, strict=True):
            bound_norm(kernel, direction)
        for kept, new in zip(mean.weights, generator.weights, strict=True):
            kept.assign(decay * kept + (1 - decay) * new)
        return d_loss, accuracy(on_real, on_fake), g_loss

    n_done = 0

    def run(real: NDArray[np.float32], y: NDArray[np.intp]) -> "tuple[tf.Tensor, tf.Tensor, tf.Tensor]":
        nonlocal n_done
        decay = tf.constant(mean_decay(n_done, settings.ema_decay))
        penalized = settings.r1_gamma > 0 and n_done % settings.r1_every == 0
        n_done += 1
        result: tuple[tf.Tensor, tf.Tensor, tf.Tensor] = step(tf.constant(real), y, decay, penalized)
        return result

    return run


def _bounder(kernels: "list[keras.Variable]", directions: "list[tf.Variable]") -> Callable[[], None]:
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def bound() -> None:
        for kernel, direction in zip(kernels, directions, strict=True):
            bound_norm(kernel, direction)

    run: Callable[[], None] = bound
    return run
