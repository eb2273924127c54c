"""Operations and activations of Keras 3, computed by Keras 2; what needs Keras 3 runs where it is installed."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from keras_xaic.errors import ModelError
from keras_xaic.models import canonicalize, load_model
from keras_xaic.models.keras3 import build_model, is_keras3
from keras_xaic.models.keras3_objects import from_keras3, save_keras3

keras = importlib.import_module("keras")
pytestmark = pytest.mark.skipif(not is_keras3(keras.__version__), reason="Keras 3 is not installed")

OPERATIONS = {
    "silu": lambda ops, x: ops.silu(x),
    "gelu": lambda ops, x: ops.gelu(x),
    "exact gelu": lambda ops, x: ops.gelu(x, approximate=False),
    "selu": lambda ops, x: ops.selu(x),
    "elu": lambda ops, x: ops.elu(x, alpha=0.5),
    "leaky_relu": lambda ops, x: ops.leaky_relu(x, negative_slope=0.3),
    "softplus": lambda ops, x: ops.softplus(x),
    "softsign": lambda ops, x: ops.softsign(x),
    "hard_sigmoid": lambda ops, x: ops.hard_sigmoid(x),
    "hard_silu": lambda ops, x: ops.hard_silu(x),
    "hard_tanh": lambda ops, x: ops.hard_tanh(x),
    "softmax": lambda ops, x: ops.softmax(x, axis=-2),
    "mean": lambda ops, x: ops.mean(x, axis=(1, 2), keepdims=True),
    "sum": lambda ops, x: ops.sum(x, axis=-1),
    "max": lambda ops, x: ops.max(x, axis=[1]),
    "clip": lambda ops, x: ops.clip(x, -0.2, 0.3),
    "sqrt": lambda ops, x: ops.sqrt(ops.square(x) + 1.0),
    "reshape": lambda ops, x: ops.reshape(x, (-1, 24)),
    "transpose": lambda ops, x: ops.transpose(x, (0, 3, 1, 2)),
    "expand_dims": lambda ops, x: ops.expand_dims(x, 1),
    "concatenate": lambda ops, x: ops.concatenate([x, -x], axis=2),
    "arithmetic": lambda ops, x: ops.maximum(2.0 * x, x / 3.0) - x,
}
ACTIVATIONS = (
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "relu6",
    "celu",
    "mish",
    "silu",
    "leaky_relu",
    "gelu",
    "elu",
)


def same(model, path):
    """Whether the object and both kinds of file compute what Keras 3 computes."""
    x = 4.0 * np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    wanted = model.predict(x, verbose=0)
    made = [from_keras3(model)]
    for suffix in (".keras", ".h5"):
        model.save(path / f"model{suffix}")
        made.append(load_model(path / f"model{suffix}"))
    made.append(canonicalize(made[0]).model)
    for one in made:
        np.testing.assert_allclose(one.predict(x, verbose=0), wanted, atol=1e-5)
    return made[0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, tmp_path):
    inputs = keras.Input((3, 4, 2))
    x = OPERATIONS[name](keras.ops, inputs)
    same(keras.Model(inputs, keras.layers.Flatten()(x)), tmp_path)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name(name, tmp_path):
    layers = keras.layers
    parts = [layers.Dense(4, activation=name), layers.GRU(3, recurrent_activation=name), layers.Activation(name)]
    same(keras.Sequential([keras.Input((5, 3)), *parts]), tmp_path)


def test_they_go_back_to_keras_3(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, activation="hard_silu"), layers.Dense(3, activation="hard_sigmoid")]
    )
    back = keras.models.load_model(save_keras3(from_keras3(model), tmp_path / "back.keras"))
    assert [one.activation.__name__ for one in back.layers] == ["hard_silu", "hard_sigmoid"]


@pytest.mark.parametrize("inner", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_layers_that_return_all_steps_in_both_directions(inner, tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((5, 3)), layers.Bidirectional(getattr(layers, inner)(4, return_sequences=True))])
    same(model, tmp_path)


def test_an_operation_without_a_counterpart_is_named():
    inputs = keras.Input((3,))
    with pytest.raises(ModelError, match="'erf' is the operation Erf of Keras 3"):
        from_keras3(keras.Model(inputs, keras.ops.erf(inputs)))


def test_an_operation_whose_settings_are_missing_or_unknown_is_named():
    inputs = keras.Input((3,))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(keras.Model(inputs, keras.ops.max(inputs, axis=1)))))
    settings = config["config"]["layers"][-1]["config"]
    assert build_model(config, "m").output_shape == (None,)
    settings["initial"] = 0.5
    with pytest.raises(ModelError, match=r"operation 'max.*' \(Max\) has initial=0.5"):
        build_model(config, "m")
    del settings["axis"]
    with pytest.raises(ModelError, match="does not say its axis"):
        build_model(config, "m")
