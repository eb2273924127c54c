"""Layers that number or count whole numbers, without the tables and the operators for counting that TFLite lacks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Tensor, layers, tf

_LAYERS = (layers.CategoryEncoding, layers.Discretization, layers.IntegerLookup)
_MODES = ("int", "one_hot", "multi_hot", "count")


def as_one_hot(layer: Layer) -> Optional[Callable[..., Tensor]]:
    """Returns a function that computes what the layer does with operators that TFLite has; None for all other layers."""
    known = type(layer) in _LAYERS and not getattr(layer, "sparse", False) and not getattr(layer, "invert", False)
    known = known and layer.output_mode in _MODES
    return functools.partial(_encode, layer) if known else None


def _encode(layer: Any, inputs: Tensor, count_weights: Optional[Tensor] = None, **_: object) -> Any:
    if isinstance(layer, layers.Discretization):
        above = tf.cast(inputs, tf.float32)[..., None] >= tf.constant(layer.bin_boundaries, tf.float32)
        numbers, depth = tf.reduce_sum(tf.cast(above, tf.int32), -1), len(layer.bin_boundaries) + 1
        if layer.output_mode == "int":
            return tf.cast(numbers, layer.compute_dtype if tf.as_dtype(layer.compute_dtype).is_integer else tf.int64)
    elif isinstance(layer, layers.IntegerLookup):
        numbers = _looked_up(layer, inputs)
        if layer.output_mode == "int":
            return tf.cast(numbers, tf.int64)
        with tf.init_scope():
            depth = layer.max_tokens if layer.pad_to_max_tokens else int(layer.vocabulary_size())
    else:
        numbers, depth = tf.cast(inputs, tf.int32), layer.num_tokens
    rows = tf.one_hot(numbers, depth)
    if count_weights is not None:
        rows *= tf.cast(count_weights, tf.float32)[..., None]
    if numbers.shape.rank == 1 or (layer.output_mode == "one_hot" and numbers.shape[-1] != 1):
        return rows
    return tf.reduce_sum(rows, -2) if layer.output_mode == "count" else tf.reduce_max(rows, -2)


def _looked_up(layer: Any, inputs: Tensor) -> Tensor:
    """Returns the place of every value in the layer's vocabulary, int32, without the table that TFLite lacks."""
    with tf.init_scope():  # the vocabulary is in a table
        words = np.array(layer.get_vocabulary(include_special_tokens=False), np.int64)
    kind = np.int32 if words.size == 0 or np.abs(words).max() <= np.iinfo(np.int32).max else np.int64
    inputs = tf.cast(inputs, kind)
    hits = tf.cast(tf.equal(inputs[..., None], words.astype(kind)), tf.int32)
    known, first = tf.reduce_sum(hits, -1), layer._token_start_index()
    others: Any = layer._default_value
    if layer.num_oov_indices > 1:
        others = layer._oov_start_index() + tf.cast(tf.math.floormod(inputs, layer.num_oov_indices), tf.int32)
    places: Tensor = tf.reduce_sum(hits * tf.range(first, first + len(words)), -1) + (1 - known) * others
    if layer.mask_token is not None:
        masked = tf.cast(tf.equal(inputs, layer.mask_token), tf.int32)
        places = masked * int(layer._mask_value) + (1 - masked) * places
    return places
