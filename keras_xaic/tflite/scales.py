"""Scales that the converter gets wrong: of values that are (nearly) 0 always, of those that are only copied, of small cells."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.tflite.adding import add_operator_code, add_tensor, new_operator
from keras_xaic.tflite.flatbuffer import (
    BuiltinOperator,
    ModelT,
    Operator,
    TensorT,
    TensorType,
    constant,
    name_of,
    operators,
    schema,
    set_constant,
)
from keras_xaic.tflite.pairing import WeightOperator, weight_operators
from keras_xaic.tflite.rewrite import own_input, quantization, write_bias

SMALLEST_SCALE = 1e-30
"""Values of a smaller scale had no range when the file was calibrated."""
BITS = 8
_RESCALING = ("MUL", "ADD", "SUB", "DIV", "BROADCAST_TO")
"""Operators that take inputs of any scale."""
_COPYING = {
    **dict.fromkeys(
        ("BROADCAST_TO", "DEPTH_TO_SPACE", "GATHER", "GATHER_ND", "MIRROR_PAD", "PAD", "RESHAPE", "REVERSE_V2"), (0,)
    ),
    **dict.fromkeys(("REVERSE_SEQUENCE", "SLICE", "SPACE_TO_DEPTH", "STRIDED_SLICE", "TILE", "TRANSPOSE"), (0,)),
    **dict.fromkeys(("SELECT", "SELECT_V2"), (1, 2)),
}
"""Operators that copy values -> places of what they copy."""
_FILLING = {"ONE_HOT": (2, 3)}
"""Operators that write constants into their results -> places of these."""
_SHIFTS = {("ADD", BITS): 20, ("SUB", BITS): 20, ("ADD", 16): 15, ("SUB", 16): 15, ("SQUARED_DIFFERENCE", BITS): 7}
"""Bits by which kernels shift inputs up before they compute; a result of a scale that is finer still ends the process."""
_WEIGHTED = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 0, "TRANSPOSE_CONV": 2}
"""Operators with weights -> place of what they are multiplied by."""
_LARGEST_FACTOR = 128.0
"""Most by which results of weights may be multiplied to have their scale: XNNPACK takes less than 256, or refuses the file."""
QUANTIZE_VERSION = 2
_LARGEST = {TensorType.INT8: 127, TensorType.INT16: 32767}
_CELL, _LEAST_CELL = 19, 2.0**-15
"""Place of an LSTM's cells among its inputs, and the least scale of theirs that kernels compute with; it is a power of two."""


def settle_scales(model: ModelT, floating: Optional[Callable[[], Sequence[WeightOperator]]]) -> list[Operator]:
    """Gives a file true scales, in place.

    Args:
        model: The file.
        floating: Gives the weight operators of the float32 twin, for a file of int16 values; None for other files.

    Returns:
        The operators whose results have no range: 0 for all calibration data.

    Raises:
        ExportError: If nothing in a file of int16 values has a range.
    """
    found = list(operators(model))
    dead = [one for one in found if _scale(one.output()) is not None and not _has_range(one.output())]
    if dead and floating is not None:
        _give_range(model, found, floating())
        dead = []
    _widen_results(found)
    _keep_scale_of_copies(model, found)
    _bring_constants(model, found)
    _bring_compared(model, found)
    _widen_cells(found)
    return dead


def cut_results(model: ModelT) -> list[Operator]:
    """Returns what chooses between values of int16 that its own scale cannot hold: the converter gives it that of the first."""
    chosen = (one for one in operators(model) if one.kind.startswith("SELECT") and one.output().type == TensorType.INT16)
    return [one for one in chosen if any(_scale(one.input(place)) > 1.01 * _scale(one.output()) for place in (1, 2))]


