"""A change of units in float32, in front of a file that computes with integers."""

from __future__ import annotations

import numpy as np

from keras_xaic.tflite.adding import add_constant, add_operator_code, add_tensor, new_operator
from keras_xaic.tflite.flatbuffer import BuiltinOperator, ModelT, OperatorT, TensorType, schema


def write_front(model: ModelT, number: int, center: np.ndarray, gain: np.ndarray, name: str) -> None:
    """Puts ``(x - center) * gain`` in front of an input, in place; the file takes float32 values there.

    Args:
        model: The file.
        number: Which input.
        center: Broadcastable to one sample.
        gain: As `center`.
        name: What its tensors are called after.
    """
    graph = model.subgraphs[0]
    before = graph.tensors[graph.inputs[number]]
    whole = before.type == TensorType.FLOAT32

    def tensor(what: str) -> int:
        return add_tensor(model, before.shape, TensorType.FLOAT32, f"{name}/{what}")

    def constant(values: np.ndarray, what: str) -> int:
        return add_constant(model, values, TensorType.FLOAT32, f"{name}/{what}")

    def operator(kind: str, inputs: list[int], output: int) -> OperatorT:
        code = add_operator_code(model, getattr(BuiltinOperator, kind.upper()))
        return new_operator(code, inputs, output, getattr(schema, f"{kind}OptionsT")())

    given, centered = tensor("given"), tensor("centered")
    result = int(graph.inputs[number]) if whole else tensor("scaled")
    before.name = f"{name}/front".encode()
    added = [
        operator("Sub", [given, constant(center, "center")], centered),
        operator("Mul", [centered, constant(gain, "gain")], result),
    ]
    if not whole:
        added.append(operator("Quantize", [result], int(graph.inputs[number])))
    graph.operators[:0] = added
    graph.inputs = np.array([given if place == number else int(index) for place, index in enumerate(graph.inputs)], np.int32)
