"""Runs int8 TFLite models: one import shim for both runtimes, and the only call of an interpreter.

A model is opened from bytes whose checksum `device.models` has compared, and must first give its golden
outputs: an unfit runtime loads some files and answers wrongly without an error.
"""

import platform
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from device.analysis.crops import view_field
from device.analysis.judgment import CellClassifier, FieldClassifier, Judgment
from device.analysis.ood import find_odd
from device.errors import ModelError
from device.model_card import Bundle, Quantization, network_input
from device.model_card.opinions import Opinion
from device.records import Assay, CellClass, Modality

try:
    from ai_edge_litert.interpreter import Interpreter

    _DISTRIBUTION = "ai-edge-litert"
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter

        _DISTRIBUTION = "tflite-runtime"
    except ImportError as error:
        raise ModelError(
            "no TFLite runtime is installed; expected ai-edge-litert or tflite-runtime; install nanotox with "
            "the extra `litert`, or with `tflite` on 32-bit systems and Python 3.11"
        ) from error

MAX_BATCH = 256
"""Crops in one run of the interpreter; bounds its memory."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far probabilities of golden inputs are off, 0 to 1: largest and mean over inputs and classes."""

    largest: float
    mean: float

    def within(self, limit: "Shift") -> bool:
        """Whether neither figure exceeds the limit's."""
        return self.largest <= limit.largest and self.mean <= limit.mean

    def __str__(self) -> str:
        return f"{self.largest:.4f} (mean {self.mean:.4f})"


SAME_RUNTIME = Shift(0.05, 0.005)
"""Limit on the runtime and processor that made the golden outputs, where they were always equal."""
OTHER_RUNTIME = Shift(0.125, 0.01)
"""Limit elsewhere, where kernels round differently: tflite-runtime 2.14 against ai-edge-litert 2.3 on x86 was
off by 0.09 at a near tie, 0.003 on average; an unfit runtime (2.8, dense layers per channel) by 0.49. In
probabilities, because a step of the logits means more or less with their scale."""


def runtime_name() -> str:
    """Return interpreter, version and processor, such as `ai-edge-litert 2.3.0 x86_64`."""
    return f"{_DISTRIBUTION} {version(_DISTRIBUTION)} {platform.machine()}"


