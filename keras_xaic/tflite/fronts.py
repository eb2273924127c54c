"""A change of units in float32, in front of a file that computes with integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_xaic.tflite.flatbuffer import BuiltinOperator, ModelT, TensorType, schema, set_constant


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
    given = _add_tensor(model, before.shape, f"{name}/given")
    centered = _add_tensor(model, before.shape, f"{name}/centered")
    result = int(graph.inputs[number]) if whole else _add_tensor(model, before.shape, f"{name}/scaled")
    before.name = f"{name}/front".encode()
    added = [
        _operator(model, "SUB", [given, _add_constant(model, center, f"{name}/center")], centered),
        _operator(model, "MUL", [centered, _add_constant(model, gain, f"{name}/gain")], result),
    ]
    if not whole:
        added.append(_operator(model, "QUANTIZE", [result], int(graph.inputs[number])))
    graph.operators[:0] = added
    graph.inputs = np.array([given if place == number else int(index) for place, index in enumerate(graph.inputs)], np.int32)


def _add_tensor(model: ModelT, shape: Any, name: str) -> int:
    tensor = schema.TensorT()
    tensor.shape = np.array(shape, np.int32)
    tensor.type, tensor.name, tensor.buffer = TensorType.FLOAT32, name.encode(), len(model.buffers)
    model.buffers.append(schema.BufferT())
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _add_constant(model: ModelT, values: np.ndarray, name: str) -> int:
    index = _add_tensor(model, values.shape, name)
    set_constant(model, model.subgraphs[0].tensors[index], values, TensorType.FLOAT32)
    return index


def _operator(model: ModelT, kind: str, inputs: list[int], output: int) -> Any:
    code, record = schema.OperatorCodeT(), schema.OperatorT()
    number = getattr(BuiltinOperator, kind)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    record.opcodeIndex = len(model.operatorCodes)
    model.operatorCodes.append(code)
    record.inputs, record.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    options = {"SUB": "SubOptions", "MUL": "MulOptions", "QUANTIZE": "QuantizeOptions"}[kind]
    record.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    record.builtinOptions = getattr(schema, f"{options}T")()
    return record
