"""Layers that repeat a vector over time, as LSTM auto-encoders do, without TILE, which TensorFlow Lite Micro lacks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Optional

from keras_xaic._keras import Layer, Tensor, layers, tf

MOST = 8
"""Tensors that are joined at a time; TensorFlow Lite Micro takes ten."""


def as_joined(layer: Layer) -> Optional[Callable[..., Tensor]]:
    """Returns a function that computes what the layer does by joining copies; None for all other layers."""
    return functools.partial(_repeated, layer.n) if type(layer) is layers.RepeatVector else None


def _repeated(count: int, inputs: Tensor, **_: object) -> Any:
    """Returns (N, count, values)."""
    part = inputs[:, None]
    if count <= MOST:
        return tf.concat([part] * count, 1)
    rest = [_repeated(count % MOST, inputs)] if count % MOST else []
    return tf.concat([*[_repeated(count // MOST, inputs)] * MOST, *rest], 1)
