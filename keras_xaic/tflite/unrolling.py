"""Recurrent layers as a chain of their steps: TensorFlow's converter crashes on the loops of most of them in integers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import numpy as np

from keras_xaic._keras import Layer, Model, layers, tf
from keras_xaic.models.masking import mask_of, passes_masks, with_mask
from keras_xaic.models.operations import Operations
from keras_xaic.models.rebuilding import is_drawn_twice, rebuilt

MOST_STEPS = 128
"""Longest sequence that is unrolled: every step has operators of its own in the file, about 0.1 to 0.2 kB each."""


def without_loops(operations: Operations, every: bool = False) -> dict[str, Any]:
    """Returns name of an operation -> its layer, or what runs in its place (see `unrolled`).

    An LSTM is unrolled, too, if it is masked, takes a state or gives its own: TFLite's operator does none of it.
    """
    found = {}
    for one in operations:
        if one.inputs:
            masked = mask_of(tf.nest.flatten(one.node.keras_inputs)[0]) is not None
            states = len(one.inputs) > 1 or len(one.outputs) > 1
            found[one.name] = unrolled(one.layer, operations.shapes[one.inputs[0]], every or masked or states)
    return found


def looping(operations: Operations) -> str:
    """Returns the layers that run over time in a loop, as the converter sees them, for a message; empty if none does."""
    functions = without_loops(operations)
    found = [one.layer for one in operations if one.name in functions and has_loop(functions[one.name])]
    return ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in found)


def has_loop(layer: Union[Layer, Callable[..., Any]]) -> bool:
    """Whether a layer runs over time in a loop."""
    parts = _parts(layer)
    return any(not getattr(part, "unroll", False) for part in parts)


def unrolled(layer: Layer, shape: Sequence[Optional[int]], every: bool = False) -> Union[Layer, Callable[..., Any]]:
    """Returns a copy of a recurrent layer, with the same weights, that runs without a loop; or the layer itself.

    Convolutional ones become a function, since Keras cannot unroll them. An LSTM of the usual settings that is not part of a
    Bidirectional stays unless `every` is given: TFLite has an operator of its own for it, which converts to all activations but
    int16, and which skips no steps. So do layers that keep their state, sequences of free length, and those of more than
    `MOST_STEPS`.

    Args:
        layer: Layer layer.
        shape: Of its first input, with the batch.
        every: Whether an LSTM is unrolled, too.
    """
    if isinstance(layer, layers.TimeDistributed):
        return _at_once(layer, shape)
    if not has_loop(layer) or len(shape) < 3 or shape[1] is None or shape[1] > MOST_STEPS:
        return layer
    parts = _parts(layer)
    if (type(layer) is layers.LSTM and is_drawn_twice(layer) and not every) or any(part.stateful for part in parts):
        return layer
    if isinstance(layer, (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)):
        return functools.partial(_step_by_step, layer)
    if len(shape) != 3:
        return layer
    config = layer.get_config()
    for part in (config["layer"], config.get("backward_layer")) if isinstance(layer, layers.Bidirectional) else ():
        if part is not None:
            part["config"]["unroll"] = True
    if not isinstance(layer, layers.Bidirectional):
        config["unroll"] = True
    copy = rebuilt(layer, config)
    copy.build((1, *shape[1:]))
    copy.set_weights(layer.get_weights())
    return _ZeroWhereMasked.of(copy)


def _at_once(layer: Layer, shape: Sequence[Optional[int]]) -> Layer:
    """Returns a copy of a time-distributed layer that takes steps as samples, as Keras does of batches of any size.

    It holds what is in the layer, without loops; the layer itself where nothing loops, or where that cannot be helped.
    """
    inside = layer.layer
    if any(part.stateful for part in _parts(layer)):
        return layer
    if isinstance(inside, Model):
        found: Any = _run_of(inside) if has_loop(inside) else inside
    else:
        found = unrolled(inside, (None, *shape[2:]), every=True)
    if found is inside and layer._always_use_reshape:
        return layer
    copy: Layer = layers.TimeDistributed(found if isinstance(found, Layer) else _Calling.of(inside, found), name=layer.name)
    copy._always_use_reshape = True  # Keras has a loop for classes that are not its own
    return copy


def _run_of(model: Model) -> Union[Model, Callable[..., Any]]:
    """Returns what runs a model without loops; the model where that cannot be helped."""
    operations = Operations(model)
    functions = without_loops(operations, every=True)
    if any(has_loop(function) for function in functions.values()):
        return model

    def run(given: Any, **_: Any) -> Any:
        tensors = dict(zip(operations.inputs, tf.nest.flatten(given)))
        for one in operations:
            tensors.update(zip(one.outputs, one.call(tensors, functions.get(one.name))))
        return tf.nest.pack_sequence_as(model.output, [tensors[key] for key in operations.outputs])

    return run


class _Calling(layers.Wrapper):  # type: ignore[misc]
    """Calls a function in the place of a layer."""

    @classmethod
    def of(cls, layer: Layer, function: Callable[..., Any]) -> Layer:
        """Returns the function as a layer that treats masks as `layer` does."""
        made = cls(layer)
        made.function = function
        return made

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Calls it; masks are on tensors."""
        return self.function(inputs if mask is None else with_mask(inputs, mask))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the mask of what comes out; a model itself would be run for it, loops included."""
        if isinstance(self.layer, Model):
            return tf.nest.map_structure(mask_of, self.call(inputs, mask))
        return self.layer.compute_mask(inputs, mask)


class _ZeroWhereMasked(layers.Wrapper):  # type: ignore[misc]
    """Gives 0 at masked positions, as Bidirectional layers do: unrolled ones that run backwards do it at wrong positions."""

    @classmethod
    def of(cls, layer: Layer) -> Layer:
        """Returns the layer in a wrapper, or itself where it gives no such zeros."""
        parts = [part for part in _parts(layer) if part.return_sequences and getattr(part, "zero_output_for_mask", False)]
        if not any(part.go_backwards for part in parts):
            return layer
        for part in parts:
            part.zero_output_for_mask = False
        return passes_masks(cls(layer))

    def call(self, inputs: Any, mask: Any = None, **options: Any) -> Any:
        """Computes the outputs, and the states if the layer gives them."""
        first, *others = tf.nest.flatten(self.layer(inputs, mask=mask, **options))
        counts = tf.nest.flatten(mask)[0] if mask is not None else None
        if counts is None:
            return [first, *others] if others else first
        sequences = [one if one.shape.rank != 3 else one * tf.cast(counts, one.dtype)[..., None] for one in (first, *others)]
        return sequences if others else sequences[0]


def _step_by_step(layer: Layer, given: Any, **options: Any) -> Any:
    """Calls the cell of a convolutional layer once for each step, from given states or from zeros."""
    sequence, *states = tf.nest.flatten([given, options.get("initial_state") or []])
    if not states:
        with tf.init_scope():
            states = [np.zeros(state.shape, np.float32) for state in layer.get_initial_state(tf.zeros(sequence.shape))]
    outputs = []
    order = range(sequence.shape[1])
    for step in reversed(order) if layer.go_backwards else order:
        output, states = layer.cell(sequence[:, step], states, training=False)
        outputs.append(output)
    result = tf.stack(outputs, 1) if layer.return_sequences else outputs[-1]
    return [result, *states] if layer.return_state else result


def _parts(layer: Union[Layer, Callable[..., Any]]) -> list[Layer]:
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, layers.TimeDistributed):
        return _parts(layer.layer)
    if isinstance(layer, Model):
        return [part for one in layer.layers for part in _parts(one)]
    return [layer] if isinstance(layer, layers.RNN) else []
