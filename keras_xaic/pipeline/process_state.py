"""What a run sets for the whole process while it runs, and gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tensorflow.python.framework import config  # there is no public way to read whether operations are deterministic

from keras_xaic._keras import keras, tf
from keras_xaic.generators import generators_kept


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Sets the seeds of Python, NumPy, Keras and TensorFlow and its op determinism; afterwards all is as it was."""
    was_deterministic = config.is_op_determinism_enabled()
    with generators_kept():
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        try:
            yield
        finally:
            if not was_deterministic:
                config.disable_op_determinism()