def _give_range(model: ModelT, found: Sequence[Operator], floating: Sequence[WeightOperator]) -> None:
    """Gives values of an int16 file that have no range one, in place: the largest of the file.

    Where they are not 0 after all, with other data, they have a range then; 16 bits leave a scale that is small enough. Weights
    and biases of the layers that read them follow.
    """
    computed = [one.output() for one in found if one.output().type == TensorType.INT16]
    read = [model.subgraphs[0].tensors[index] for index in model.subgraphs[0].inputs]
    known = [float(_scale(one)) for one in [*read, *computed] if _scale(one) is not None and _has_range(one)]
    if not known:
        raise ExportError("a model that gives 0 for all calibration data", "data for which it gives something")
    changed = [one for one in computed if not _has_range(one)]
    for tensor in changed:
        tensor.quantization = quantization(np.array([max(known)]), axis=0)
    identities = {id(one) for one in changed}
    for target, source in zip(weight_operators(model), floating):
        data = target.operator.input(target.data_position)
        if id(data) not in identities:
            continue
        # The converter made the weights coarse, too, so that the bias has few steps.
        axes = () if len(target.weight_tensor.quantization.scale) == 1 else (source.channel_axis,)
        grid = quantize(source.weights, BITS, fit_scale(source.weights, BITS, axes))
        steps = grid.scale.ravel().astype(np.float32)
        weights = own_input(target.operator, 1)
        set_constant(model, weights, grid.integers, TensorType.INT8)
        weights.quantization = quantization(steps, axis=target.channel_axis)
        if target.operator.input(target.bias_position) is not None:
            bias = np.zeros(1) if source.bias is None else source.bias
            write_bias(target, bias, steps, float(data.quantization.scale[0]))


def _keep_scale_of_copies(model: ModelT, found: Sequence[Operator]) -> None:
    """Gives what only copies values the scale of what it copies, in place: interpreters do not rescale it.

    Results take over the scale of the values where only operators read them that rescale; else values are brought to theirs in
    front of the copy. Constants are left alone: `keras_xaic.tflite.rewrite` writes those of embeddings.
    """
    constants = {place for place, buffer in enumerate(model.buffers) if buffer.data is not None and len(buffer.data)}
    for operator in (one for one in found if one.kind in _COPYING):
        made, index = operator.output(), operator.record.outputs[0]
        for place in _COPYING[operator.kind]:
            given = operator.input(place)
            if given is None or given.buffer in constants or given.type != made.type or _same_scale(given, made):
                continue
            rescaled = all(one.kind in _RESCALING for one in found if index in one.record.inputs)
            if rescaled and index not in model.subgraphs[0].outputs and len(_COPYING[operator.kind]) == 1:
                made.quantization = copy.copy(given.quantization)
            else:
                _rescale_in_front(model, operator, place)


def _bring_constants(model: ModelT, found: Sequence[Operator]) -> None:
    """Brings constants that results are filled with to the scale of those, in place: interpreters do not rescale them."""
    for operator in (one for one in found if one.kind in _FILLING):
        made = operator.output()
        for place in _FILLING[operator.kind]:
            given = own_input(operator, place)
            if given.type == made.type and not _same_scale(given, made) and (codes := constant(model, given)) is not None:
                values = (codes.astype(np.float64) - given.quantization.zeroPoint[0]) * _scale(given)
                largest = np.iinfo(codes.dtype)
                there = np.rint(values / _scale(made)) + made.quantization.zeroPoint[0]
                set_constant(model, given, np.clip(there, largest.min, largest.max), given.type)
                given.quantization = copy.copy(made.quantization)


def _bring_compared(model: ModelT, found: Sequence[Operator]) -> None:
    """Brings constants that values are compared with to what integers can be, in place: else nothing equals them.

    `Masking` looks for its value like that.
    """
    made_by = {int(one.record.outputs[0]): one for one in found}
    for operator in (one for one in found if one.kind in ("EQUAL", "NOT_EQUAL")):
        for place in (0, 1):
            values, source = constant(model, operator.input(place)), made_by.get(int(operator.record.inputs[1 - place]))
            if values is None or values.dtype != np.float32 or source is None or source.kind != "DEQUANTIZE":
                continue
            given = source.input(0)
            if _scale(given) is None or given.type not in _LARGEST:
                continue
            scale, zero = np.float32(_scale(given)), int(given.quantization.zeroPoint[0])
            steps = np.rint(values.astype(np.float64) / scale)
            held = np.abs(steps + zero + 0.5) <= _LARGEST[given.type] + 0.5
            near = np.where(held, scale * steps.astype(np.float32), values).astype(np.float32)
            set_constant(model, own_input(operator, place), near, TensorType.FLOAT32)


