"""GANs: what the profiles `paper` and `robust`, a file each beside this one, share.

The paper's "epoch" is one mini-batch, so it is called a step here. Generated images are training data only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device.images import write_png
from device.model_card import network_input
from training.dataset.samples import Samples, join_samples

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

GENERATED = "generated"
"""Source of samples that a GAN made."""


MIN_BATCH = 16
"""Batch normalization measures too badly on fewer; what lacks is drawn again."""

Step = Callable[[NDArray[np.float32], NDArray[np.intp]], "tuple[tf.Tensor, tf.Tensor, tf.Tensor]"]
"""Takes a real batch and its classes; gives discriminator loss, its accuracy and generator loss."""


@dataclass(frozen=True, slots=True)
class GanSettings:
    """How a GAN is fitted; each field one line: meaning, unit, range. Defaults are the profile `paper`."""

    steps: int = 1500
    """Mini-batches: the paper's epochs, > 0."""
    batch: int = 32
    """Real images a step, and as many generated ones, > 0; all where there are fewer, yet `MIN_BATCH`."""
    latent: int = 100
    """Length of the latent vector, > 0."""
    learning_rate: float = 2e-4
    """Of both Adams, > 0."""
    beta_1: float = 0.5
    """Of both Adams, 0 to 1."""
    momentum: float = 0.8
    """Of batch normalization, 0 to 1."""
    slope: float = 0.2
    """Of LeakyReLU in the discriminator, 0 to 1."""
    dropout: float = 0.25
    """In the discriminator, 0 to 1."""
    log_every: int = 100
    """Steps between two log lines, > 0."""
    grid_at: tuple[int, ...] = (300, 900, 1500)
    """Steps at which a grid of samples is kept: the paper's figures 12 to 14."""
    choose_every: int = 100
    """Steps between two checkpoints to choose from, > 0."""
    seed: int = 0
    """Of weights, batches and latent vectors."""


@dataclass(frozen=True, slots=True)
class LogPoint:
    """One log line: losses in nats, accuracy of the discriminator 0 to 1, all means since the line before."""

    step: int
    d_loss: float
    d_accuracy: float
    g_loss: float

    def __str__(self) -> str:
        """Return the line in the form that the paper prints."""
        discriminator = f"[D loss: {self.d_loss:.3f}, acc.: {self.d_accuracy:.1%}]"
        return f"step {self.step:04d} {discriminator} [G loss: {self.g_loss:.3f}]"


@dataclass(eq=False)
class Gan:
    """A generator and its discriminator with their training state; `fit_gan` goes on where it stopped."""

    generator: "keras.Model"
    discriminator: "keras.Model"
    settings: GanSettings
    train_step: Step
    n_classes: int = 0
    """Classes that a GAN of profile `robust` knows; 0: its images are of one class."""
    step: int = 0
    log: list[LogPoint] = field(default_factory=list)
    grids: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """(5 * 28, 5 * 28) samples by step."""
    kids: dict[int, float] = field(default_factory=dict)
    """KID by step where a checkpoint was chosen by it; the generator is that of the lowest."""

    def judge(self, x: NDArray[np.uint8], class_index: int) -> NDArray[np.float32]:
        """Return (N,) logits of `real` that the discriminator gives (N, 28, 28) images of one class."""
        inputs = network_input(x)[..., None]
        label = np.eye(max(self.n_classes, 1), dtype=np.float32)[
            [class_index if self.n_classes else 0] * len(x)
        ]
        logits = self.discriminator([inputs, label] if self.n_classes else inputs, training=False)
        return np.asarray(logits, np.float32)[:, 0]

    def generate(self, count: int, seed: int, class_index: int | None = None) -> NDArray[np.uint8]:
        """Return (count, 28, 28) generated images; equal seeds give equal images.

        A GAN that knows classes makes those of `class_index`, or of each in its turn.
        """
        rng = np.random.default_rng(seed)
        latent = rng.standard_normal((count, self.settings.latent)).astype(np.float32)
        if self.n_classes:
            wanted = np.arange(count) % self.n_classes if class_index is None else np.full(count, class_index)
            latent = np.hstack([latent, np.eye(self.n_classes, dtype=np.float32)[wanted]])
        images = np.asarray(self.generator(latent, training=False))[..., 0]
        return np.asarray(np.clip(np.rint(images * 128 + 128), 0, 255), np.uint8)


