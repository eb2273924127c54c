"""A layer for ``tf.einsum``: of a call of a function Keras 2 saves the first argument and those with names, no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_xaic._keras import Tensor, keras, layers, tf

SYMBOLS = ("einsum", "linalg.einsum")
"""What Keras calls the function."""


class Einsum(layers.Layer):
    """Sums products of its inputs over the indices that an equation leaves out.

    Args:
        subscripts: The equation, as ``"bij,bjk->bik"``.
        **options: See `keras.layers.Layer`.
    """

    def __init__(self, subscripts: str, **options: object) -> None:
        super().__init__(**options)
        self.subscripts = subscripts

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes the outputs."""
        return tf.einsum(self.subscripts, *tf.nest.flatten(inputs))

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "subscripts": self.subscripts}


keras.utils.get_custom_objects().setdefault("Einsum", Einsum)
