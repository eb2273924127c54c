"""Dense layers that `TimeDistributed` calls at every position: a dense layer does that by itself."""

from __future__ import annotations

from typing import Optional

from keras_xaic._keras import Layer, Model, layers
from keras_xaic.models.operations import Operation
from keras_xaic.models.rebuilding import rebuilt, with_layers


def at_every_position(model: Model) -> Model:
    """Returns the model with plain dense layers in the places of time-distributed ones: itself where it has none.

    They compute the same, and only as dense layers they have kernels that relevance, grids and zeros are for.

    >>> from keras_xaic._keras import keras
    >>> inputs = keras.Input((5, 3))
    >>> model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(2), name="head")(inputs))
    >>> [type(layer).__name__ for layer in at_every_position(model).layers]
    ['InputLayer', 'Dense']

    Args:
        model: A built model. It is not changed.
    """
    return with_layers(model, _plain) if any(_dense_inside(layer) for layer in model._flatten_layers()) else model


def _plain(operation: Operation) -> Layer:
    inside = _dense_inside(operation.layer) or operation.layer
    return rebuilt(inside, {**inside.get_config(), "name": operation.path})


def _dense_inside(layer: Layer) -> Optional[Layer]:
    """Returns the dense layer inside time-distributed ones, however many."""
    found = layer
    while isinstance(found, layers.TimeDistributed):
        found = found.layer
    return found if found is not layer and type(found) is layers.Dense else None
