"""The one import of TensorFlow and Keras (Keras 2: ``tf.keras``, or ``tf_keras`` on newer TensorFlow), kept quiet."""

from __future__ import annotations

import importlib
import os
from typing import Any

from keras_xaic.silence import captured_stderr

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the C++ side reads these once, at import
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

with captured_stderr():
    import tensorflow as tf

tf.get_logger().setLevel("ERROR")
try:  # absl repeats every converter message on stderr
    from absl import logging as _absl_logging

    _absl_logging.set_verbosity(_absl_logging.ERROR)
except ImportError:  # pragma: no cover
    pass


def _find_keras() -> Any:
    """Keras 2 lives inside TensorFlow up to 2.15 and in a package of its own after that."""
    if tf.__version__.startswith(("2.14", "2.15")):
        return tf.keras
    return importlib.import_module("tf_keras")


keras: Any = _find_keras()
layers: Any = keras.layers

__all__ = ["keras", "layers", "tf"]
