"""What pixels alone teach: an embedding by contrasts between images without labels, and a line through it.

Two views of one crop, turned, shifted and lit otherwise, are to lie nearer to each other than to all other
crops (SimCLR, Chen et al. 2020). What differs between two tiles of one microscope is then no longer what
tells two cells apart, and a few labels go far.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from training.cotraining.trust import Fit
from training.dataset.remember import remember
from training.dataset.samples import Samples
from training.fitting import FitSettings, augment, predict_symmetric
from training.learners.features import class_distances, fit_features, spread_scores

if TYPE_CHECKING:
    import keras

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Gives the (N, 64) embedding of (N, 28, 28) crops, the mean over their eight symmetries; N may be 0."""
FILTERS = (16, 32, 64)
N_PROJECTED = 64


@dataclass(frozen=True, slots=True)
class ContrastSettings:
    """How an embedding is learned; each field one line: meaning, unit, range."""

    steps: int = 600
    """Batches, > 0."""
    batch: int = 160
    """Crops a step, each seen twice, > 1; all there are where those are fewer."""
    learning_rate: float = 2e-3
    """Of Adam at the start; it falls to 0 along a cosine, > 0."""
    temperature: float = 0.2
    """Divides the cosines of a pair, > 0."""
    look: FitSettings = field(
        default_factory=lambda: FitSettings(zoom=0.12, shift_px=2, contrast=0.35, brightness=0.1, noise=0.12)
    )
    """How the two views of a crop differ; of these settings only augmentation counts."""
    seed: int = 0
    """Of weights, order and views."""


_LEARNED: dict[str, Embed] = {}


def learn_embedding(
    x: NDArray[np.uint8], settings: ContrastSettings, progress: Callable[[str], None] | None = None
) -> Embed:
    """Return the embedding that (N, 28, 28) crops teach without a label.

    Their order and how often one is among them change nothing. A process learns each set once.

    Raises
    ------
    ValueError
        For fewer than two different crops.
    """
    crops = np.unique(x.reshape(len(x), -1), axis=0).reshape(-1, *x.shape[1:])
    if len(crops) < 2:
        raise ValueError(f"{len(crops)} different crops; expected at least two to contrast")
    key = hashlib.sha256(repr(settings).encode() + crops.tobytes()).hexdigest()
    if key not in _LEARNED:
        _LEARNED[key] = _learn(crops, settings, progress)
    return _LEARNED[key]


def fit_linear(embed: Embed, samples: Samples) -> Embed:
    """Return how a logistic regression on an embedding gives (N, K) logits of crops, not calibrated.

    Parameters
    ----------
    embed : Embed
        Of `learn_embedding`.
    samples : Samples
        At least one of two classes; a class without samples is never found.
    """
    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, class_weight="balanced", max_iter=1000))
    with threadpool_limits(1):
        line.fit(embed(samples.x), samples.y)
    return spread_scores(lambda x: class_distances(line, embed(x)), line.classes_, samples, -10.0)


def cell_views(embed: Embed, seed: int) -> tuple[Fit, Fit]:
    """Return the two learners that label crops of cells for each other: pixels, and texture and shape."""
    return lambda samples, _: fit_linear(embed, samples), lambda samples, _: fit_features(samples, seed)


def _learn(
    crops: NDArray[np.uint8], settings: ContrastSettings, progress: Callable[[str], None] | None
) -> Embed:
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    trunk, model = _build()
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.steps)
    optimizer = keras.optimizers.Adam(rate)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def step(one: "tf.Tensor", other: "tf.Tensor") -> "tf.Tensor":
        n = tf.shape(one)[0]
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(model(tf.concat([one, other], 0), training=True), axis=1)
            cosine = tf.matmul(z, z, transpose_b=True) / settings.temperature - 1e9 * tf.eye(2 * n)
            partner = tf.concat([tf.range(n, 2 * n), tf.range(n)], 0)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(partner, cosine))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    for k in range(settings.steps):
        some = crops[rng.permutation(len(crops))[: settings.batch]]
        one, other = (augment(some, settings.look, rng)[..., None] for _ in range(2))
        loss = step(one, other)
        if progress and (k + 1) % 100 == 0:
            progress(f"embedding: step {k + 1}/{settings.steps}, loss {float(loss):.2f}")

    @remember
    def embed(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        return predict_symmetric(trunk, x, "features")

    return embed


def _build() -> tuple["keras.Model", "keras.Model"]:
    """Return the trunk, and the trunk with the head that only training uses."""
    from keras import Input, Model, layers

    image = x = Input((28, 28, 1))
    for i, filters in enumerate(FILTERS):
        x = layers.Conv2D(filters, 3, strides=1 if i else 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2, padding="same")(x) if i else x
    pooled = layers.GlobalAveragePooling2D()(x)
    head = layers.ReLU()(layers.BatchNormalization()(layers.Dense(2 * N_PROJECTED)(pooled)))
    return Model(image, {"features": pooled}), Model(image, layers.Dense(N_PROJECTED)(head))
