"""Filters that are really gone: the model rebuilt with smaller layers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, layers
from keras_xaic.errors import ModelError
from keras_xaic.models.branches import repeats, taken_out
from keras_xaic.models.channels import ChannelGroups, Keep, channel_groups
from keras_xaic.models.kernels import layer_kernels
from keras_xaic.models.operations import Operation, Operations
from keras_xaic.models.rebuilding import fill, inputs_like, model_like, rebuilt


def remove_channels(model: Model, keep: Keep, groups: Optional[ChannelGroups] = None) -> Model:
    """Rebuilds a model without some of its channels.

    What is equal: the outputs are those of `model` after setting to zero, in every layer of a group's `consumers`, the
    incoming weights of the removed channels (to float32 rounding of sums in another order). Zeroing the *outgoing* weights of
    the producers instead is not the same where a bias, BatchNorm or an activation turns the zero into something else: a
    removed channel contributes nothing at all. With every channel kept the outputs are bit-identical.

    The result is flat (nested models are opened) and uncompiled. Inputs and outputs have the names, order and structure of
    the original's, layers are called by their path (`Operation.path`); configurations, regularizers, constraints and
    trainable flags are kept.

    Args:
        model: A built functional or sequential model. It is not changed.
        keep: Channel group -> (size,) bool, True for the channels that stay (see `channel_groups`). Groups that are not
            named stay whole.
        groups: What `channel_groups(model)` returned, to save computing it again.

    Returns:
        The smaller `keras.Model`.

    Raises:
        PlanError: If `keep` names unknown groups or channels that cannot be removed.
        ModelError: If a layer cannot be rebuilt from its configuration.
    """
    groups = channel_groups(model) if groups is None else groups
    groups.check_keep(keep)
    return _rebuilt(model, groups, groups.stays(keep))


def remove_branches(model: Model, names: Iterable[str], groups: Optional[ChannelGroups] = None) -> Model:
    """Rebuilds a model without some of its residual branches: ``x + f(x)`` becomes ``x``.

    A ReLU behind the sum goes, too, if x comes out of one already. Everything else is as `remove_channels` leaves it; channel
    groups keep their numbering.

    >>> from keras_xaic._keras import keras, layers
    >>> inputs = keras.Input((8, 8, 4))
    >>> x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    >>> x = layers.ReLU(name="again")(layers.Add(name="sum")([x, layers.Conv2D(4, 1, name="branch")(x)]))
    >>> model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))
    >>> [layer.name for layer in remove_branches(model, ["sum"]).layers[1:]]
    ['stem', 'flat', 'head']

    Args:
        model: A built functional or sequential model. It is not changed.
        names: Names of branches (see `residual_branches`).
        groups: What `channel_groups(model)` returned, to save computing it again.

    Raises:
        PlanError: If the model has no such branch.
        ModelError: If a layer cannot be rebuilt from its configuration.
    """
    groups = channel_groups(model) if groups is None else groups
    return _rebuilt(model, groups, groups.stays({}), *taken_out(groups.operations, names))


def _rebuilt(
    model: Model,
    groups: ChannelGroups,
    stays: np.ndarray,
    gone: Collection[str] = (),
    sums: Optional[Mapping[str, list[str]]] = None,
) -> Model:
    """Returns the model with the atoms that stay, without operations that are gone, and with only some terms of some sums."""
    sums = sums or {}
    replaced = _replaced(groups.operations, sums)
    inputs = inputs_like(model)
    tensors = dict(zip(groups.operations.inputs, inputs))
    clones: dict[str, Layer] = {}
    for operation in groups.operations:
        if operation.name in gone:
            continue
        if operation.name in replaced:
            tensors[operation.outputs[0]] = tensors[replaced[operation.name]]
            continue
        new = operation.path not in clones
        if new:
            clones[operation.path] = _clone(operation, groups, stays)
        if operation.name in sums:
            tensors[operation.outputs[0]] = clones[operation.path]([tensors[key] for key in sums[operation.name]])
        else:
            tensors.update(zip(operation.outputs, operation.call(tensors, clones[operation.path])))
        if new:
            _fill(operation, clones[operation.path], groups, stays)
    outputs = [tensors[key] for key in groups.operations.outputs]
    return model_like(model, inputs, outputs)


def _replaced(operations: Operations, sums: Mapping[str, list[str]]) -> dict[str, str]:
    """Returns the name of every operation that does nothing any more -> key of the tensor that comes in its place."""
    found: dict[str, str] = {}
    same: dict[str, str] = {}  # tensor that is another's now -> that other, as the model had it
    for operation in operations:
        terms = sums.get(operation.name, operation.inputs)
        if len(terms) != 1:
            continue
        key = same.get(terms[0], terms[0])
        if operation.name in sums or (terms[0] in same and repeats(operation, operations.producer.get(key))):
            found[operation.name] = terms[0]
            same[operation.outputs[0]] = key
    return found


def kept_values(groups: ChannelGroups, keep: Keep, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what `remove_channels` leaves of arrays that belong to kernels, such as their relevance.

    Args:
        groups: The model's channel groups.
        keep: Channel group -> (size,) bool.
        values: Kernel key -> array of the kernel's shape.
    """
    groups.check_keep(keep)
    stays = groups.stays(keep)
    found: dict[str, np.ndarray] = {}
    for operation in groups.operations:
        axes = groups.weight_axes(operation.path)
        for kernel in layer_kernels(operation.layer, operation.path):
            if kernel.key in values and kernel.key not in found:
                number = next(i for i, weight in enumerate(operation.layer.weights) if weight is kernel.variable)
                value = values[kernel.key]
                found[kernel.key] = value if axes is None else _kept(value, axes[number], stays)
    return found


