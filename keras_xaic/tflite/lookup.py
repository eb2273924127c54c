"""Weights of few values, several to a byte: the file looks them up itself as it runs, with operators that interpreters have.

INT4 is the narrowest type that interpreters take weights in, and half of it is empty where a kernel has three values. Here a
byte stands for a group of neighbouring weights, a digit each: CAST makes indices of the bytes, GATHER takes the groups from a
table of all that there are, RESHAPE gives them the kernel's shape. Four ternary weights fit a byte: 2 bits a weight.

The weights are in RAM while the operator runs, a byte each, and their indices, 4 bytes a group. The operator computes what it
would with constants, on the processor; delegates want constant weights and leave it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from keras_xaic.planning.storages import weights_per_byte
from keras_xaic.tflite.adding import add_constant, add_operator_code, add_tensor, new_operator
from keras_xaic.tflite.flatbuffer import (
    BuiltinOperator,
    ModelT,
    OperatorT,
    TensorType,
    builtin_code,
    copied,
    load,
    pack,
    schema,
)
from keras_xaic.tflite.pairing import WeightOperator, weight_operators
from keras_xaic.tflite.rewrite import own_input
from keras_xaic.tflite.slim import make_slim

GATHER_VERSION = 2
"""The operator version that takes int8."""


def look_up(content: bytes) -> bytes:
    """Returns a file that computes the same bits, with INT4 kernels of few values looked up where that makes it smaller.

    Args:
        content: A slim .tflite file.
    """
    return pack(with_lookup(load(content)))


def with_lookup(model: ModelT) -> ModelT:
    """Does what `look_up` does to a loaded file; where nothing gets smaller, that is the result."""
    kernels: dict[int, tuple[int, list[int]]] = {}
    for place, one in enumerate(weight_operators(model)):  # a layer that is called twice is stored once
        if _group(one) is not None:
            kernels.setdefault(int(one.weight_tensor.buffer), (one.weights.size, []))[1].append(place)
    best, size = model, len(pack(model)) if kernels else 0
    for _, places in sorted(kernels.values(), reverse=True):  # the table has to pay for itself, too
        tried = _with_lookup(copied(best), places)
        smaller = len(pack(tried))
        if smaller < size:
            best, size = tried, smaller
    return best


def _group(one: WeightOperator) -> Optional[int]:
    """Returns how many of an operator's weights a byte would hold, None where that is no better than INT4."""
    data = one.operator.input(one.data_position)
    if one.weight_tensor.type != TensorType.INT4 or one.codes is not None or data is None or data.type != TensorType.INT8:
        return None
    return weights_per_byte(one.weights.size, largest=int(np.abs(one.weights).max()))


def _with_lookup(model: ModelT, places: Sequence[int]) -> ModelT:
    found = weight_operators(model)
    for place in places:
        _write_lookup(model, found[place])
    make_slim(model, signature=True)
    return model


def _write_lookup(model: ModelT, one: WeightOperator) -> None:
    group, largest = _group(one), int(np.abs(one.weights).max())
    assert group is not None
    levels = 2 * largest + 1
    table = np.stack(np.unravel_index(np.arange(levels**group), (levels,) * group), axis=-1) - largest
    digits = one.weights.reshape(-1, group).astype(np.int64) + largest
    codes = digits @ levels ** np.arange(group - 1, -1, -1)

    weights = own_input(one.operator, 1)
    indices = add_tensor(model, (len(codes),), TensorType.INT32)
    groups = add_tensor(model, (len(codes), group), TensorType.INT8)
    cast, gather = schema.CastOptionsT(), schema.GatherOptionsT()
    cast.inDataType, cast.outDataType = TensorType.INT8, TensorType.INT32
    kernel = int(one.operator.record.inputs[1])
    steps = [
        _operator(model, BuiltinOperator.CAST, [add_constant(model, codes, TensorType.INT8)], indices, cast),
        _operator(model, BuiltinOperator.GATHER, [add_constant(model, table, TensorType.INT8), indices], groups, gather),
        _operator(model, BuiltinOperator.RESHAPE, [groups, add_constant(model, weights.shape, TensorType.INT32)], kernel),
    ]
    weights.type, weights.buffer = TensorType.INT8, 0
    records = model.subgraphs[0].operators
    before = next(number for number, record in enumerate(records) if record is one.operator.record)
    records[before:before] = steps  # what is looked up takes RAM until its operator has run


def _operator(model: ModelT, kind: int, inputs: list[int], output: int, options: object = None) -> OperatorT:
    version = GATHER_VERSION if kind == BuiltinOperator.GATHER else 1
    fitting = [
        place for place, code in enumerate(model.operatorCodes) if builtin_code(code) == kind and code.version >= version
    ]
    if not fitting:
        fitting = [add_operator_code(model, kind, version)]
    return new_operator(fitting[0], inputs, output, options)
