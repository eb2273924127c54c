"""Layers that take their channels first: here they take them last, as kernels of devices do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor, layers
from keras_xaic.models.kernels import layer_kernels
from keras_xaic.models.operations import Operation
from keras_xaic.models.rebuilding import rebuilt, with_layers

_OF_VOLUMES = (
    layers.Conv3D,
    layers.MaxPooling3D,
    layers.AveragePooling3D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling3D,
    layers.UpSampling3D,
    layers.ZeroPadding3D,
    layers.Cropping3D,
)
"""What the converter turns for itself as long as it is of images."""


def channels_last(model: Model) -> Model:
    """Returns the model with convolutions of the usual layout between two permutations: itself where it has no others.

    >>> from keras_xaic._keras import keras
    >>> inputs = keras.Input((3, 8, 8))
    >>> model = keras.Model(inputs, layers.Conv2D(4, 3, data_format="channels_first")(inputs))
    >>> [type(layer).__name__ for layer in channels_last(model).layers]
    ['InputLayer', 'Permute', 'Conv2D', 'Permute']

    Args:
        model: A built model. It is not changed.
    """
    return with_layers(model, _usual) if any(map(_is_turned, model._flatten_layers())) else model


def _is_turned(layer: Layer) -> bool:
    first = getattr(layer, "data_format", None) == "channels_first"
    return first and (isinstance(layer, _OF_VOLUMES) or bool(layer_kernels(layer, "")))


def _usual(operation: Operation) -> Any:
    layer = operation.layer
    config = {**layer.get_config(), "name": operation.path}
    if not _is_turned(layer):
        return rebuilt(layer, config)
    return _Turned(rebuilt(layer, {**config, "data_format": "channels_last"}))


class _Turned:
    """Stands in a layer's place while a model is made."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    @property
    def weights(self) -> list[Any]:
        return list(self.layer.weights)

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        self.layer.set_weights(values)

    def __call__(self, x: Tensor, **options: Any) -> Tensor:
        last = len(x.shape) - 1
        made = self.layer(layers.Permute((*range(2, last + 1), 1))(x), **options)
        return layers.Permute((last, *range(1, last)))(made) if len(made.shape) > last else made  # else places are gone
