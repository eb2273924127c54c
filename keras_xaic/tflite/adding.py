"""What edits add to a file: tensors, constants, kinds of operators and operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_xaic.tflite.flatbuffer import ModelT, OperatorT, schema, set_constant


def add_tensor(model: ModelT, shape: Sequence[int], kind: int, name: str = "") -> int:
    """Adds a tensor with an empty buffer of its own to the first graph; returns its number.

    Args:
        model: The file.
        shape: Of the tensor.
        kind: One of `TensorType`.
        name: Of the tensor; empty for none.
    """
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), kind, len(model.buffers)
    tensor.name = name.encode() or None
    model.buffers.append(schema.BufferT())
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def add_constant(model: ModelT, values: Any, kind: int, name: str = "") -> int:
    """Adds a tensor that holds `values` (see `add_tensor`)."""
    values = np.asarray(values)
    index = add_tensor(model, values.shape, kind, name)
    set_constant(model, model.subgraphs[0].tensors[index], values, kind)
    return index


def add_operator_code(model: ModelT, number: int, version: int = 1, custom: str = "") -> int:
    """Adds a kind of operator, of `BuiltinOperator`, a custom one with its name; returns its place."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
    code.customCode = custom.encode() or None
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def new_operator(code: int, inputs: Sequence[int], output: int, options: object = None) -> OperatorT:
    """Returns an operator; it is still to be put among those of its graph.

    Args:
        code: Place of its kind.
        inputs: Numbers of the tensors that it reads.
        output: Number of the tensor that it writes.
        options: Its options, an object of the schema; None for none.
    """
    record: OperatorT = schema.OperatorT()
    record.opcodeIndex = code
    record.inputs, record.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    if options is not None:
        record.builtinOptions = options
        record.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
    return record
