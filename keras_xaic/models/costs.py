"""What a model costs before any file is written: multiply-accumulates and parameters, whole or with channels gone."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from keras_xaic.models.channels import ChannelGroups, Keep
from keras_xaic.models.kernels import kernel_calls
from keras_xaic.models.operations import Operations

if TYPE_CHECKING:
    from keras_xaic._keras import Model


def macs(model: Model) -> dict[str, int]:
    """Returns the multiply-accumulates of every convolution and dense layer for one sample.

    A kernel of K weights that is applied at P positions costs K * P; positions in the padding count. Calls of a shared
    layer add up. Free dimensions of the input count as 1. Bias, normalization and activations are not counted.

    Args:
        model: A functional or sequential model.

    Returns:
        Layer path -> multiply-accumulates, in network order.
    """
    found: dict[str, int] = defaultdict(int)
    for call in kernel_calls(Operations(model)):
        found[call.path] += math.prod(call.shape) * call.positions
    return dict(found)


def parameters(model: Model) -> dict[str, int]:
    """Returns the number of weights of every layer that has any, layer path -> parameters, shared layers once."""
    found: dict[str, int] = {}
    for operation in Operations(model):
        if operation.layer.weights:
            found[operation.path] = sum(math.prod(weight.shape) for weight in operation.layer.weights)
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
    return {
        path: [
            tuple(size if atoms is None else int(np.count_nonzero(stays[atoms])) for size, atoms in zip(shape, axes))
            for shape, axes in zip(shapes, groups.weight_axes(path) or [(None,) * len(shape) for shape in shapes])
        ]
        for path, shapes in groups.weight_shapes.items()
    }


def kept_parameters(groups: ChannelGroups, keep: Keep) -> dict[str, int]:
    """Returns layer path -> number of weights after `remove_channels`; see `kept_shapes`."""
    shapes = kept_shapes(groups, keep)
    return {path: sum(map(math.prod, weights)) for path, weights in shapes.items()}


def kept_macs(groups: ChannelGroups, keep: Keep) -> dict[str, int]:
    """Returns layer path -> multiply-accumulates after `remove_channels`; see `kept_shapes` and `macs`."""
    shapes = kept_shapes(groups, keep)
    found: dict[str, int] = defaultdict(int)
    for call in groups.kernel_calls:
        found[call.path] += math.prod(shapes[call.path][call.number]) * call.positions
    return dict(found)
