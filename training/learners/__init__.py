"""Learners that can be fitted: one file a kind, the kind is the file's name.

A kind defines `build(n_classes, step_noise) -> keras.Model`: input (N, 28, 28, 1) real from
`model_card.network_input`, two named outputs, `logits` (N, n_classes), n_classes > 1, and `features` (N, D),
the layer before. No softmax: it stays in float on the host. `step_noise`, >= 0, is the standard deviation of
the noise on activations of 0 to 6 in training. It never sets a seed: the trainer does. Listing kinds imports
none of them, and so not TensorFlow.
`features` is no network: its `build` says so, and co-training fits it by its own `fit_features`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from device.errors import ConfigError

if TYPE_CHECKING:
    import keras


def list_learners() -> list[str]:
    """Return the kinds of learners, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def open_learner(kind: str) -> Callable[[int, float], "keras.Model"]:
    """Return `build` of a kind.

    Raises
    ------
    ConfigError
        If there is no such kind; the message lists those there are. `features` raises when it is built.
    """
    if kind not in list_learners():
        raise ConfigError(f"unknown learner {kind!r}; expected one of {', '.join(list_learners())}")
    build: Callable[[int, float], keras.Model] = importlib.import_module(f"training.learners.{kind}").build
    return build
