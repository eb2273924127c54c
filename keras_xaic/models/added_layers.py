"""Layers of Keras that `keras.layers` of Keras 2 does not have: new in Keras 3, or hidden in `keras.applications`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_xaic._keras import Layer, Tensor, keras, layers, tf


class RMSNormalization(layers.Layer):
    """Divides by the root of the mean square along an axis, as Keras 3's layer of this name does.

    Args:
        axis: The axis, or several, that the mean is taken over.
        epsilon: Added to the mean square.
        **options: See `keras.layers.Layer`.
    """

    def __init__(self, axis: Any = -1, epsilon: float = 1e-6, **options: object) -> None:
        super().__init__(**options)
        self.axis, self.epsilon = axis, epsilon

    def build(self, input_shape: Any) -> None:
        """Makes the scale."""
        axes = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        self.scale = self.add_weight(name="scale", shape=[input_shape[axis] for axis in axes], initializer="ones")
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        """Computes the outputs."""
        axes = [axis % inputs.shape.rank for axis in ([self.axis] if isinstance(self.axis, int) else self.axis)]
        shape = [inputs.shape[axis] if axis in axes else 1 for axis in range(inputs.shape.rank)]
        mean = tf.reduce_mean(tf.square(inputs), axis=axes, keepdims=True)
        return inputs * tf.math.rsqrt(mean + self.epsilon) * tf.reshape(self.scale, shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


class LayerScale(layers.Layer):
    """Multiplies channels by factors that are learned, as in ConvNeXt of `keras.applications` (arXiv 2103.17239).

    Args:
        init_values: What all factors are at first.
        projection_dim: Number of channels.
        **options: See `keras.layers.Layer`.
    """

    def __init__(self, init_values: float, projection_dim: int, **options: object) -> None:
        super().__init__(**options)
        self.init_values, self.projection_dim = init_values, projection_dim

    def build(self, input_shape: Any) -> None:
        """Makes the factors."""
        drawn = keras.initializers.Constant(self.init_values)
        self.gamma = self.add_weight(name="gamma", shape=(self.projection_dim,), initializer=drawn)
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        """Computes the outputs."""
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "init_values": self.init_values, "projection_dim": self.projection_dim}


def is_layer_scale(layer: Layer) -> bool:
    """Whether a layer is a `LayerScale`: this one, or the one in `keras.applications` of Keras 2."""
    kind = type(layer)
    return kind.__name__ == LayerScale.__name__ and kind.__module__.startswith(("keras.", "tf_keras.", "keras_xaic."))


class CustomScaleLayer(layers.Layer):
    """The first input plus a multiple of the second, as in Inception-ResNet v2 of Keras 3's `keras.applications`.

    Args:
        scale: What the second is multiplied by.
        **options: See `keras.layers.Layer`.
    """

    def __init__(self, scale: float, **options: object) -> None:
        super().__init__(**options)
        self.scale = scale

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes the outputs."""
        return inputs[0] + inputs[1] * self.scale

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "scale": self.scale}


ADDED: dict[str, type[Layer]] = {one.__name__: one for one in (RMSNormalization, LayerScale, CustomScaleLayer)}
"""Name -> class. Classes that users registered under such a name come first."""
for _name, _kind in ADDED.items():
    keras.utils.get_custom_objects().setdefault(_name, _kind)
