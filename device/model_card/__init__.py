"""What a model bundle says of itself: its card, its golden inputs, and the bundle that holds both.

A bundle is a folder with `model.tflite`, `card.json`, `golden.npz` and `SHA256SUMS`; `device.models` writes
and reads it. Unknown keys of a card are refused, and all its faults come at once.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device.analysis.assess import AnalysisSettings
from device.analysis.crops import (
    CROP_PX,
    FIELD_VIEWS,
    PREPROCESSING,
    TILE_PX,
    FieldView,
    view_um_per_px,
)
from device.analysis.ood import Familiar
from device.analysis.pyramid import WORKING_UM_PER_PX
from device.analysis.quality import FocusReference, limits_for
from device.errors import ModelError
from device.model_card.opinions import CHANCE, Metric, Opinion, may_speak
from device.model_card.strict import parse_record
from device.records import DEAD_CLASSES, Assay, CellClass, Method, Modality, ModelId, ScaleSource

MODEL_FILE = "model.tflite"
CARD_FILE = "card.json"
GOLDEN_FILE = "golden.npz"
SUMS_FILE = "SHA256SUMS"
BUNDLE_FILES = (MODEL_FILE, CARD_FILE, GOLDEN_FILE)
FIELD_CLASSES = ("non_toxic", "toxic")
"""Classes of a field model, in the order of its logits."""

_FAMILIAR = ("energy_max", "distance_max")
THRESHOLDS = {"cell": ("accept_min", "dead_min", *_FAMILIAR), "field": ("toxic_min", "non_toxic_max")}
"""Thresholds that a card may state: of a cell model those of `AnalysisSettings` and of `ood.Familiar`; of a
field model the p_toxic from which, and up to which, the second opinion is toxic or non-toxic."""

Scalar = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Quantization:
    """How int8 stands for real numbers: real = (q - zero_point) * scale."""

    scale: float
    """Real size of one step, > 0."""
    zero_point: int
    """The int8 value that means 0, -128 to 127."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """A dataset that the model was made from."""

    name: str
    sha256: str
    """Of its manifest."""
    origin: str
    """Where it came from: a public address or `rendered`."""
    licence: str
    n: int
    """Crops or fields taken from it for training."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The recipe file that makes this bundle again."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is, what it was made from and what it may be used for."""

    schema: Literal["card/1"]
    name: str
    """Name of the bundle, such as `phase-cell`."""
    kind: Literal["cell", "field"]
    """`cell`: the input is one crop of a cell; `field`: a whole field, the output p_toxic."""
    scope: str
    """What it is for, in one sentence."""
    assay: Assay
    """Of its images; of a field model the first kind that it was fitted on: `opinions` has them all."""
    modality: Modality
    classes: tuple[str, ...]
    """Names of the logits, in their order: `records.CellClass`, or `non_toxic`, `toxic` for a field model."""
    um_per_px: float
    """Scale of the input, micrometers a pixel, > 0."""
    um_per_px_source: ScaleSource
    """How the scale of the training images was known."""
    input_px: int
    """Side of the square input, pixels: 28, and 80 for tiles."""
    preprocessing: str
    """Identity of the way from image to uint8 input: `relative/2`, or a `crops.FieldView`."""
    input: Quantization
    """Of the real input (u8 - 128) / 128, -1 to 1."""
    logits: Quantization
    features: Quantization
    n_features: int
    """Length of the penultimate layer, > 0."""
    temperature: float
    """Divides the logits before the softmax, > 0; fitted on the int8 logits of the calibration split."""
    thresholds: Mapping[str, float]
    """Thresholds chosen on the validation split, by name (`THRESHOLDS`); 0 to 1 but for those of `ood`."""
    reference_quality: FocusReference | None
    """Focus of sharp training images, against which a field is judged; null tests no focus."""
    data: tuple[DataSource, ...]
    recipe: Recipe | None
    metrics: Mapping[str, Metric]
    parity: Mapping[str, Scalar] | None
    """Float against int8 on the validation crops; null where not measured."""
    gan_gate: Mapping[str, Scalar] | None
    """Whether generated images helped, and whether they are in; null where none were tried."""
    golden_runtime: str
    """Interpreter and version that made the golden outputs, such as `ai-edge-litert 2.3.0`."""
    limits: tuple[str, ...]
    """What it must not be used for, one sentence each."""
    attribution: tuple[str, ...] = ()
    made_with: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries that trained and converted it."""
    opinions: tuple[Opinion, ...] = ()
    """Of a field model: what it was measured on. It abstains on all else."""

    @property
    def field_view(self) -> FieldView:
        """How a field model sees a field."""
        return next(view for view in FIELD_VIEWS if view == self.preprocessing)

    def opinion(self, assay: Assay, modality: Modality) -> Opinion | None:
        """Return what a field model is worth on such images, None where nobody measured it."""
        fitting = (o for o in self.opinions if (o.assay, o.modality) == (assay, modality))
        return next(fitting, None)


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Inputs with the outputs they gave where the model was exported; checked at every start."""

    inputs: NDArray[np.uint8]
    """(G, 28, 28) crops as `device.analysis` cuts them."""
    logits: NDArray[np.int8]
    """(G, K) raw output `logits`."""
    features: NDArray[np.int8]
    """(G, D) raw output `features`."""
    means: NDArray[np.float32] | None = None
    """(C, D) of `ood.Familiar`; None where too few crops were there to learn from."""
    whitening: NDArray[np.float32] | None = None
    """(D, D) of `ood.Familiar`."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model with its card and golden inputs, read and verified as one."""

    name: str
    folder: Path
    card: Card
    model: bytes
    """The very bytes whose checksum was verified; the interpreter gets these."""
    golden: Golden
    id: ModelId
    """`sha256` is that of SHA256SUMS and so covers model, card and golden inputs."""

    @property
    def familiar(self) -> Familiar | None:
        """What the model was validated on; None for a bundle that does not say it."""
        means, whitening = self.golden.means, self.golden.whitening
        limits = [self.card.thresholds.get(key) for key in _FAMILIAR]
        if means is None or whitening is None or limits[0] is None or limits[1] is None:
            return None
        return Familiar(means, whitening, limits[0], limits[1])


