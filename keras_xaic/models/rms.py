"""A layer of Keras 3 that Keras 2 lacks."""

from __future__ import annotations

from typing import Any

from keras_xaic._keras import Tensor, keras, layers, tf


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


keras.utils.get_custom_objects().setdefault("RMSNormalization", RMSNormalization)
