"""Writing planned integers into a .tflite file: exact grids, packed storage, and the biases that follow from them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.planning.storages import INT4_VERSIONS, Activations, Storage, require_legal
from keras_xaic.tflite.flatbuffer import ModelT, Operator, QuantizationT, TensorT, TensorType, require_version, set_constant
from keras_xaic.tflite.pairing import (
    WeightOperator,
    channel_steps,
    fused_gain,
    pair_by_value,
    to_operator_layout,
    weight_operators,
)

BIAS_LIMIT = 2**30
"""Largest bias integer that is written: the sum of products is added to it in 32 bits."""
GRID_TOLERANCE = 1e-3
"""Largest distance of a weight of the model from its grid, in steps."""
_ACTIVATIONS: dict[int, Activations] = {
    TensorType.INT8: "int8",
    TensorType.INT16: "int16",
    TensorType.FLOAT32: "float32",
}


def write_grids(
    model: ModelT,
    floating: Sequence[WeightOperator],
    kernels: Mapping[str, QuantizedKernel],
    storages: Mapping[str, Storage],
) -> None:
    """Gives the loaded int8 twin every planned kernel's integers and steps exactly as planned.

    A kernel goes in as packed ``int4``, or as ``int8`` with levels ``k * 2^(8-b)`` and steps ``s / 2^(8-b)``; the levels of a
    codebook are int8 as they are. Its operator's bias becomes ``round(bias / (s_in * s))`` from the float bias (Jacob et al.
    2018, arXiv 1712.05877, eq. 11). Operators without a planned kernel stay as the converter wrote them.

    Args:
        model: The int8 or int16 twin.
        floating: The weight operators of the float32 twin; their weights must lie on the grids.
        kernels: Weight key -> grid, in network order.
        storages: Weight key -> ``int4`` or ``int8``.

    Raises:
        ExportError: Naming the layer, if a grid is not what the model holds or a storage would not be exact.
    """
    quantized = weight_operators(model)
    _require_twins(quantized, floating)
    pairs, gains = pair_with_grids(floating, kernels)
    for key, gain, weight_operator, source in zip(pairs, gains, quantized, floating):
        if key is None:
            continue
        if key not in storages:
            raise ExportError(f"layer {key!r} has a grid and no storage", "int4 or int8 for every grid")
        _write(key, kernels[key], gain, storages[key], weight_operator, source.bias)


def pair_with_grids(
    floating: Sequence[WeightOperator], kernels: Mapping[str, QuantizedKernel]
) -> tuple[list[Optional[str]], list[np.ndarray]]:
    """Returns the key of the grid that each operator of the float32 twin lies on, None for operators without a grid.

    Returns:
        The keys; and for each operator the factor per channel by which the converter multiplied the grid, usually 1.

    Raises:
        ExportError: If a grid is not found.
    """
    values = {key: kernel.values for key, kernel in kernels.items()}
    tolerances = {key: GRID_TOLERANCE * kernel.scale for key, kernel in kernels.items()}
    pairs = pair_by_value(floating, [one.weights for one in floating], values, tolerances)
    gains = [np.ones(1) for _ in pairs]
    for key in (key for key in kernels if key not in pairs):
        for number, found in enumerate(floating):
            gain = fused_gain(found, values[key], tolerances[key]) if pairs[number] is None else None
            if gain is not None:
                pairs[number], gains[number] = key, gain
                break
    missing = [key for key in kernels if key not in pairs]
    if missing:
        raise ExportError(
            f"layer {missing[0]!r}: no operator of the converted model holds its grid",
            f"weights within {GRID_TOLERANCE} steps of the grid, in a model whose BatchNorm is folded",
            "Set the kernel to its grid's values before export",
        )
    return pairs, gains


def _require_twins(quantized: Sequence[WeightOperator], floating: Sequence[WeightOperator]) -> None:
    shapes = [[(one.operator.kind, one.weights.shape) for one in side] for side in (quantized, floating)]
    if shapes[0] != shapes[1]:
        raise ExportError("the int8 and the float32 file do not hold the same weight operators", "two conversions of one model")


def _write(
    key: str,
    kernel: QuantizedKernel,
    gain: np.ndarray,
    storage: Storage,
    target: WeightOperator,
    bias: Optional[np.ndarray],
) -> None:
    steps = (channel_steps(kernel.scale, kernel.integers.shape, target, key) * gain).astype(np.float32)
    activation = target.operator.input(target.data_position)
    assert activation is not None
    require_legal(key, storage, target.kind, kernel.level_bits, steps.size == 1, _ACTIVATIONS.get(activation.type))
    integers = to_operator_layout(kernel.integers, target.kind, target.weights.shape)
    assert integers is not None  # `pair_by_value` found that it fits
    widening = 1 if storage == "int4" else 2 ** (8 - kernel.level_bits)
    steps = steps / np.float32(widening)
    input_step = float(activation.quantization.scale[0])
    if bias is not None:
        steps = _room_for_bias(key, steps, bias, input_step, dead=_dead_channels(integers, target))
    weights = own_input(target.operator, 1)
    set_constant(target.operator.model, weights, integers * np.int8(widening), _type_of(storage))
    weights.quantization = quantization(steps, axis=target.channel_axis)
    if storage == "int4":
        require_version(target.operator, INT4_VERSIONS[target.operator.kind])
    if target.operator.input(target.bias_position) is not None:
        write_bias(target, np.zeros(1) if bias is None else bias, steps, input_step)
    elif bias is not None and np.any(bias):
        raise ExportError(f"layer {key!r}: the converter dropped its bias in int8")


def _type_of(storage: Storage) -> int:
    return int(TensorType.INT4 if storage == "int4" else TensorType.INT8)


def _dead_channels(integers: np.ndarray, target: WeightOperator) -> np.ndarray:
    rows = np.moveaxis(integers, target.channel_axis, 0).reshape(integers.shape[target.channel_axis], -1)
    return np.asarray(~rows.any(axis=1))


def _room_for_bias(key: str, steps: np.ndarray, bias: np.ndarray, input_step: float, dead: np.ndarray) -> np.ndarray:
    """Widens the steps of all-zero channels, where any step is exact, until the bias fits; refuses where others do not fit."""
    needed = np.abs(np.broadcast_to(np.asarray(bias, np.float64), dead.shape)) / (input_step * BIAS_LIMIT)
    if steps.size == 1:
        if dead.all():
            return np.maximum(steps, np.float32(needed.max() * 2))
        too_small = needed > steps
    else:
        steps = np.where(dead, np.maximum(steps, (needed * 2).astype(np.float32)), steps)
        too_small = needed > steps
    if np.any(too_small):
        channel = int(np.argmax(too_small))
        raise ExportError(
            f"layer {key!r}: the bias {bias.flat[channel % bias.size]:.3g} of channel {channel} does not fit 32 bits",
            f"a weight step of at least {float(needed[channel]):.3g} there, not {float(steps[channel % steps.size]):.3g}",
            "Give the layer more bits or a larger step",
        )
    return steps


def write_bias(target: WeightOperator, bias: np.ndarray, steps: np.ndarray, input_step: float) -> None:
    """Stores a bias in steps of ``input_step * steps``, the steps of the operator's weights."""
    tensor = own_input(target.operator, target.bias_position)
    shape = tuple(int(n) for n in tensor.shape)
    bias_steps = (np.float32(input_step) * steps).astype(np.float32)
    integers = np.rint(np.broadcast_to(np.asarray(bias, np.float64), shape) / (input_step * steps.astype(np.float64)))
    wide = tensor.type == TensorType.INT64  # of operators with int16 activations
    set_constant(target.operator.model, tensor, integers.astype(np.int64 if wide else np.int32), tensor.type)
    tensor.quantization = quantization(bias_steps, axis=0)


def quantization(steps: np.ndarray, axis: int) -> QuantizationT:
    """Returns a symmetric quantization record (`schema.QuantizationParametersT`) with zero point 0."""
    record = QuantizationT()
    record.scale = np.asarray(steps, np.float32)
    record.zeroPoint = np.zeros(len(record.scale), np.int64)
    record.quantizedDimension = axis if len(record.scale) > 1 else 0
    return record


def own_input(operator: Operator, position: int) -> TensorT:
    """Returns the tensor at `position` after making sure that no other operator reads it (a copy is made if one does)."""
    graph, record = operator.graph, operator.record
    index = int(record.inputs[position])
    if sum(int(np.count_nonzero(np.asarray(other.inputs) == index)) for other in graph.operators) > 1:
        graph.tensors.append(copy.copy(graph.tensors[index]))
        record.inputs = np.array(record.inputs, np.int32)
        record.inputs[position] = len(graph.tensors) - 1
    tensor: TensorT = operator.input(position)
    return tensor
