"""The float twin of an int8 file: its own weights, dequantized, with every step between them in float32.

With the run at hand the float network itself is the better reference; the twin shows what int8 arithmetic
costs for a bundle that came alone. It cannot show what rounding the weights cost.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.errors import ModelError
from device.model_card import network_input

NDFloat = NDArray[np.float32]


def twin_logits(model: bytes, x: NDArray[np.uint8]) -> NDFloat:
    """Return the (N, K) logits of the float twin of an int8 TFLite file.

    Parameters
    ----------
    model : bytes
        As `convert_int8` makes them.
    x : (N, 28, 28) ndarray of uint8
        Crops, N > 0.

    Raises
    ------
    ModelError
        If the file holds an operator that the twin does not know.
    """
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    graph, signature = file.subgraphs[0], file.signatureDefs[0]
    logits = next(out.tensorIndex for out in signature.outputs if out.name.decode() == "logits")
    parts = []
    for start in range(0, len(x), 256):
        values: dict[int, Any] = {graph.inputs[0]: network_input(x[start : start + 256])[..., None]}
        for operator in graph.operators:
            code = file.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = [
                values[i] if i in values else _constant(file, graph.tensors[i]) for i in operator.inputs
            ]
            values[operator.outputs[0]] = _run(name, inputs, operator.builtinOptions)
        parts.append(np.asarray(values[logits], np.float32))
    return np.concatenate(parts)


def _constant(file: Any, tensor: Any) -> Any:  # noqa: ANN401  generated schema classes have no types
    """Return a stored tensor as real numbers, or as it is where it has no scale (a shape)."""
    kinds = {2: np.int32, 9: np.int8}
    raw = file.buffers[tensor.buffer].data
    if raw is None or tensor.type not in kinds:
        raise ModelError(f"tensor {tensor.name!r} is no stored int8 or int32; export the bundle again")
    data = np.frombuffer(bytes(raw), kinds[tensor.type]).reshape(tensor.shape)
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None:
        return data
    scale = np.asarray(quantization.scale, np.float32)
    if len(scale) > 1:
        along = [1] * data.ndim
        along[quantization.quantizedDimension] = len(scale)
        scale = scale.reshape(along)
    return data.astype(np.float32) * scale  # weights and biases are symmetric: zero point 0


def _run(name: str, inputs: list[Any], options: Any) -> Any:  # noqa: ANN401
    import tensorflow as tf

    if name in ("SHAPE", "STRIDED_SLICE", "PACK"):
        return None  # they compute the batch size for RESHAPE, which needs none here
    if name == "CONV_2D":
        kernel = tf.transpose(inputs[1], (1, 2, 3, 0))
        sums = tf.nn.conv2d(inputs[0], kernel, strides=options.strideH, padding="SAME") + inputs[2]
        return _activate(sums, options.fusedActivationFunction)
    if name == "FULLY_CONNECTED":
        sums = tf.matmul(inputs[0], inputs[1], transpose_b=True) + inputs[2]
        return _activate(sums, options.fusedActivationFunction)
    if name == "LEAKY_RELU":
        return tf.nn.leaky_relu(inputs[0], options.alpha)
    if name == "MAX_POOL_2D":
        return tf.nn.max_pool2d(inputs[0], 2, 2, "SAME")
    if name == "MEAN":
        return tf.reduce_mean(inputs[0], inputs[1])
    if name == "RESHAPE":
        return tf.reshape(inputs[0], (len(inputs[0]), -1))
    raise ModelError(f"operator {name} is unknown to the float twin; give the run with --run")


def _activate(sums: Any, activation: int) -> Any:  # noqa: ANN401
    """Return what an operator's fused activation makes of its sums: 0 is none, 1 ReLU, 3 ReLU6."""
    import tensorflow as tf

    kinds = {0: tf.identity, 1: tf.nn.relu, 3: tf.nn.relu6}
    if activation not in kinds:
        raise ModelError(f"activation {activation} is unknown to the float twin; give the run with --run")
    return kinds[activation](sums)
