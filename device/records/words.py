"""The words of the house: outcomes, reason codes, classes of cells, and who may say what."""

from enum import StrEnum
from typing import Literal, Never, Self, TypeAlias, final

Assay = Literal["adherent", "suspension"]
Modality = Literal["phase", "brightfield"]
Method = Literal["hybrid", "paper"]
ScaleSource = Literal["measured", "published", "assumed"]
Role = Literal["blank", "negative", "positive", "test"]
Stage = Literal["provisional", "final"]
Policy = Literal["any", "median", "pooled"]
"""How the wells of a sample decide together: the worst, the middle one, or their pooled cells."""
Label = Literal["live", "dead"]


class Outcome(StrEnum):
    """What a verdict states. The default of every error path is INVALID."""

    TOXIC = "toxic"
    NON_TOXIC = "non_toxic"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


@final
class NonToxic:
    """The outcome `non_toxic` as a type: no call of it passes the type checker.

    `device.analysis.verdict` makes the only one, and says so to the checker. Whoever else wants to state
    `non_toxic` must take one that was made there. At run time it is `Outcome.NON_TOXIC` itself.
    """

    __slots__ = ()

    def __new__(cls, _proof: Never) -> Self:
        """Return `Outcome.NON_TOXIC`."""
        return Outcome.NON_TOXIC  # type: ignore[return-value]  # one value under two types is the point


Stated: TypeAlias = Literal[Outcome.TOXIC, Outcome.INCONCLUSIVE, Outcome.INVALID] | NonToxic
"""What a verdict may state."""


class Reason(StrEnum):
    """Stable codes that say why an outcome is what it is, or what a reader must know about it."""

    INTERVAL_STRADDLES_LIMIT = "INTERVAL_STRADDLES_LIMIT"
    TOO_FEW_FIELDS = "TOO_FEW_FIELDS"
    TOO_FEW_CELLS = "TOO_FEW_CELLS"
    TOO_FEW_REPLICATES = "TOO_FEW_REPLICATES"
    NO_CONTROL_REFERENCE = "NO_CONTROL_REFERENCE"
    NEG_CONTROL_FAILED = "NEG_CONTROL_FAILED"
    POS_CONTROL_FAILED = "POS_CONTROL_FAILED"
    HIGH_BACKGROUND = "HIGH_BACKGROUND"
    LAYER_DESTROYED = "LAYER_DESTROYED"
    GROWTH_INHIBITION = "GROWTH_INHIBITION"
    EXTENSIVE_LYSIS = "EXTENSIVE_LYSIS"
    QUAL_QUANT_DISCORDANT = "QUAL_QUANT_DISCORDANT"
    METHOD_DISAGREE = "METHOD_DISAGREE"
    BLUR = "BLUR"
    OVEREXPOSED = "OVEREXPOSED"
    UNDEREXPOSED = "UNDEREXPOSED"
    EXPOSURE = "EXPOSURE"
    FLAT_IMAGE = "FLAT_IMAGE"
    UNEVEN_LIGHT = "UNEVEN_LIGHT"
    TINT = "TINT"
    NOISY = "NOISY"
    MOTION = "MOTION"
    DUPLICATE_FIELD = "DUPLICATE_FIELD"
    FOREIGN_MATTER = "FOREIGN_MATTER"
    OOD_CELLS = "OOD_CELLS"
    DRIFT = "DRIFT"
    NO_CALIBRATION = "NO_CALIBRATION"
    SCALE_OUT_OF_RANGE = "SCALE_OUT_OF_RANGE"
    SCALE_ASSUMED = "SCALE_ASSUMED"
    CAMERA_LOST = "CAMERA_LOST"
    FROZEN_FRAME = "FROZEN_FRAME"
    MODEL_UNVERIFIED = "MODEL_UNVERIFIED"
    METHOD_UNVERIFIED = "METHOD_UNVERIFIED"
    UNREADABLE_IMAGE = "UNREADABLE_IMAGE"
    ANALYSIS_FAILED = "ANALYSIS_FAILED"


class CellClass(StrEnum):
    """What the cell model says of one crop: live, dead, other in chambers, the finer four in layers."""

    LIVE = "live"
    DEAD = "dead"
    ROUNDED = "rounded"
    LYSED = "lysed"
    OTHER = "other"


DEAD_CLASSES = frozenset({CellClass.DEAD, CellClass.ROUNDED, CellClass.LYSED})
"""Classes that count as dead: n_dead = dead + rounded + lysed (a mitotic cell counts as rounded)."""
