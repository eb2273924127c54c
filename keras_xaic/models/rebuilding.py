"""Layers made again from their configuration, and models around them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor, keras, tf
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import Operation, Operations
from keras_xaic.models.ports import keep_ports, ports_of


def with_layers(model: Model, layer_of: Callable[[Operation], Optional[Layer]], any_batch: bool = False) -> Model:
    """Returns a flat model in which other layers stand in the places of the model's own, with the weights of those.

    Inputs and outputs have the names, order and structure of the model's; what is known of its losses is kept.

    Args:
        model: A built model. It is not changed.
        layer_of: Gives the layer for the first call of every layer; None where the value that comes in is passed on.
        any_batch: Whether inputs take batches of any size where the model's own do not.
    """
    operations = Operations(model)
    inputs = inputs_like(model, any_batch)
    tensors: dict[str, Tensor] = dict(zip(operations.inputs, inputs))
    clones: dict[int, Optional[Layer]] = {}
    for operation in operations:
        layer, new = operation.layer, id(operation.layer) not in clones
        clone = clones[id(layer)] = layer_of(operation) if new else clones[id(layer)]
        if clone is None:
            tensors[operation.outputs[0]] = tensors[operation.inputs[0]]
            continue
        tensors.update(zip(operation.outputs, operation.call(tensors, clone)))
        if new:
            fill(clone, _weights_for(clone, layer))
    made = model_like(model, inputs, [tensors[key] for key in operations.outputs])
    carry_losses(model, made)
    return made


def inputs_like(model: Model, any_batch: bool = False) -> list[Tensor]:
    """Returns new inputs of a model's shapes, dtypes and names, in its order."""
    return [
        keras.Input(batch_shape=(None, *tensor.shape[1:]) if any_batch else tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, model.input_names)
    ]


def model_like(model: Model, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Model:
    """Returns a model of other tensors in the structure of a model's own (alone, in a list, in a dictionary), named like it."""
    given, made = (tf.nest.pack_sequence_as(own, list(new)) for own, new in ((model.input, inputs), (model.output, outputs)))
    like = keras.Model(given, made, name=model.name)
    keep_ports(like, ports_of(model))
    return like


def fill(layer: Layer, weights: Sequence[np.ndarray]) -> None:
    """Gives a built layer its weights, in its order, and what it derives from them."""
    layer.set_weights(list(weights))
    if hasattr(layer, "finalize_state"):  # Normalization keeps derived constants beside its weights
        layer.finalize_state()


def _weights_for(clone: Layer, layer: Layer) -> list[np.ndarray]:
    if type(clone) is type(layer):
        return list(layer.get_weights())
    values = {_last_name(weight): weight for weight in layer.weights}  # a wrapper has some of its own
    return [values[_last_name(weight)].numpy() for weight in clone.weights]


def _last_name(weight: Any) -> str:
    return str(weight.name).split("/")[-1].split(":")[0]


def rebuilt(layer: Layer, config: Mapping[str, Any]) -> Layer:
    """Returns a new layer of the same class.

    Keras draws every LSTM and GRU twice, for processors and for graphics cards, with gradients, which takes seconds. Where
    there is no graphics card, new layers draw what runs. They compute the same.

    Args:
        layer: A layer; it is not changed.
        config: The configuration of the new one.
    """
    with keras.utils.custom_object_scope(_named_in(layer)):
        made: Layer = type(layer).from_config(dict(config))
    if not _has_graphics_card():
        for part in made._flatten_layers():
            if vars(part).get(_TWICE):
                setattr(part, _TWICE, False)
                vars(part)[_CHANGED] = True
    return made


def _named_in(layer: Layer) -> dict[str, Any]:
    """Returns what a layer's configuration names and Keras may not know: the class of a cell, an activation."""
    found: dict[str, Any] = {}
    for part in layer._flatten_layers():
        found[type(part).__name__] = type(part)
        for value in (getattr(part, "activation", None), getattr(part, "recurrent_activation", None)):
            if callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>":
                found[value.__name__] = value
    return found


def is_drawn_twice(layer: Layer) -> bool:
    """Whether Keras draws an LSTM or GRU for graphics cards, too, in a model of its own: it has all the usual settings."""
    return bool(vars(layer).get(_TWICE) or vars(layer).get(_CHANGED))


@contextlib.contextmanager
def drawn_twice(layers: Iterable[Layer]) -> Iterator[None]:
    """Has recurrent layers drawn as Keras does it, for the length of the block: by that the converter knows an LSTM."""
    changed = [part for layer in layers for part in layer._flatten_layers() if vars(part).get(_CHANGED)]
    for part in changed:
        setattr(part, _TWICE, True)
    try:
        yield
    finally:
        for part in changed:
            setattr(part, _TWICE, False)


@contextlib.contextmanager
def drawn_open(layers: Iterable[Layer]) -> Iterator[None]:
    """Has grouped convolutions drawn as operators for the length of the block, not as functions that are compiled.

    What is inside a compiled function cannot be rewritten, and what is behind it has no shape in a frozen graph.
    """
    changed = [part for layer in layers for part in layer._flatten_layers() if getattr(part, "groups", 1) != 1]
    changed = [part for part in dict.fromkeys(changed) if hasattr(part, _COMPILED)]
    for part in changed:
        setattr(part, _COMPILED, part.convolution_op)
    try:
        yield
    finally:
        for part in changed:
            delattr(part, _COMPILED)


_TWICE, _CHANGED = "_could_use_gpu_kernel", "_xaic_drawn_once"
_COMPILED = "_jit_compiled_convolution_op"


@functools.lru_cache
def _has_graphics_card() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))
