"""Full-integer int8 TFLite from a keras network: dense layers per-tensor, operators of old versions."""

import contextlib
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device.errors import ModelError
from device.model_card import network_input

if TYPE_CHECKING:
    import keras

PER_TENSOR_DENSE = "_experimental_disable_per_channel_quantization_for_dense_layers"
"""A private switch of the converter: tflite-runtime 2.8 silently misreads per-channel dense layers."""
MAX_VERSIONS = {
    "FULLY_CONNECTED": 4,
    "CONV_2D": 3,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "LEAKY_RELU": 1,
    "RESHAPE": 1,
    "SHAPE": 1,
    "STRIDED_SLICE": 1,
    "PACK": 1,
}
"""Operators, and their newest versions, that shipped bundles use under tflite-runtime 2.13 and 2.14."""


def convert_int8(network: "keras.Model", representative: NDArray[np.uint8]) -> bytes:
    """Return the network as a full-integer int8 TFLite model with the outputs `logits` and `features`.

    Parameters
    ----------
    network : keras.Model
        With those two named outputs.
    representative : (R, 28, 28) ndarray of uint8
        Real training crops, R > 0, never generated ones alone.

    Raises
    ------
    ModelError
        If the file holds an operator that the older runtime does not know, or a dense layer per-channel.

    Notes
    -----
    A copy of the first crop with one black and one white pixel is added, so that the input's scale becomes
    1/128 with zero point 0 and each gray level stays exact. A crop of black and white halves did the same,
    but widened the ranges of every layer behind and cost a point of balanced accuracy.
    """
    import tensorflow as tf

    extreme = representative[:1].copy()
    extreme[:, 0, 0], extreme[:, 0, 1] = 0, 255
    inputs = network_input(np.concatenate([representative, extreme]))[..., None]
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    if hasattr(converter, PER_TENSOR_DENSE):  # else the check below tells
        setattr(converter, PER_TENSOR_DENSE, True)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # the converter prints the graph; int8 input needs no statistics: the representative crops state them
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        model: bytes = converter.convert()
    faults = operator_faults(model)
    if faults:
        raise ModelError(
            f"the int8 model does not fit the station: {'; '.join(faults)}; use the versions of uv.lock"
        )
    return model


def float_gap(network: "keras.Model", x: NDArray[np.uint8]) -> float:
    """Return the largest difference of a logit of (N, 28, 28) crops between keras and float TFLite.

    More than rounding says that the conversion, not int8, changed the network.
    """
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    with contextlib.redirect_stdout(io.StringIO()):  # the converter prints the graph
        model = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    inputs = network_input(x)[..., None]
    interpreter = Interpreter(model_content=model)
    run = interpreter.get_signature_runner()
    logits = run(**dict.fromkeys(run.get_input_details(), inputs))["logits"]
    return float(np.abs(logits - np.asarray(network(inputs, training=False)["logits"])).max())


def operator_faults(model: bytes) -> list[str]:
    """Return what in a TFLite file would fail, or silently answer wrongly, on a station's runtime."""
    faults = []
    for name, version, scales in _operators(model):
        limit = MAX_VERSIONS.get(name, 0)
        if limit == 0:
            faults.append(
                f"operator {name} was never run on the oldest station, expected {', '.join(MAX_VERSIONS)}"
            )
        elif version > limit:
            faults.append(f"operator {name} has version {version}, expected at most {limit}")
        if name == "FULLY_CONNECTED" and scales != 1:
            faults.append(f"a {name} has {scales} weight scales, expected 1 (per-tensor)")
    return faults


def _operators(model: bytes) -> list[tuple[str, int, int]]:
    """Return name, version and number of weight scales of each operator in a file."""
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    graph = file.subgraphs[0]
    found = []
    for operator in graph.operators:
        code = file.operatorCodes[operator.opcodeIndex]
        weights = graph.tensors[operator.inputs[1]].quantization if len(operator.inputs) > 1 else None
        scales = 0 if weights is None or weights.scale is None else len(weights.scale)
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        found.append((names.get(number, str(number)), int(code.version), scales))
    return found
