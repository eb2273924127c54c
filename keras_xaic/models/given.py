"""Models as users hand them over: Keras 2 or 3 in memory, with or without the toolkit's wrappers, or a file."""

from __future__ import annotations

import os
from typing import Any, Optional

from keras_xaic._keras import Model, keras
from keras_xaic.arguments import a_path, shown
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.files import PathLike
from keras_xaic.models.alone import require_alone
from keras_xaic.models.batches import for_any_batch
from keras_xaic.models.crops import without_crops
from keras_xaic.models.keras3_objects import from_keras3, is_keras3_object
from keras_xaic.models.layouts import channels_last
from keras_xaic.models.loading import load_model
from keras_xaic.models.opening import has_nameless_activation, opened
from keras_xaic.models.operations import graph_of
from keras_xaic.models.ports import ports_of
from keras_xaic.models.positions import at_every_position
from keras_xaic.models.stateless import without_state
from keras_xaic.models.texts import takes_texts
from keras_xaic.models.wrapped import unwrapped


def as_model(
    model: Any,
    allow_unsafe: bool = False,
    custom_objects: Optional[PathLike] = None,
    architecture: Optional[str] = None,
) -> Model:
    """Returns a model that is given as an object or as the path of a file.

    Raises:
        ModelError: If it is none, has no graph of layers, or the file cannot be read; or if it does not give for a sample what
            it gives for it alone (see `require_alone`).
    """
    expected = "a keras.Model, or the path of one"
    if isinstance(model, (str, os.PathLike)):
        try:
            a_path("model", model)
        except PlanError as error:
            raise ModelError(error.found, expected) from None
        model = load_model(model, allow_unsafe=allow_unsafe, custom_objects=custom_objects, architecture=architecture)
    elif is_keras3_object(model):
        return _usual(require_alone(from_keras3(model, allow_unsafe)))
    elif not isinstance(model, keras.Model):
        raise ModelError(f"model is {shown(model)}", expected)
    return _usual(unwrapped(require_alone(graph_of(opened(model)))))


def _usual(model: Model) -> Model:
    for name, tensor in zip(model.input_names, model.inputs):
        if tensor.dtype.name == "string":
            raise takes_texts(f"model {model.name!r}", name, [(type(one).__name__, one.name) for one in model.layers])
    _require_floats(model)
    _require_names(model)
    return channels_last(at_every_position(without_crops(for_any_batch(without_state(model)))))


def _require_floats(model: Model) -> None:
    """Refuses outputs that decide already, as an argmax does: no relevance starts there, no metric says how wrong they are.

    Raises:
        ModelError: Naming the first one.
    """
    for number, (name, tensor) in enumerate(zip(ports_of(model).outputs, model.outputs)):
        if not tensor.dtype.is_floating:
            raise ModelError(
                f"output {number} ({name!r}) of model {model.name!r} gives no floats ({tensor.dtype.name})",
                "outputs of floats: probabilities, logits, values",
                "Give the model without what decides (argmax, a comparison), keras.Model(model.inputs, [...]), "
                "and decide on what the file gives",
            )


def _require_names(model: Model) -> None:
    """Refuses activations that are left in layers that cannot be taken apart, and that no copy of these could have.

    Raises:
        ModelError: Naming the first layer with one.
    """
    for layer in model._flatten_layers():
        if has_nameless_activation(layer):
            raise ModelError(
                f"layer {layer.name!r} ({type(layer).__name__}) of model {model.name!r} has an activation without a name",
                "functions with names",
                "Define it with `def` in place of a lambda, a functools.partial or an object",
            )