def _widen_cells(found: Sequence[Operator]) -> None:
    """Gives the cells of an LSTM a range of at least 1, in place: interpreters take a wrong tanh of smaller ones."""
    for operator in (one for one in found if one.kind == "UNIDIRECTIONAL_SEQUENCE_LSTM"):
        cell = operator.input(_CELL)
        if cell is not None and cell.type == TensorType.INT16 and _scale(cell) is not None:
            cell.quantization.scale = np.maximum(cell.quantization.scale, _LEAST_CELL).astype(np.float32)


def _widen_results(found: Sequence[Operator]) -> None:
    """Gives results no finer a scale than kernels compute with, in place: ``x - x`` has hardly a range."""
    for operator in found:
        made, least = operator.output(), _least_scale(operator)
        if least is not None and _scale(made) is not None and _scale(made) < least:
            made.quantization.scale = np.array([least], np.float32)


def _least_scale(operator: Operator) -> Optional[float]:
    """Returns the finest scale that kernels can give the result of an operator; None where any will do."""
    bits = {TensorType.INT8: BITS, TensorType.INT16: 16}.get(operator.output().type, 0)
    if operator.kind in _WEIGHTED and bits == BITS:
        given, record = _scale(operator.input(_WEIGHTED[operator.kind])), operator.input(1).quantization
        known = given is not None and record is not None and record.scale is not None
        return float(given) * float(np.max(record.scale)) / _LARGEST_FACTOR if known else None
    shift = _SHIFTS.get((operator.kind, bits))
    scales = [_scale(one) for one in map(operator.input, range(len(operator.record.inputs))) if one is not None]
    if shift is None or None in scales:
        return None
    return float(2 * (2 * max(scales) / 2.0**shift) ** (2 if operator.kind == "SQUARED_DIFFERENCE" else 1))


def _rescale_in_front(model: ModelT, operator: Operator, place: int) -> None:
    """Brings what an operator reads to the scale of what it gives, in place."""
    given, graph = operator.input(place), operator.graph
    own = add_tensor(model, given.shape, given.type, f"{name_of(given)}/rescaled")
    graph.tensors[own].quantization = copy.copy(operator.output().quantization)
    code = add_operator_code(model, BuiltinOperator.QUANTIZE, QUANTIZE_VERSION)
    record = new_operator(code, [int(operator.record.inputs[place])], own, schema.QuantizeOptionsT())
    operator.record.inputs = np.array(operator.record.inputs, np.int32)
    operator.record.inputs[place] = own
    where = next(number for number, one in enumerate(graph.operators) if one is operator.record)
    graph.operators = [*graph.operators[:where], record, *graph.operators[where:]]


def _same_scale(one: TensorT, other: TensorT) -> bool:
    """Whether codes of both stand for the same values; so do those of tensors that have no one scale."""
    if _scale(one) is None or _scale(other) is None:
        return True
    return bool(_scale(one) == _scale(other) and one.quantization.zeroPoint[0] == other.quantization.zeroPoint[0])


def _scale(tensor: TensorT) -> Any:
    """Returns the scale of values that have one for all, None for others."""
    record = tensor.quantization
    return None if record is None or record.scale is None or len(record.scale) != 1 else record.scale[0]


def _has_range(tensor: TensorT) -> bool:
    scale = _scale(tensor)
    return scale is None or bool(np.isfinite(scale) and scale > SMALLEST_SCALE)
