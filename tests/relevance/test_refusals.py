"""Lambda, custom, unknown: refused by name before any work; or right."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.added_layers import ADDED
from keras_xaic.relevance import Attribution, Relevance, attribute
from keras_xaic.relevance.layer_table import TABLE, as_markdown


def closed(x):
    """What takes no symbolic tensor cannot be taken apart."""
    if not isinstance(x, tf.Tensor):
        raise TypeError(f"{x} is no tensor")
    return x


class Doubled(layers.Layer):
    def call(self, x):
        return 2.0 * closed(x)


class Odd(layers.Conv2D):
    """A subclass may do anything."""

    def call(self, x):
        return super().call(closed(x))


def net(*steps):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 2))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(layers.Flatten()(x)))


def data():
    return np.random.default_rng(0).normal(0, 1, (4, 6, 6, 2)).astype(np.float32), np.array([0, 1, 2, 0])


REFUSED = {
    "lambda": (lambda: layers.Lambda(lambda x: closed(x) * 2, name="mine"), "mine.*Lambda"),
    "custom layer": (lambda: Doubled(name="mine"), "mine.*Doubled"),
    "subclass": (lambda: Odd(3, 3, name="mine"), "mine.*Odd"),
    "custom activation": (lambda: layers.Conv2D(3, 3, activation=tf.math.sin, name="mine"), r"mine.*Activation\(sin\)"),
    "inner softmax": (lambda: layers.Conv2D(3, 3, activation="softmax", name="mine"), r"mine.*softmax"),
    "operator": (lambda: tf.math.sin, r"math\.sin"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_sound_rule_is_refused_by_name(case):
    make, words = REFUSED[case]
    with pytest.raises(ModelError, match=words):
        attribute(net(layers.Conv2D(3, 3, name="conv"), make()), *data())


def test_all_layers_are_named_at_once():
    model = net(
        layers.Lambda(lambda x: closed(x) * 2, name="one"),
        layers.Conv2D(3, 3),
        layers.Lambda(lambda x: closed(x) + 1, name="two"),
    )
    with pytest.raises(ModelError, match=r"2 layers: one \(Lambda\), two \(Lambda\)"):
        attribute(model, *data())


def test_on_request_they_are_linearised_and_marked(tmp_path):
    model = net(layers.Conv2D(3, 3, name="conv", use_bias=False), Doubled(name="mine"))
    relevance = attribute(model, *data(), allow_approximate=True)
    assert relevance.approximate == ("mine",)
    assert Relevance.load(relevance.save(tmp_path / "r")).approximate == ("mine",)
    plain = attribute(net(layers.Conv2D(3, 3, name="conv", use_bias=False)), *data())
    np.testing.assert_allclose(relevance.weights["conv"], plain.weights["conv"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rule", ["deeplift.rescale", "lrp.epsilon"])
@pytest.mark.parametrize("layer", ["LSTM", "MultiHeadAttention"])
def test_each_engine_refuses_what_only_the_other_can(rule, layer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    x = layers.LSTM(3, name="mine")(inputs) if layer == "LSTM" else layers.MultiHeadAttention(2, 2, name="mine")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
    engine = "native" if rule.startswith("deeplift") else "innvestigate"
    with pytest.raises(ModelError, match=f"mine.*{layer}"):
        Attribution(model, rule=rule, engine=engine)
    Attribution(model, rule="lrp.epsilon", engine="native")


def test_squeeze_and_excitation_layers_are_named_as_gates_and_scored_by_deeplift():
    def squeeze(x):
        g = layers.GlobalAveragePooling2D(keepdims=True)(x)
        g = layers.Conv2D(2, 1, activation="relu", name="down")(g)
        return layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid", name="up")(g)])

    model = net(layers.Conv2D(4, 3, name="conv"), squeeze)
    relevance = attribute(model, *data())
    assert relevance.gates == ("down", "up")
    assert not relevance.weights["up"].any()
    assert "gate" in repr(relevance)
    assert attribute(model, *data(), rule="deeplift.rescale").weights["up"].any()


def test_rnn_kernels_under_gradient_rules_are_those_of_keras():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.GRU(3, name="gru"), layers.Dense(2, name="out", activation="softmax")]
    )
    x = np.random.default_rng(0).normal(0, 1, (3, 5, 4)).astype(np.float32)
    y = np.array([0, 1, 1])
    each = []
    for i in range(3):
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(y[i : i + 1], model(x[i : i + 1]))
        kernel = model.get_layer("gru").cell.recurrent_kernel
        each.append((kernel * tape.gradient(loss, kernel)).numpy())
    found = attribute(model, x, y, rule="taylor").weights["gru/recurrent_kernel"]
    np.testing.assert_allclose(found, np.abs(each).mean(0), atol=1e-6)


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_kernels_get_what_the_inputs_get(layer):
    """Without biases, the input's relevance is the row sum of the kernel's, and only candidate columns have any."""
    keras.utils.set_random_seed(0)
    recurrent = getattr(layers, layer)(3, use_bias=False, name="mine")
    model = keras.Sequential([keras.Input((5, 4)), recurrent, layers.Dense(2, name="out", activation="softmax")])
    x = np.random.default_rng(0).normal(0, 1, (3, 5, 4)).astype(np.float32)
    attribution = Attribution(model)
    (inputs,) = attribution.input_relevance(x, target=1)
    kernel = attribution.run(x, target=1, reduce="sum").weights["mine/kernel"]
    np.testing.assert_allclose(kernel.sum(1), inputs.sum((0, 1)), atol=1e-5)
    candidate = {"LSTM": slice(6, 9), "GRU": slice(6, 9), "SimpleRNN": slice(0, 3)}[layer]
    others = np.delete(kernel, np.r_[candidate], axis=1)
    assert kernel[:, candidate].all()
    assert not others.any()


def test_the_documentation_is_the_table():
    written = pathlib.Path(__file__).parents[2] / "docs" / "layers.md"
    assert written.read_text() == as_markdown(), "run python -m keras_xaic.relevance.layer_table > docs/layers.md"


def test_every_layer_of_the_table_exists_and_stands_there_once():
    names = [name for row in TABLE for name in row.names.split()]
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(layers, name) or name in ADDED or "." in name or "(" in name or name in dir(tf), name
