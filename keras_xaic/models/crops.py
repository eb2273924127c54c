"""Crops at random places: a model in use resizes instead."""

from __future__ import annotations

from keras_xaic._keras import Layer, Model, layers
from keras_xaic.models.operations import Operation
from keras_xaic.models.rebuilding import rebuilt, with_layers


def without_crops(model: Model) -> Model:
    """Returns the model with what `RandomCrop` of Keras 2 does in use, in operators of TFLite: itself where it has none.

    Such a layer chooses between both as it runs, and draws numbers whatever it chooses.

    >>> from keras_xaic._keras import keras
    >>> inputs = keras.Input((8, 8, 3))
    >>> [type(layer).__name__ for layer in without_crops(keras.Model(inputs, layers.RandomCrop(6, 6)(inputs))).layers]
    ['InputLayer', 'Resizing']

    Args:
        model: A built model. It is not changed.
    """
    return with_layers(model, _in_use) if any(isinstance(one, layers.RandomCrop) for one in model._flatten_layers()) else model


def _in_use(operation: Operation) -> Layer:
    layer = operation.layer
    if isinstance(layer, layers.RandomCrop):
        # Until here Keras 2.14 cuts the largest middle part of the same aspect ratio and resizes it, also where nothing is cut.
        return layers.Resizing(layer.height, layer.width, crop_to_aspect_ratio=True, name=operation.path, dtype=layer.dtype)
    return rebuilt(layer, {**layer.get_config(), "name": operation.path})
