"""What a model costs before any file is written: multiply-accumulates and parameters, whole or with channels gone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from keras_xaic.models.channels import ChannelGroups, Keep
from keras_xaic.models.kernels import layer_kernels
from keras_xaic.models.operations import Operation, Operations


def macs(model: Any) -> dict[str, int]:
    """Returns the multiply-accumulates of every convolution and dense layer for one sample.

    A kernel of K weights that is applied at P positions costs K * P; positions in the padding count. Calls of a shared
    layer add up. Free dimensions of the input count as 1. Bias, normalization and activations are not counted.

    Args:
        model: A functional or sequential model.

    Returns:
        Layer path -> multiply-accumulates, in network order.
    """
    return _macs(Operations(model), {})


def parameters(model: Any) -> dict[str, int]:
    """Returns the number of weights of every layer that has any, layer path -> parameters, shared layers once."""
    found: dict[str, int] = {}
    for operation in Operations(model):
        if operation.layer.weights:
            found[operation.path] = sum(int(np.prod(weight.shape)) for weight in operation.layer.weights)
    return found


def kept_shapes(groups: ChannelGroups, keep: Keep) -> dict[str, list[tuple[int, ...]]]:
    """Returns the shape that every weight of a model will have after `remove_channels`, without rebuilding it.

    Args:
        groups: The model's channel groups.
        keep: Channel group -> (size,) bool.

    Returns:
        Layer path -> shapes in the order of ``layer.weights``, for every layer with weights.

    Raises:
        PlanError: If `keep` asks for what cannot be removed.
    """
    groups.check_keep(keep)
    stays = groups.stays(keep)
    found: dict[str, list[tuple[int, ...]]] = {}
    for operation in groups.operations:
        weights = operation.layer.weights
        if not weights or operation.path in found:
            continue
        axes = groups.weight_axes(operation.path) or [(None,) * len(weight.shape) for weight in weights]
        found[operation.path] = [
            tuple(int(size) if atoms is None else int(np.count_nonzero(stays[atoms])) for size, atoms in zip(weight.shape, one))
            for weight, one in zip(weights, axes)
        ]
    return found


def kept_parameters(groups: ChannelGroups, keep: Keep) -> dict[str, int]:
    """Returns layer path -> number of weights after `remove_channels`; see `kept_shapes`."""
    shapes = kept_shapes(groups, keep)
    return {path: sum(int(np.prod(shape)) for shape in weights) for path, weights in shapes.items()}


def kept_macs(groups: ChannelGroups, keep: Keep) -> dict[str, int]:
    """Returns layer path -> multiply-accumulates after `remove_channels`; see `kept_shapes` and `macs`."""
    return _macs(groups.operations, kept_shapes(groups, keep))


def _macs(operations: Operations, shapes: dict[str, list[tuple[int, ...]]]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for operation in operations:
        names = {id(weight): number for number, weight in enumerate(operation.layer.weights)}
        for kernel in layer_kernels(operation.layer, operation.path):
            kept = shapes.get(operation.path)
            shape = kernel.shape if kept is None else kept[names[id(kernel.variable)]]
            found[operation.path] += int(np.prod(shape)) * _positions(operation, kernel.kind, operations.shapes)
    return dict(found)


def _positions(operation: Operation, kind: str, shapes: dict[str, tuple[Any, ...]]) -> int:
    """How often the kernel is applied: at every output position, or every input position of a transposed convolution."""
    key = operation.inputs[0] if kind == "conv_transpose" else operation.outputs[0]
    return int(np.prod([size or 1 for size in shapes[key][1:-1]], dtype=np.int64))