class Int8Network:
    """A loaded int8 model with the outputs `logits` and `features`. Not for use from two threads at once.

    Raises
    ------
    ModelError
        If the interpreter refuses the model, or its input or outputs are not what every bundle has.
    """

    def __init__(self, model: bytes, *, num_threads: int = 1) -> None:
        try:
            self._interpreter = Interpreter(model_content=model, num_threads=num_threads)
            self._interpreter.allocate_tensors()
            # the runner refers to the interpreter's memory and would forbid to resize it: read, then let go
            runner = self._interpreter.get_signature_runner()
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
            del runner
            entry = next(iter(inputs.values()))
        except (ValueError, RuntimeError, StopIteration, MemoryError) as error:
            # tflite-runtime does not check a model first: a length out of a damaged one is taken for memory
            why = (str(error) or "it has no input").splitlines()[0]
            raise ModelError(
                f"{runtime_name()} cannot load the model ({why}); "
                "expected a full-integer int8 TFLite model with one signature; export the bundle again"
            ) from error
        found = (len(inputs), entry["dtype"], tuple(entry["shape"]), sorted(outputs))
        self.input_px = int(found[2][-2]) if len(found[2]) == 4 else 0
        """Side of its square input, pixels."""
        if found != (1, np.int8, (1, self.input_px, self.input_px, 1), ["features", "logits"]):
            raise ModelError(
                f"the model has {found[0]} input(s) {np.dtype(found[1])} of shape {found[2]} and outputs "
                f"{', '.join(found[3])}; expected one int8 of shape (1, S, S, 1) and features, logits; "
                "export the bundle again"
            )
        self._entry = int(entry["index"])
        self._exits = {name: int(details["index"]) for name, details in outputs.items()}
        self._batch = 1
        self.input, self.logits, self.features = map(
            _quantization, (entry, outputs["logits"], outputs["features"])
        )
        real = network_input(np.arange(256, dtype=np.uint8)) / self.input.scale + self.input.zero_point
        self._int8_of_gray = np.clip(np.rint(real), -128, 127).astype(np.int8)

    def run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Return the raw outputs `logits` (K, C) and `features` (K, D) for crops (K, S, S); K may be 0.

        Raises
        ------
        ValueError
            If `crops` has another shape or type.
        """
        side = self.input_px
        if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1:] != (side, side):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}; expected uint8 (K, {side}, {side})")
        if len(crops) == 0:
            return self._output("logits")[:0], self._output("features")[:0]
        parts = [self._run_batch(crops[i : i + MAX_BATCH]) for i in range(0, len(crops), MAX_BATCH)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _run_batch(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        if len(crops) != self._batch:
            self._interpreter.resize_tensor_input(self._entry, (*crops.shape, 1))
            self._interpreter.allocate_tensors()
            self._batch = len(crops)
        self._interpreter.set_tensor(self._entry, self._int8_of_gray[crops][..., None])
        self._interpreter.invoke()
        return self._output("logits"), self._output("features")

    def _output(self, name: str) -> NDArray[np.int8]:
        output: NDArray[np.int8] = self._interpreter.get_tensor(self._exits[name])
        return output


class _Classifier:
    """Probabilities of a bundle's classes, by temperature and softmax in float32."""

    def __init__(self, bundle: Bundle, kind: str, num_threads: int) -> None:
        if bundle.card.kind != kind:
            raise ModelError(
                f"{bundle.name} is a {bundle.card.kind} model; expected a {kind} model; "
                "see `nanotox model list`"
            )
        self.id = bundle.id
        self._card, self._familiar = bundle.card, bundle.familiar
        self._network = open_network(bundle, num_threads=num_threads)

    def _judge(self, crops: NDArray[np.uint8]) -> Judgment:
        logits, features = self._network.run(crops)
        real, temperature = dequantize(logits, self._network.logits), self._card.temperature
        odd = None
        if self._familiar is not None:
            real_features = dequantize(features, self._network.features)
            odd = find_odd(real, real_features, temperature, self._familiar)
        return Judgment(softmax(real, temperature), odd)


class _Cells(_Classifier):
    @property
    def classes(self) -> tuple[CellClass, ...]:
        return tuple(CellClass(name) for name in self._card.classes)

    def __call__(self, crops: NDArray[np.uint8]) -> Judgment:
        return self._judge(crops)


class _Fields(_Classifier):
    def __init__(self, bundle: Bundle, opinion: Opinion | None, num_threads: int) -> None:
        super().__init__(bundle, "field", num_threads)
        self._temperature, self._offset = bundle.card.temperature, 0.0
        if opinion is not None:
            self._temperature, self._offset = opinion.temperature, opinion.offset

    def __call__(self, relative: NDArray[np.uint8]) -> float | None:
        inputs = view_field(relative, self._card.field_view)
        if len(inputs) == 0:
            return None
        # of a network that pools before its logits, the mean over tiles is what the whole field gives
        mean = dequantize(self._network.run(inputs)[0], self._network.logits).mean(axis=0)
        toxic = self._card.classes.index("toxic")
        against = np.array([[self._offset, mean[toxic] - mean[1 - toxic]]], np.float32)
        return float(softmax(against, self._temperature)[0, 1])


def open_cell_classifier(bundle: Bundle, *, num_threads: int = 1) -> CellClassifier:
    """Return the classifier of cell crops that a bundle holds, after its golden inputs were checked.

    Raises
    ------
    ModelError
        If the bundle is a field model, does not load here or does not give its golden outputs here.
    """
    return _Cells(bundle, "cell", num_threads)


