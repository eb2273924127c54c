"""The one import of TensorFlow and Keras (Keras 2: ``tf.keras``, or ``tf_keras`` on newer TensorFlow), kept quiet."""

from __future__ import annotations

import importlib
import os
import resource
from typing import TYPE_CHECKING, Any

from keras_xaic.errors import MachineError
from keras_xaic.silence import captured_stderr
from keras_xaic.strided_gradients import use_safe_gradients

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the C++ side reads these once, at import
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

LEAST_ADDRESS_SPACE = 2_500_000_000
"""Bytes; where a process may have less (``ulimit -v``) TensorFlow 2.14 aborts in the middle of work, without a word."""


def _check_address_space() -> None:
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed != resource.RLIM_INFINITY and allowed < LEAST_ADDRESS_SPACE:
        found = f"this process may use {allowed / 1e9:.2g} GB of address space (ulimit -v)"
        raise MachineError(found, f"at least {LEAST_ADDRESS_SPACE / 1e9:.2g} GB", "Raise the limit: ulimit -v unlimited")


_check_address_space()
with captured_stderr():
    import tensorflow as tf

tf.get_logger().setLevel("ERROR")
use_safe_gradients(tf)
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

if TYPE_CHECKING:  # neither library has types: these say what comes, and keep a layer from passing as a tensor

    class Layer:
        """A Keras layer (``keras.layers.Layer``)."""

        @classmethod
        def from_config(cls, config: object) -> Any: ...
        def __call__(self, *inputs: object, **options: object) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: object) -> None: ...

    class Model(Layer):
        """A Keras model (``keras.Model``); it is a layer, too."""

    class Tensor:
        """A TensorFlow tensor (``tf.Tensor``), of a graph or with values."""

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: object) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __add__(self, other: object) -> Tensor: ...
        def __radd__(self, other: object) -> Tensor: ...
        def __sub__(self, other: object) -> Tensor: ...
        def __rsub__(self, other: object) -> Tensor: ...
        def __mul__(self, other: object) -> Tensor: ...
        def __rmul__(self, other: object) -> Tensor: ...
        def __truediv__(self, other: object) -> Tensor: ...
        def __rtruediv__(self, other: object) -> Tensor: ...
        def __pow__(self, other: object) -> Tensor: ...
        def __matmul__(self, other: object) -> Tensor: ...
        def __and__(self, other: object) -> Tensor: ...
        def __or__(self, other: object) -> Tensor: ...
        def __eq__(self, other: object) -> Any: ...
        def __lt__(self, other: object) -> Tensor: ...
        def __le__(self, other: object) -> Tensor: ...
        def __gt__(self, other: object) -> Tensor: ...
        def __ge__(self, other: object) -> Tensor: ...

else:
    Layer, Model, Tensor = layers.Layer, keras.Model, tf.Tensor

__all__ = ["Layer", "Model", "Tensor", "keras", "layers", "tf"]
