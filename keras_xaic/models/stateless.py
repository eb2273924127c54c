"""Recurrent layers that carry their state from batch to batch: here every call begins without one."""

from __future__ import annotations

import warnings
from typing import Any

from keras_xaic._keras import Layer, Model
from keras_xaic.errors import XaicWarning
from keras_xaic.models.frozen import named
from keras_xaic.models.operations import Operation, Operations
from keras_xaic.models.rebuilding import rebuilt, with_layers


def without_state(model: Model) -> Model:
    """Returns the model without state between calls: itself where no layer keeps any, else a flat clone for any batch size.

    Stateful layers demand batches of one size whose samples follow those of the batch before. Training, validation data and
    interpreters here know samples in any order, so each begins as after ``reset_states()``; a warning says so.

    Args:
        model: A built model. It is not changed.
    """
    if not any(_keeps_state(layer) for layer in model._flatten_layers()):
        return model
    found = list(dict.fromkeys(one.path for one in Operations(model) if _keeps_state(one.layer)))
    warnings.warn(
        f"The state of {named(found)} of model {model.name!r} is not carried from batch to batch (stateful=True): "
        "every sample begins as after reset_states(), in the compressed model, too.",
        XaicWarning,
        stacklevel=2,
    )
    return with_layers(model, _stateless, any_batch=True)


def _stateless(operation: Operation) -> Layer:
    return rebuilt(operation.layer, freed({**operation.layer.get_config(), "name": operation.path}))


def _keeps_state(layer: Layer) -> bool:
    return not isinstance(layer, Model) and bool(getattr(layer, "stateful", False)) and "stateful" in str(layer.get_config())


def freed(config: Any) -> Any:
    """Returns a layer's configuration without state and without sizes of batches, those of layers inside it included."""
    if isinstance(config, dict):
        kept = {key: freed(value) for key, value in config.items() if key not in ("batch_input_shape", "batch_shape")}
        return {**kept, "stateful": False} if "stateful" in kept else kept
    return [freed(one) for one in config] if isinstance(config, list) else config