def open_field_classifier(
    bundle: Bundle, opinion: Opinion | None = None, *, num_threads: int = 1
) -> FieldClassifier:
    """Return the classifier of whole fields that a bundle holds, calibrated as an opinion of its card says.

    It has an opinion on every field: whether it may speak is for `second_opinion` to say. Otherwise as
    `open_cell_classifier`.
    """
    return _Fields(bundle, opinion, num_threads)


def second_opinion(
    bundle: Bundle | None, assay: Assay, modality: Modality, *, num_threads: int = 1
) -> FieldClassifier | None:
    """Return the field model that speaks on images of this kind, None where there is none or it abstains.

    Raises
    ------
    ModelError
        As `open_field_classifier`.
    """
    opinion = None if bundle is None else bundle.card.opinion(assay, modality)
    if bundle is None or opinion is None or opinion.abstains:
        return None
    return open_field_classifier(bundle, opinion, num_threads=num_threads)


def open_network(bundle: Bundle, *, num_threads: int = 1) -> Int8Network:
    """Return the loaded model of a bundle, compared with its card and its golden outputs.

    Raises
    ------
    ModelError
        If it does not load here, is not what the card says, or answers otherwise than where it was made.
    """
    network = Int8Network(bundle.model, num_threads=num_threads)
    card, where = bundle.card, f"model {bundle.name} ({bundle.folder})"
    if network.input_px != card.input_px:
        raise ModelError(
            f"{where} sees {network.input_px} px; expected {card.input_px} by its card; export it again"
        )
    for side in ("input", "logits", "features"):
        stated, found = getattr(card, side), getattr(network, side)
        if not np.allclose([stated.scale, stated.zero_point], [found.scale, found.zero_point], rtol=1e-5):
            raise ModelError(f"{where}: {side} has {found}; expected {stated} by its card; export it again")
    shift, limit = golden_shift(bundle, network), golden_limit(bundle)
    if not shift.within(limit):
        raise ModelError(
            f"{where} gives golden probabilities off by {shift} under {runtime_name()}; expected at most "
            f"{limit}, it was made under {card.golden_runtime}; use the runtime of uv.lock or export it again"
        )
    return network


def golden_shift(bundle: Bundle, network: Int8Network) -> Shift:
    """Return how far the probabilities of the golden inputs are here from those of the stored outputs."""
    try:
        logits, features = network.run(bundle.golden.inputs)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"model {bundle.name} loads and cannot run ({error}); export it again") from error
    golden, card = bundle.golden, bundle.card
    if (logits.shape, features.shape) != (golden.logits.shape, golden.features.shape):
        raise ModelError(
            f"model {bundle.name} gives logits {logits.shape} and features {features.shape}; expected "
            f"{golden.logits.shape} and {golden.features.shape} by its golden outputs; export it again"
        )
    here, there = (
        softmax(dequantize(values, card.logits), card.temperature) for values in (logits, golden.logits)
    )
    off = np.abs(here - there)
    return Shift(float(off.max()), float(off.mean()))


def golden_limit(bundle: Bundle) -> Shift:
    """Return how far golden probabilities may be off here: less on the runtime that made them."""
    made, here = bundle.card.golden_runtime.split(), runtime_name().split()
    return SAME_RUNTIME if made[::2] == here[::2] else OTHER_RUNTIME


def dequantize(values: NDArray[np.int8], quantization: Quantization) -> NDArray[np.float32]:
    """Return the real numbers that int8 values stand for, float32 of the same shape."""
    return (values.astype(np.float32) - quantization.zero_point) * np.float32(quantization.scale)


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities of (K, C) real logits divided by a temperature; rows sum to 1."""
    scaled = logits / np.float32(temperature)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _quantization(details: dict[str, tuple[float, int]]) -> Quantization:
    scale, zero_point = details["quantization"]
    return Quantization(scale=float(scale), zero_point=int(zero_point))