def _clone(operation: Operation, groups: ChannelGroups, stays: np.ndarray) -> Layer:
    layer = operation.layer
    config = {**layer.get_config(), "name": operation.path}
    if operation.path in groups.operations.frozen:
        config["trainable"] = False
    made = groups.made(operation)
    if made is not None:
        config["filters" if "filters" in config else "units"] = int(np.count_nonzero(stays[made]))
    if isinstance(layer, layers.Reshape):
        atoms = groups.atoms(operation.outputs[0])
        if atoms is not None and not stays[atoms].all():
            shape = groups.operations.shapes[operation.outputs[0]]
            config["target_shape"] = (*shape[1:-1], int(np.count_nonzero(stays[atoms])))
    if callable(getattr(layer, "activation", None)) and "activation" in config:
        config["activation"] = layer.activation  # functions of the user have no name that Keras could look up
    try:
        return rebuilt(layer, config)
    except Exception as error:  # a custom layer's from_config may raise anything
        raise ModelError(
            f"layer {operation.path!r} ({type(layer).__name__}) cannot be rebuilt from its configuration ({error})",
            "a layer whose get_config() holds every argument of its constructor",
            "Add what is missing to get_config(), or replace the layer by standard Keras layers",
        ) from None


def _fill(operation: Operation, clone: Layer, groups: ChannelGroups, stays: np.ndarray) -> None:
    weights = operation.layer.get_weights()
    axes = groups.weight_axes(operation.path)
    if axes is not None:
        weights = [_kept(weight, one, stays) for weight, one in zip(weights, axes)]
    try:
        fill(clone, weights)
    except ValueError as error:
        raise ModelError(
            f"layer {operation.path!r} ({type(operation.layer).__name__}) does not take its weights back ({error})",
            "a layer that makes the same weights whenever it is built",
        ) from None


def _kept(weight: np.ndarray, axes: Any, stays: np.ndarray) -> np.ndarray:
    for axis, atoms in enumerate(axes):
        if atoms is not None:
            weight = np.compress(stays[atoms], weight, axis=axis)
    return weight
