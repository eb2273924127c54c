"""The random generators of the whole process: those of Python, NumPy, TensorFlow and Keras."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator

import numpy as np
from tensorflow.python.eager import context  # there is no public way to read what it draws seeds from

from keras_xaic._keras import keras

_KERAS = sys.modules[keras.backend.clear_session.__module__]._SEED_GENERATOR
"""Where Keras keeps the generator that `keras.utils.set_random_seed` makes; initializers and dropout draw seeds from it."""


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Has all of them continue afterwards where they were.

    TensorFlow draws a seed for every random operation from a generator that begins again whenever the global seed is set.
    """
    states, seed = (random.getstate(), np.random.get_state()), context.global_seed()
    drawn = getattr(context.context(), "_rng", None)  # a context that has not worked yet has none
    tensorflow, own = None if drawn is None else drawn.getstate(), getattr(_KERAS, "generator", None)
    kept = None if own is None else own.getstate()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        context.set_global_seed(seed)
        if tensorflow is not None:
            context.context()._rng.setstate(tensorflow)
        _KERAS.generator = own
        if own is not None:
            own.setstate(kept)
