"""Layers made anew from their configuration."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from keras_xaic._keras import Layer, tf


def rebuilt(layer: Layer, config: Mapping[str, Any]) -> Layer:
    """Returns a new layer of the same class.

    Keras draws every LSTM and GRU twice, for processors and for graphics cards, with gradients, which takes seconds. Where
    there is no graphics card, new layers draw what runs. They compute the same.

    Args:
        layer: A layer; it is not changed.
        config: The configuration of the new one.
    """
    made: Layer = type(layer).from_config(dict(config))
    if not _has_graphics_card():
        for part in made._flatten_layers():
            if hasattr(part, _TWICE):
                setattr(part, _TWICE, False)
    return made


_TWICE = "_could_use_gpu_kernel"


@functools.lru_cache
def _has_graphics_card() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))
