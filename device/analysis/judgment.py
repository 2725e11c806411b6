"""What a model says of crops and fields, and whether it may be asked and keeps its word."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device.records import CellClass, Method, ModelId


@dataclass(frozen=True, slots=True, eq=False)
class Judgment:
    """What a cell model says of K crops."""

    probabilities: NDArray[np.float32]
    """(K, C) of each of its classes; rows sum to 1."""
    odd: NDArray[np.bool_] | None = None
    """(K,) whether a crop is like nothing that the model was validated on; None where it cannot tell."""


class CellClassifier(Protocol):
    """Says of each crop how probable each class is. Called once a field, by `assess`."""

    @property
    def id(self) -> ModelId:
        """The model behind it."""

    @property
    def classes(self) -> tuple[CellClass, ...]:
        """What its outputs mean, in order."""

    def __call__(self, crops: NDArray[np.uint8]) -> Judgment:
        """Return what (K, 28, 28) crops are; K may be 0."""


class FieldClassifier(Protocol):
    """Says of a whole field how probably it is toxic. Called once an accepted field, by `assess`."""

    @property
    def id(self) -> ModelId:
        """The model behind it."""

    def __call__(self, relative: NDArray[np.uint8]) -> float | None:
        """Return the probability that the field is toxic from its (H, W) relative gray at working scale.

        None for a field that is too small to have an opinion on.
        """


def judge_crops(classify: CellClassifier, crops: NDArray[np.uint8]) -> Judgment:
    """Return what a model says of (K, 28, 28) crops; ValueError if it does not keep its word on shapes."""
    expected = (len(crops), len(classify.classes))
    if len(crops) == 0:
        return Judgment(np.zeros(expected, np.float32))
    judgment = classify(crops)
    found, odd = judgment.probabilities, judgment.odd
    if found.shape != expected or not np.isfinite(found).all():
        raise ValueError(f"{classify.id.name} gave shape {found.shape}; expected finite {expected}")
    if odd is not None and odd.shape != expected[:1]:
        raise ValueError(f"{classify.id.name} gave odd of shape {odd.shape}; expected {expected[:1]}")
    return judgment


def check_model(classify: CellClassifier | None, method: Method) -> None:
    """Raise ValueError if a method cannot count by this model, or without one."""
    if method == "paper" and classify is None:
        return
    if classify is None:
        raise ValueError("method hybrid has no cell model; expected one, or choose method paper")
    classes = ", ".join(classify.classes)
    if method == "hybrid" and CellClass.OTHER not in classify.classes:
        raise ValueError(
            f"{classify.id.name} knows {classes}; method hybrid expected a model with the class other, "
            "choose one or method paper"
        )
    if CellClass.LIVE not in classify.classes:
        raise ValueError(f"{classify.id.name} knows {classes}; expected the class live among them")
