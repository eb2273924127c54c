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
    "shrink": lambda ops, x: ops.hard_shrink(x) + ops.soft_shrink(x) + ops.tanh_shrink(x),
    "celu": lambda ops, x: ops.celu(x),
    "sparse": lambda ops, x: ops.sparse_plus(x) + ops.sparse_sigmoid(x) + ops.squareplus(x),
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
    "slices": lambda ops, x: x[:, 0, ..., 1:2],
    "steps": lambda ops, x: x[..., None, ::2],
    "new axes": lambda ops, x: x[:, 1:2, 0, None, None, :1],
    "an item": lambda ops, x: ops.transpose(x[:, -1], (0, 2, 1))[:, 1],
    "constants first": lambda ops, x: ops.subtract(np.float32([1, 2]), x),
    "arrays": lambda ops, x: ops.arange(4.0)[:, None] * x + ops.convert_to_tensor([[0.5, -1.0]]),
    "stack": lambda ops, x: ops.stack([x[:, 0], x[:, 2]], axis=2),
    "unstack": lambda ops, x: ops.unstack(x, axis=1)[2],
    "split": lambda ops, x: ops.split(x, 2, axis=2)[1],
    "split at": lambda ops, x: ops.split(x, [1, 3], axis=2)[1],
    "swapaxes": lambda ops, x: ops.swapaxes(x, 1, -1),
    "moveaxis": lambda ops, x: ops.moveaxis(x, (-1, 1), (1, 2)),
    "squeeze": lambda ops, x: ops.squeeze(x[:, :1], 1),
    "tile": lambda ops, x: ops.tile(x, [1, 2, 1, 3]),
    "repeat": lambda ops, x: ops.repeat(x, 2, axis=1),
    "roll": lambda ops, x: ops.roll(x, 1, axis=1),
    "flip": lambda ops, x: ops.flip(x, axis=2),
    "pad": lambda ops, x: ops.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=0.5),
    "pad by reflection": lambda ops, x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="reflect"),
    "take": lambda ops, x: ops.take(x, np.array([2, 0]), axis=1),
    "matmul": lambda ops, x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "matmul by an array": lambda ops, x: x @ np.float32([[1, 2, 3], [0, -1, 1]]),
    "einsum": lambda ops, x: ops.einsum("bijc,bkjc->bikj", x, x + 1.0),
    "tensordot": lambda ops, x: ops.tensordot(x, np.float32([[1, 2, 3], [0, -1, 1]]), axes=1),
    "where": lambda ops, x: ops.where(ops.logical_and(x > -0.3, x <= 1.0), x, 0.1),
    "cast": lambda ops, x: ops.cast(x > 0, "float32") * x,
    "half": lambda ops, x: ops.cast(ops.cast(ops.round(x), "float16"), "float32"),
    "one_hot": lambda ops, x: ops.one_hot(ops.argmax(x, axis=-1), 3),
    "norm": lambda ops, x: ops.norm(x, axis=-1, keepdims=True),
    "normalize": lambda ops, x: ops.normalize(x, axis=-1),
    "deviation": lambda ops, x: (x - ops.mean(x, axis=1, keepdims=True)) / (ops.std(x, axis=1, keepdims=True) + 1e-3),
    "variance": lambda ops, x: ops.var(x, axis=(1, 2)) + ops.min(x, axis=(1, 2)) + ops.average(x[:, 0], axis=1),
    "log of a sum": lambda ops, x: ops.logsumexp(x, axis=1) + ops.log_softmax(x, axis=1)[:, 0] + ops.log_sigmoid(x)[:, 0],
    "cumsum": lambda ops, x: ops.cumsum(x, axis=1),
    "power": lambda ops, x: x**2 + ops.power(ops.abs(x) + 0.1, 0.5),
    "whole numbers": lambda ops, x: (x // 0.5) + (x % 0.5) + ops.floor(x) + ops.ceil(x) + ops.sign(x),
    "functions": lambda ops, x: ops.exp(-ops.abs(x)) + ops.log(x * x + 1) + ops.sin(x) + ops.rsqrt(x * x + ops.cos(x) + 2),
    "small differences": lambda ops, x: ops.log1p(x * x) + ops.expm1(-ops.square(x)) + ops.reciprocal(ops.square(x) + 1),
    "resize": lambda ops, x: ops.image.resize(x, (6, 8)),
    "average_pool": lambda ops, x: ops.average_pool(x, 2, strides=1, padding="same"),
    "max_pool": lambda ops, x: ops.max_pool(ops.reshape(x, (-1, 12, 2)), 3),
    "depth_to_space": lambda ops, x: ops.depth_to_space(ops.concatenate([x, x], -1), 2),
    "top_k": lambda ops, x: ops.top_k(x, 1)[0],
    "stop_gradient": lambda ops, x: ops.stop_gradient(ops.copy(x)) + ops.convert_to_tensor(x),
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
    *("hard_shrink", "soft_shrink", "tanh_shrink", "log_sigmoid", "sparse_plus", "sparse_sigmoid", "squareplus"),
)


def same(model, path):
    """Whether the object and both kinds of file compute what Keras 3 computes."""
    x = 4.0 * np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    wanted = outputs(model, x)
    made = [from_keras3(model)]
    for suffix in (".keras", ".h5"):
        model.save(path / f"model{suffix}")
        made.append(load_model(path / f"model{suffix}"))
    made.append(canonicalize(made[0]).model)
    for one in made:
        for output, ours, theirs in zip(model.outputs, outputs(one, x), wanted):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=output.name)
    return made[0]


def outputs(model, x):
    found = model.predict(x, verbose=0)
    return found if isinstance(found, list) else [found]


def test_operations(tmp_path):
    inputs = keras.Input((3, 4, 2))
    ends = [keras.layers.Flatten(name="out_" + name.replace(" ", "_"))(f(keras.ops, inputs)) for name, f in OPERATIONS.items()]
    same(keras.Model(inputs, ends), tmp_path)


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
    with pytest.raises(ModelError, match=r"'sinh' is the operation Sinh of Keras 3.* such as .*Sin"):
        from_keras3(keras.Model(inputs, keras.ops.sinh(inputs)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_activations_without_a_counterpart_or_a_name_are_told_with_their_layer(suffix, tmp_path):
    for activation, said in (("sparsemax", "the activation 'sparsemax' of Keras 3"), (lambda x: 2 * x, r"a lambda.*FILE\.py")):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, activation=activation, name="hidden")])
        model.save(tmp_path / f"model{suffix}")
        with pytest.raises(ModelError, match=f"layer 'hidden' .*{said}"):
            load_model(tmp_path / f"model{suffix}")


def test_an_operation_whose_settings_are_missing_or_unknown_is_named():
    inputs = keras.Input((3,))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(keras.Model(inputs, keras.ops.max(inputs, axis=1)))))
    settings = config["config"]["layers"][-1]["config"]
    assert build_model(config, "m").output_shape == (None,)
    settings["initial"] = 0.5
    with pytest.raises(ModelError, match=r"operation 'max.*' \(Max\) has initial=0.5"):
        build_model(config, "m")
    del settings["initial"]
    call = config["config"]["layers"][-1]["inbound_nodes"][0]
    call["args"].append(2.0)
    with pytest.raises(ModelError, match=r"is called with 2\.0"):
        build_model(config, "m")
    call["args"].pop()
    del settings["axis"]
    with pytest.raises(ModelError, match="does not say its axis"):
        build_model(config, "m")
