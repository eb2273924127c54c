"""Activation functions of Keras 3 that Keras 2 lacks, or computes otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_xaic._keras import Tensor, keras, tf

PACKAGE = "keras_xaic"
"""What leads the names by which Keras knows them."""
ACTIVATIONS = ("activation", "recurrent_activation")
"""Settings of layers."""
WITHOUT_COUNTERPART = ("glu", "sparsemax", "threshold")
"""Of Keras 3."""
_RENAMED = {"hard_silu": "hard_swish", "celu": "elu"}
"""Other names of the same function: the ``alpha`` of an activation by name is 1."""


def hard_sigmoid(x: Tensor) -> Tensor:
    """Returns ``relu6(x + 3) / 6`` (Howard et al. 2019, arXiv 1905.02244, section 5.2); that of Keras 2 is ``0.2 x + 0.5``."""
    return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def hard_swish(x: Tensor) -> Tensor:
    """Returns ``x relu6(x + 3) / 6`` (Howard et al. 2019, arXiv 1905.02244, section 5.2)."""
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def hard_tanh(x: Tensor) -> Tensor:
    """Returns `x` between -1 and 1, these where it is beyond."""
    return tf.clip_by_value(x, -1.0, 1.0)


def relu6(x: Tensor) -> Tensor:
    """Returns `x` between 0 and 6, these where it is beyond."""
    return tf.nn.relu6(x)


def hard_shrink(x: Tensor) -> Tensor:
    """Returns `x`, 0 where it is between -0.5 and 0.5."""
    return tf.where(tf.abs(x) > 0.5, x, tf.zeros_like(x))


def soft_shrink(x: Tensor) -> Tensor:
    """Returns `x` brought nearer to 0 by 0.5, 0 where it is nearer than that."""
    return x - tf.clip_by_value(x, -0.5, 0.5)


def tanh_shrink(x: Tensor) -> Tensor:
    """Returns ``x - tanh(x)``."""
    return x - tf.tanh(x)


def log_sigmoid(x: Tensor) -> Tensor:
    """Returns the logarithm of ``sigmoid(x)``."""
    return tf.math.log_sigmoid(x)


def sparse_plus(x: Tensor) -> Tensor:
    """Returns 0 up to -1, ``(x + 1)^2 / 4`` from there to 1, and `x` beyond."""
    return tf.square(tf.clip_by_value(x, -1.0, 1.0) + 1.0) * 0.25 + tf.nn.relu(x - 1.0)


def sparse_sigmoid(x: Tensor) -> Tensor:
    """Returns ``(x + 1) / 2`` between 0 and 1, these where it is beyond."""
    return tf.clip_by_value(0.5 * x + 0.5, 0.0, 1.0)


def squareplus(x: Tensor) -> Tensor:
    """Returns ``(x + sqrt(x^2 + 4)) / 2`` (Barron 2021, arXiv 2112.11687, equation 1)."""
    return 0.5 * (x + tf.sqrt(tf.square(x) + 4.0))


_OURS = {}
for _function in (
    *(hard_sigmoid, hard_swish, hard_tanh, relu6, hard_shrink, soft_shrink, tanh_shrink),
    *(log_sigmoid, sparse_plus, sparse_sigmoid, squareplus),
):
    _OURS[_function.__name__] = f"{PACKAGE}>{_function.__name__}"
    keras.utils.register_keras_serializable(PACKAGE)(_function)


TENSORFLOW = {"log_softmax_v2": tf.nn.log_softmax, "crelu_v2": tf.nn.crelu}
"""Functions of TensorFlow that models of Keras 2 have as activations, by the names in their files, which nobody else's have."""


def functions_by_name(config: object) -> Any:
    """Returns a configuration in which functions of the user's own are names, as Keras 2 looks them up.

    What it writes in place of them into ``.h5`` files and SavedModels (2.14) it cannot read back itself.
    """
    if isinstance(config, Mapping):
        if config.get("class_name") == "function" and isinstance(config.get("config"), str):
            return config["config"]
        # A constraint by name is one that Keras makes of a class.
        return {key: part if str(key).endswith("_constraint") else functions_by_name(part) for key, part in config.items()}
    return type(config)(map(functions_by_name, config)) if isinstance(config, (list, tuple)) else config


def of_keras2(name: str) -> str:
    """Returns by which name Keras 2 finds the activation that Keras 3 calls `name`.

    Example:
        >>> of_keras2("hard_silu"), of_keras2("relu")
        ('keras_xaic>hard_swish', 'relu')
    """
    name = _RENAMED.get(name, name)
    return _OURS.get(name, name)


def in_keras2(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a Keras 3 layer, with the names of its activations as Keras 2 finds them."""
    named = {key: of_keras2(value) for key, value in settings.items() if key in ACTIVATIONS and isinstance(value, str)}
    return {**settings, **named}


def in_keras3(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a layer of ours, with the names of its activations as Keras 3 finds them."""

    def renamed(value: Any) -> Any:
        if isinstance(value, Mapping):  # a function that Keras 2 was told of
            value = value.get("config")
        return value.rpartition(">")[2] if isinstance(value, str) and value.startswith(f"{PACKAGE}>") else None

    return {key: (renamed(value) if key in ACTIVATIONS else None) or value for key, value in settings.items()}
