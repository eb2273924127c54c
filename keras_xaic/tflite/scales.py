"""Scales that the converter gets wrong: of values that never were anything but 0, and of those that are only copied."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.tflite.flatbuffer import ModelT, Operator, TensorT, TensorType, operators, set_constant
from keras_xaic.tflite.pairing import WeightOperator, weight_operators
from keras_xaic.tflite.rewrite import own_input, quantization, write_bias

SMALLEST_SCALE = 1e-30
"""Values of a smaller scale had no range when the file was calibrated."""
BITS = 8
_RESCALING = ("MUL", "ADD", "SUB", "DIV", "BROADCAST_TO")
"""Operators that take inputs of any scale."""


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
    _keep_scale_of_copies(model, found)
    return dead


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
    """Gives what BROADCAST_TO copies the scale of what it copies, in place: interpreters do not rescale it."""
    for operator in (one for one in found if one.kind == "BROADCAST_TO"):
        given, made = operator.input(0), operator.output()
        if given is None or _scale(given) is None or _scale(given) == _scale(made):
            continue
        index = operator.record.outputs[0]
        if (
            all(one.kind in _RESCALING for one in found if index in one.record.inputs)
            and index not in model.subgraphs[0].outputs
        ):
            made.quantization = copy.copy(given.quantization)


def _scale(tensor: TensorT) -> Any:
    """Returns the scale of values that have one for all, None for others."""
    record = tensor.quantization
    return None if record is None or record.scale is None or len(record.scale) != 1 else record.scale[0]


def _has_range(tensor: TensorT) -> bool:
    scale = _scale(tensor)
    return scale is None or bool(np.isfinite(scale) and scale > SMALLEST_SCALE)
