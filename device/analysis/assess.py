"""From one frame to one reading: the only implementation, of the station, of files and of every test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device.analysis.quality import QualityLimits
from device.records import Assay, CellClass, Frame, Method, Modality, ModelId, Reading

Observe = Callable[[str, NDArray[np.generic] | None], None]
"""Called after each stage with its name and its picture, or None where the stage has none."""


class CellClassifier(Protocol):
    """Says of each crop how probable each class is. Called once a field, by `assess`."""

    @property
    def id(self) -> ModelId:
        """The model behind it."""

    @property
    def classes(self) -> tuple[CellClass, ...]:
        """What its outputs mean, in order."""

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (K, len(classes)) probabilities of (K, 28, 28) crops; rows sum to 1; K may be 0."""


class FieldClassifier(Protocol):
    """Says of a whole field how probably it is toxic. Called once an accepted field."""

    @property
    def id(self) -> ModelId:
        """The model behind it."""

    def __call__(self, fields: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (K,) probabilities of (K, 28, 28) fields."""


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """How a field is read; each field one line: meaning, unit, range."""

    assay: Assay
    """`adherent` or `suspension`."""
    modality: Modality
    """`phase` or `brightfield`."""
    method: Method = "hybrid"
    """`hybrid` (candidates, cell model, regions) or `paper` (the paper's chain)."""
    limits: QualityLimits = field(default_factory=QualityLimits)
    """Of the quality gate."""
    accept_min: float = 0.5
    """A candidate is a cell when 1 - p(other) reaches it, 0 to 1."""
    dead_min: float = 0.5
    """A cell is dead when p(dead | cell) reaches it, 0 to 1."""
    merge_um: float = 5.0
    """Of accepted centers that are closer, um, the one with the best score stays, 0 to 50."""


def assess(
    frame: Frame,
    classify: CellClassifier | None,
    settings: AnalysisSettings,
    *,
    classify_field: FieldClassifier | None = None,
    observe: Observe | None = None,
) -> Reading:
    """Return what one frame gives; never raises on odd images, which give an `invalid` reading."""
    raise NotImplementedError
