"""Layers that make rows of zeros and ones of whole numbers, without the operators for counting that TFLite lacks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Optional

from keras_xaic._keras import Layer, Tensor, layers, tf

_LAYERS = (layers.CategoryEncoding, layers.Discretization)


def as_one_hot(layer: Layer) -> Optional[Callable[..., Tensor]]:
    """Returns a function that computes what the layer does with operators that TFLite has; None for all other layers."""
    known = type(layer) in _LAYERS and not getattr(layer, "sparse", False)
    return functools.partial(_encode, layer) if known else None


def _encode(layer: Any, inputs: Tensor, count_weights: Optional[Tensor] = None, **_: object) -> Any:
    if isinstance(layer, layers.Discretization):
        above = tf.cast(inputs, tf.float32)[..., None] >= tf.constant(layer.bin_boundaries, tf.float32)
        numbers, depth = tf.reduce_sum(tf.cast(above, tf.int32), -1), len(layer.bin_boundaries) + 1
        if layer.output_mode == "int":
            return tf.cast(numbers, layer.compute_dtype if tf.as_dtype(layer.compute_dtype).is_integer else tf.int64)
    else:
        numbers, depth = tf.cast(inputs, tf.int32), layer.num_tokens
    rows = tf.one_hot(numbers, depth)
    if count_weights is not None:
        rows *= tf.cast(count_weights, tf.float32)[..., None]
    if numbers.shape.rank == 1 or (layer.output_mode == "one_hot" and numbers.shape[-1] != 1):
        return rows
    return tf.reduce_sum(rows, -2) if layer.output_mode == "count" else tf.reduce_max(rows, -2)
