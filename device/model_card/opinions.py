"""What a field model was measured to be worth, and where that lets it speak."""

from dataclasses import dataclass

from device.records import Assay, Modality

CHANCE = 0.5
"""AUC of a model that knows nothing."""
RENDERED_ONLY = "synthetic"
"""What `Metric.data` begins with where nothing in the images is real."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured figure with its 95 % interval and the images it was measured on."""

    value: float
    low: float | None
    """Lower end of the 95 % interval; null where none was made."""
    high: float | None
    n: int
    """Crops, cells or fields behind it."""
    data: str
    """Which images: synthetic, semi-synthetic or real, set and split."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a field model is worth on one kind of images."""

    assay: Assay
    modality: Modality
    auc: Metric
    """Of toxic against non-toxic fields, its interval over groups."""
    abstains: bool
    """Whether the station does not ask it: true unless `may_speak` of its AUC."""
    temperature: float
    """Divides the logit of toxic against non-toxic less `offset`, > 0; fitted on validation fields."""
    offset: float
    """Logit that means p_toxic 0.5 there."""


def opinion_on(
    assay: Assay, modality: Modality, auc: Metric, temperature: float, offset: float = 0.0
) -> Opinion:
    """Return what an AUC makes of a field model: it abstains unless that lets it speak."""
    return Opinion(assay, modality, auc, not may_speak(auc), temperature, offset)


def may_speak(auc: Metric) -> bool:
    """Return whether a field model has shown on images with something real in them that it beats chance.

    One that told rendered fields apart, with an AUC of 0.94, called 19 of 24 healthy real ones toxic.
    """
    return (auc.low or 0.0) > CHANCE and not auc.data.startswith(RENDERED_ONLY)
