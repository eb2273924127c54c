"""Integer weights among float32 activations: the file itself widens them, once, when an interpreter loads it.

A weight tensor becomes INT8 with a DEQUANTIZE behind it. XNNPACK, which older interpreters use for float32 and not for int8,
unpacks such constants ahead of the first run and then computes as with float32 weights. Dense kernels may instead be packed as
INT4, half a byte a weight: the operator unpacks them whenever it runs, and rounds its input to int8, sample by sample.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from keras_xaic.grids import QuantizedKernel, fit_scale, quantize
from keras_xaic.planning.storages import INT4_VERSIONS, Storage, can_be_packed, require_legal
from keras_xaic.tflite.adding import add_constant, add_operator_code, new_operator
from keras_xaic.tflite.flatbuffer import (
    BuiltinOperator,
    ModelT,
    OperatorT,
    QuantizationT,
    TensorType,
    builtin_code,
    require_version,
    schema,
    set_constant,
)
from keras_xaic.tflite.pairing import WeightOperator, channel_steps, to_operator_layout, weight_operators
from keras_xaic.tflite.rewrite import pair_with_grids, quantization

DEQUANTIZE_VERSION = 2
"""Version of DEQUANTIZE that takes INT8."""
PLAIN_BITS = 8
"""Bit-width of kernels without a grid, with one scale per channel."""


def write_weight_only(
    model: ModelT, kernels: Mapping[str, QuantizedKernel], floating: Collection[int] = (), packed: Collection[str] = ()
) -> None:
    """Stores the weights of the loaded float32 twin as integers: the levels of their grids, and the grids' own steps.

    TensorFlow Lite Micro computes such files wrongly without saying so.

    Args:
        model: The float32 twin; its weights must lie on the grids.
        kernels: Weight key -> grid, in network order. Other weights are rounded to `PLAIN_BITS`.
        floating: Which weight operators keep float32 weights, by their place among the weight operators.
        packed: Keys of kernels that are stored as INT4 where that is safe (see `can_be_packed`); the others are INT8.

    Raises:
        ExportError: Naming the layer, if a grid is not what the model holds or cannot be packed.
    """
    found = weight_operators(model)
    pairs, gains = pair_with_grids(found, kernels)
    front: dict[int, OperatorT] = {}
    for place, (one, key, gain) in enumerate(zip(found, pairs, gains)):
        index = int(one.operator.record.inputs[1])
        if place in floating or index in front:  # a layer that is called twice is stored once
            continue
        is_safe = can_be_packed(one.kind, one.weights.shape[::-1], "float32")
        storage: Storage = "int4" if key in packed and is_safe else "int8"
        integers, steps = _plain(one) if key is None else _planned(key, kernels[key], gain, one, storage)
        record = quantization(steps, one.channel_axis)
        if storage == "int4":
            _pack(one, integers, record)
        else:
            front[index] = _widen(model, index, integers, record)
    graph = model.subgraphs[0]
    graph.operators = [*front.values(), *graph.operators]


def _planned(
    key: str, kernel: QuantizedKernel, gain: np.ndarray, one: WeightOperator, storage: Storage
) -> tuple[np.ndarray, np.ndarray]:
    steps = (channel_steps(kernel.scale, kernel.integers.shape, one, key) * gain).astype(np.float32)
    require_legal(key, storage, one.kind, kernel.level_bits, steps.size == 1, "float32")
    integers = to_operator_layout(kernel.integers, one.kind, one.weights.shape)
    assert integers is not None  # `pair_with_grids` found that it fits
    return integers, steps


def _plain(one: WeightOperator) -> tuple[np.ndarray, np.ndarray]:
    grid = quantize(one.weights, PLAIN_BITS, fit_scale(one.weights, PLAIN_BITS, (one.channel_axis,)))
    return grid.integers, grid.scale.ravel()


def _pack(one: WeightOperator, integers: np.ndarray, record: QuantizationT) -> None:
    weights = one.operator.input(1)
    assert weights is not None  # it is a weight operator
    set_constant(one.operator.model, weights, integers, TensorType.INT4)
    weights.quantization = record
    require_version(one.operator, INT4_VERSIONS[one.operator.kind])


def _widen(model: ModelT, index: int, integers: np.ndarray, record: QuantizationT) -> OperatorT:
    """Stores integers in a tensor of their own; returns the operator that makes tensor `index`, until now constant, of it."""
    graph = model.subgraphs[0]
    narrow = add_constant(model, integers, TensorType.INT8)
    graph.tensors[narrow].quantization = record
    graph.tensors[index].buffer, graph.tensors[index].quantization = 0, None
    return new_operator(_operator_code(model), [narrow], index, schema.DequantizeOptionsT())


def _operator_code(model: ModelT) -> int:
    """Returns the index of DEQUANTIZE among the operator codes; adds it where it is missing."""
    for index, code in enumerate(model.operatorCodes):
        if builtin_code(code) == BuiltinOperator.DEQUANTIZE:
            code.version = max(code.version, DEQUANTIZE_VERSION)
            return index
    return add_operator_code(model, BuiltinOperator.DEQUANTIZE, DEQUANTIZE_VERSION)