def network_input(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a network sees for uint8 crops of any shape: (u8 - 128) / 128, float32, -1 to 127/128."""
    return (crops.astype(np.float32) - 128.0) / 128.0


def read_card(text: str | bytes, source: str) -> Card:
    """Return the card that the text of a card.json states; `source` is its path, for messages.

    Raises
    ------
    ModelError
        With every fault at once: unknown or missing keys, wrong types, values out of range.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{source} is no JSON: {error}; export the bundle again") from error
    card, faults = parse_record(Card, document)
    if card is not None:
        faults = _range_faults(card)
    if card is None or faults:
        raise ModelError(f"{source}: " + "; ".join(faults) + "; export the bundle again with this version")
    return card


def card_text(card: Card) -> str:
    """Return the card as the JSON text of card.json, keys in the order of `Card`."""
    return json.dumps(asdict(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def settings_from_card(card: Card, *, method: Method = "hybrid") -> AnalysisSettings:
    """Return how to read fields with a cell model: its assay, modality, thresholds and focus reference."""
    limits = limits_for(card.assay, card.modality, card.reference_quality)
    settings = AnalysisSettings(card.assay, card.modality, method, limits)
    accept_min = card.thresholds.get("accept_min", settings.accept_min)
    dead_min = card.thresholds.get("dead_min", settings.dead_min)
    return replace(settings, accept_min=accept_min, dead_min=dead_min)


def fit_faults(card: Card, *, assay: Assay | None, modality: Modality | None) -> list[str]:
    """Return why a model must not read images of this assay and modality, None where nobody says it."""
    faults = []
    if assay is not None and assay != card.assay:
        faults.append(f"model {card.name} is for assay {card.assay}; expected {assay}")
    if modality is not None and modality != card.modality:
        faults.append(f"model {card.name} is for {card.modality}; expected {modality}")
    if abs(card.um_per_px / WORKING_UM_PER_PX - 1) > 0.03:
        faults.append(f"model {card.name} sees {card.um_per_px} um/px; expected {WORKING_UM_PER_PX}")
    return faults


def _range_faults(card: Card) -> list[str]:
    sides = {"input": card.input, "logits": card.logits, "features": card.features}
    positive: dict[str, float] = {
        "um_per_px": card.um_per_px,
        "n_features": card.n_features,
        "temperature": card.temperature,
        **{f"{key}.scale": side.scale for key, side in sides.items()},
    }
    if card.reference_quality is not None:
        positive["reference_quality.focus_slope_mad"] = card.reference_quality.focus_slope_mad
    faults = [f"{key} is {value}; expected more than 0" for key, value in positive.items() if value <= 0]
    for key, side in sides.items():
        if not -128 <= side.zero_point <= 127:
            faults.append(f"{key}.zero_point is {side.zero_point}; expected -128 to 127")
    known = list(CellClass) if card.kind == "cell" else FIELD_CLASSES
    unknown = [name for name in card.classes if name not in known]
    faults += [f"class {name!r} is unknown; expected {', '.join(known)}" for name in unknown]
    for key, value in card.thresholds.items():
        if key not in THRESHOLDS[card.kind]:
            faults.append(f"threshold {key!r} is unknown; expected {', '.join(THRESHOLDS[card.kind])}")
        if key not in _FAMILIAR and not 0 <= value <= 1:
            faults.append(f"thresholds.{key} is {value}; expected 0 to 1")
    if len(card.classes) < 2 or len(set(card.classes)) < len(card.classes):
        faults.append(f"classes are {list(card.classes)}; expected 2 or more, each once")
    if card.kind == "cell" and (CellClass.LIVE not in card.classes or not DEAD_CLASSES & set(card.classes)):
        faults.append(
            f"classes are {list(card.classes)}; expected live and at least one dead class among them"
        )
    return faults + _input_faults(card)


def _input_faults(card: Card) -> list[str]:
    """Return what is wrong with the input that a card states, and with the opinions on it."""
    views = FIELD_VIEWS if card.kind == "field" else (PREPROCESSING,)
    faults = []
    if card.preprocessing not in views:
        faults.append(f"preprocessing is {card.preprocessing!r}; expected {' or '.join(map(repr, views))}")
    elif card.kind == "field" and abs(card.um_per_px / view_um_per_px(card.field_view) - 1) > 0.03:
        expected = view_um_per_px(card.field_view)
        faults.append(f"um_per_px is {card.um_per_px}; expected {expected} for {card.preprocessing}")
    side = TILE_PX if card.preprocessing == "relative/2 tiles" else CROP_PX
    if card.input_px != side:
        faults.append(f"input_px is {card.input_px}; expected {side}")
    if card.opinions and card.kind == "cell":
        faults.append("opinions are those of a field model; expected none of a cell model")
    return (
        faults
        + [
            f"it speaks on {opinion.assay} {opinion.modality} with AUC {opinion.auc.value}, low end "
            f"{opinion.auc.low}, on {opinion.auc.data}; expected more than {CHANCE} on images that are not "
            "all rendered, or abstains: true"
            for opinion in card.opinions
            if not opinion.abstains and not may_speak(opinion.auc)
        ]
        + [
            f"temperature on {o.assay} {o.modality} is {o.temperature}; expected more than 0"
            for o in card.opinions
            if o.temperature <= 0
        ]
    )
