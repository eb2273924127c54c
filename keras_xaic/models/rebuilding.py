"""Layers made again from their configuration."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
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
            if vars(part).get(_TWICE):
                setattr(part, _TWICE, False)
                vars(part)[_CHANGED] = True
    return made


@contextlib.contextmanager
def drawn_twice(parts: Iterable[Layer]) -> Iterator[None]:
    """Has recurrent layers drawn as Keras does it, for the length of the block: by that the converter knows an LSTM."""
    changed = [part for part in parts if vars(part).get(_CHANGED)]
    for part in changed:
        setattr(part, _TWICE, True)
    try:
        yield
    finally:
        for part in changed:
            setattr(part, _TWICE, False)


_TWICE, _CHANGED = "_could_use_gpu_kernel", "_xaic_drawn_once"


@functools.lru_cache
def _has_graphics_card() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))
