"""Profile `paper`: the DCGAN behind the paper's log lines, one for each class."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.gan import Gan, GanSettings, Step, accuracy, descend, judge_losses

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def open_gan(settings: GanSettings) -> Gan:
    """Return an untrained GAN."""
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    generator, discriminator = _build_generator(settings), _build_discriminator(settings)
    return Gan(generator, discriminator, settings, _make_step(generator, discriminator, settings))


def open_gans(settings: GanSettings, classes: Iterable[int]) -> dict[int, Gan]:
    """Return an untrained GAN for each class, each with a seed of its own."""
    return {int(k): open_gan(replace(settings, seed=settings.seed + int(k))) for k in classes}


def _build_generator(settings: GanSettings) -> "keras.Model":
    import keras
    from keras import layers

    from training.gan.upsampling import UpConv2D

    latent = keras.Input((settings.latent,))
    x = layers.Dense(7 * 7 * 128, activation="relu")(latent)
    x = layers.Reshape((7, 7, 128))(x)
    for filters in (128, 64):
        x = UpConv2D(filters)(x)
        x = layers.BatchNormalization(momentum=settings.momentum)(x)
        x = layers.ReLU()(x)
    return keras.Model(latent, layers.Conv2D(1, 3, padding="same", activation="tanh")(x), name="generator")


def _build_discriminator(settings: GanSettings) -> "keras.Model":
    import keras
    from keras import layers

    image = keras.Input((28, 28, 1))
    x = image
    for filters, stride in ((32, 2), (64, 2), (128, 2), (256, 1)):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same")(x)
        if filters > 32:
            x = layers.BatchNormalization(momentum=settings.momentum)(x)
        x = layers.LeakyReLU(negative_slope=settings.slope)(x)
        x = layers.Dropout(settings.dropout)(x)
    return keras.Model(image, layers.Dense(1)(layers.Flatten()(x)), name="discriminator")


def _make_step(generator: "keras.Model", discriminator: "keras.Model", settings: GanSettings) -> Step:
    """Return the function of one step: real batch in; D loss, D accuracy and G loss out."""
    import keras
    import tensorflow as tf

    d_adam, g_adam = (keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1) for _ in range(2))
    d_adam.build(discriminator.trainable_variables)
    g_adam.build(generator.trainable_variables)

    # of any batch: the images of a class become more from round to round
    @tf.function(input_signature=[tf.TensorSpec((None, 28, 28, 1))])  # type: ignore[untyped-decorator]  # no types
    def step(real: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor, tf.Tensor]":
        latent = tf.random.normal((tf.shape(real)[0], settings.latent))
        # one batch of fakes serves both updates: a quarter less work than drawing two
        with tf.GradientTape() as d_tape, tf.GradientTape() as g_tape:
            fake = generator(latent, training=True)
            on_real = discriminator(real, training=True)
            on_fake = discriminator(fake, training=True)
            d_loss, g_loss = judge_losses(on_real, on_fake)
        descend(d_tape, d_loss, discriminator, d_adam)
        descend(g_tape, g_loss, generator, g_adam)
        return d_loss, accuracy(on_real, on_fake), g_loss

    def run(real: NDArray[np.float32], _: NDArray[np.intp]) -> "tuple[tf.Tensor, tf.Tensor, tf.Tensor]":
        result: tuple[tf.Tensor, tf.Tensor, tf.Tensor] = step(real)
        return result

    return run
