"""What a run sets for the whole process while it runs, and gives back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
from tensorflow.python.eager import context  # there is no public way to read these two
from tensorflow.python.framework import config

from keras_xaic._keras import keras, tf


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Sets the seeds of Python, NumPy and Keras and TensorFlow's op determinism, and sets them back afterwards.

    The generators of Python and NumPy continue where they were; TensorFlow's global seed is what it was.
    """
    states, before = (random.getstate(), np.random.get_state()), context.global_seed()
    was_deterministic = config.is_op_determinism_enabled()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        context.set_global_seed(before)
        if not was_deterministic:
            config.disable_op_determinism()