def fit_gan(
    gan: Gan,
    real: Samples,
    *,
    steps: int | None = None,
    progress: Callable[[str], None] | None = None,
    measure: Callable[[Gan], float] | None = None,
) -> None:
    """Train `gan` on `real` images for `steps` more steps.

    Parameters
    ----------
    gan : Gan
        Changed in place.
    real : Samples
        At least one; fewer than a batch make it smaller: a copy in it costs time and teaches nothing. A GAN
        that knows classes draws each of those there are equally often, any other takes all as of one class.
    steps : int, optional
        Those of its settings by default.
    progress : callable, optional
        Called with each log line.
    measure : callable, optional
        Gives the KID of what the generator makes now, on images that `real` does not hold. The generator is
        left as it was when that was lowest: for one that is a mean beside the trained one (`robust`).

    Raises
    ------
    ValueError
        If there are no images.
    """
    if len(real) == 0:
        raise ValueError("no images to fit a GAN on; expected at least one of each class")
    settings = gan.settings
    x = network_input(real.x)[..., None]
    rng = np.random.default_rng((settings.seed, gan.step))
    share = 1 / np.bincount(real.y)[real.y]
    odds = share / share.sum() if gan.n_classes else None
    batch = min(settings.batch, max(MIN_BATCH, len(real)))
    sums = np.zeros(4)
    best = None
    last = gan.step + (settings.steps if steps is None else steps)
    while gan.step < last:
        again = gan.n_classes > 0 or len(real) < batch
        index = rng.choice(len(real), batch, replace=again, p=odds)
        sums += (*(float(value) for value in gan.train_step(x[index], real.y[index])), 1)
        gan.step += 1
        if gan.step % settings.log_every == 0 or gan.step == last:
            gan.log.append(LogPoint(gan.step, *(float(value) for value in sums[:3] / sums[3])))
            sums[:] = 0
            if progress:
                progress(str(gan.log[-1]))
        if gan.step in settings.grid_at or gan.step == last:
            gan.grids = {step: grid for step, grid in gan.grids.items() if step in settings.grid_at}
            gan.grids[gan.step] = tile_images(gan.generate(25, settings.seed), 5)
        if measure and (gan.step % settings.choose_every == 0 or gan.step == last):
            gan.kids[gan.step] = measure(gan)
            if gan.kids[gan.step] <= min(gan.kids.values()):
                best = gan.generator.get_weights()
    if best:
        gan.generator.set_weights(best)


def generate_samples(
    real: Samples,
    gans: dict[int, Gan],
    count: int,
    *,
    steps: int | None,
    seed: int,
    progress: Callable[[str], None] | None = None,
    measure: Callable[[Gan], float] | None = None,
) -> Samples:
    """Return `count` generated samples, equally many of each class, after fitting the GANs on `real`.

    Parameters
    ----------
    real : Samples
        What the GANs may see: training samples only.
    gans : dict of int to Gan
        One for each class of `real`, or the same for all where it knows classes; each goes on from where the
        last call left it.
    count : int
        Generated images in all; the first classes get what does not divide. None are made, and no GAN is
        fitted, for 0.
    steps : int or None
        Steps for a GAN that was fitted before; a new one takes those of its settings.
    seed : int
        Of the latent vectors.
    measure : callable, optional
        As in `fit_gan`.
    """
    parts = [replace(real.take(np.zeros(0, np.intp)), split="train", source=GENERATED)]
    classes = np.unique(real.y) if count else np.zeros(0, np.intp)
    for k, class_index in enumerate(classes):
        gan = gans[int(class_index)]
        if k == 0 or not gan.n_classes:
            seen = real if gan.n_classes else real.take(real.y == class_index)
            if progress:
                named = ", ".join(f"{n} {name}" for name, n in seen.count().items() if n)
                progress(f"GAN of {named} images")
            fit_gan(gan, seen, steps=steps if gan.step else None, progress=progress, measure=measure)
        share = count // len(classes) + (k < count % len(classes))
        images = gan.generate(share, seed, int(class_index))
        group = np.full(share, GENERATED)
        parts.append(Samples(images, np.full(share, class_index), group, "train", GENERATED, real.classes))
    return join_samples(parts)


def tile_images(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Return (N, h, w) images as one grid, row by row, black where N does not fill the last row."""
    rows = -(-len(images) // columns)
    height, width = images.shape[1:]
    grid = np.zeros((rows * columns, height, width), np.uint8)
    grid[: len(images)] = images
    return grid.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def write_gan_figures(folder: Path, name: str, gan: Gan) -> list[str]:
    """Write the grids and the loss curve of a GAN as PNG files and return their names."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for step, grid in gan.grids.items():
        names.append(f"gan-{name}-{step:04d}.png")
        write_png(folder / names[-1], np.ascontiguousarray(grid.repeat(3, axis=0).repeat(3, axis=1)))
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats)", title=f"GAN, {name}")
    steps = [point.step for point in gan.log]
    axes.plot(steps, [point.d_loss for point in gan.log], label="discriminator")
    axes.plot(steps, [point.g_loss for point in gan.log], label="generator")
    axes.axhline(np.log(2), color="gray", linewidth=0.8, label="equilibrium")
    axes.legend()
    names.append(f"gan-{name}-loss.png")
    figure.savefig(folder / names[-1], dpi=120)
    return names


def judge_losses(on_real: "tf.Tensor", on_fake: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
    """Return the losses, nats, of discriminator and generator by its logits for real and for made images."""
    import tensorflow as tf

    def entropy(logits: "tf.Tensor", target: float) -> "tf.Tensor":
        labels = tf.fill(tf.shape(logits), target)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))

    return (entropy(on_real, 1.0) + entropy(on_fake, 0.0)) / 2, entropy(on_fake, 1.0)


def descend(
    tape: "tf.GradientTape", loss: "tf.Tensor", network: "keras.Model", adam: "keras.optimizers.Adam"
) -> None:
    """Change the weights of a network by one step down its loss."""
    variables = network.trainable_variables
    adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def accuracy(on_real: "tf.Tensor", on_fake: "tf.Tensor") -> "tf.Tensor":
    """Return the mean share of real and of made images that the discriminator takes for what they are."""
    import tensorflow as tf

    right = [tf.reduce_mean(tf.cast(v, tf.float32)) for v in (on_real > 0, on_fake < 0)]
    return (right[0] + right[1]) / 2
