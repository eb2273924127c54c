"""Recurrent layers that carry their state from batch to batch: here every call begins without one."""

from __future__ import annotations

import warnings
from typing import Any

from keras_xaic._keras import Layer, Model, keras
from keras_xaic.errors import XaicWarning
from keras_xaic.models.frozen import NAMED
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import Operations
from keras_xaic.models.ports import keep_ports, ports_of
from keras_xaic.models.rebuilding import rebuilt


def without_state(model: Model) -> Model:
    """Returns the model without state between calls: itself where no layer keeps any, else a flat clone for any batch size.

    Stateful layers demand batches of one size whose samples follow those of the batch before. Training, validation data and
    interpreters here know samples in any order, so each begins as after ``reset_states()``; a warning says so.

    Args:
        model: A built model. It is not changed.
    """
    if not any(_keeps_state(layer) for layer in model._flatten_layers()):
        return model
    operations = Operations(model)
    names = list(dict.fromkeys(one.path for one in operations if _keeps_state(one.layer)))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    warnings.warn(
        f"The state of {', '.join(names[:NAMED])}{more} of model {model.name!r} is not carried from batch to batch "
        "(stateful=True): every sample begins as after reset_states(), in the compressed model, too.",
        XaicWarning,
        stacklevel=2,
    )
    inputs = [
        keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for tensor, name in zip(model.inputs, model.input_names)
    ]
    tensors: dict[str, Any] = dict(zip(operations.inputs, inputs))
    clones: dict[int, Layer] = {}
    for operation in operations:
        layer, new = operation.layer, id(operation.layer) not in clones
        if new:
            clones[id(layer)] = rebuilt(layer, _freed({**layer.get_config(), "name": operation.path}))
        tensors.update(zip(operation.outputs, operation.call(tensors, clones[id(layer)])))
        if new:
            clones[id(layer)].set_weights(layer.get_weights())
    clone = keras.Model(inputs, [tensors[key] for key in operations.outputs], name=model.name)
    keep_ports(clone, ports_of(model))
    carry_losses(model, clone)
    return clone


def _keeps_state(layer: Layer) -> bool:
    return not isinstance(layer, Model) and bool(getattr(layer, "stateful", False)) and "stateful" in str(layer.get_config())


def _freed(config: Any) -> Any:
    """Returns a layer's configuration without state and without sizes of batches, those of layers inside it included."""
    if isinstance(config, dict):
        kept = {key: _freed(value) for key, value in config.items() if key not in ("batch_input_shape", "batch_shape")}
        return {**kept, "stateful": False} if "stateful" in kept else kept
    return [_freed(one) for one in config] if isinstance(config, list) else config
