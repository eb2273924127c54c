"""Conditions, numbers of rows and other whole numbers among the values of a model: relevance passes them by."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError

RULES = ("lrp.epsilon", "lrp.z_plus", "deeplift.rescale", "gradient_x_input", "taylor", "integrated_gradients")


def one_hot(x):
    rows = tf.one_hot(tf.cast(tf.abs(x[:, 0]), "int32"), 3)
    return tf.concat([rows, x[:, 1:]], 1)


def chosen(x):
    return tf.where(tf.logical_and(x > 0.0, x < 2.0), x, 0.1 * x)


def masked(x):
    return x * tf.cast(x > 0.0, "float32")


def largest(x):
    return tf.math.top_k(x, 2).values


def nearest(x):
    return tf.cast(tf.argmax(x, axis=-1), "float32")[:, None] + x


def at_places(x):
    return tf.gather(x, tf.constant([2, 0]), axis=1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("function", [one_hot, chosen, masked, largest, nearest, at_places])
def test_values_among_whole_numbers(function, rule):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="out")(function(layers.Dense(4, activation="relu", name="in")(inputs))))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    relevance = xaic.attribute(model, x, np.arange(16) % 3, rule=rule, allow_approximate=True)
    assert all(np.isfinite(scores).all() for scores in relevance.weights.values())
    assert np.abs(relevance.weights["in"]).max() > 0


@pytest.mark.parametrize("rule", RULES)
def test_inputs_that_are_whole_numbers(rule):
    keras.utils.set_random_seed(1)
    numbers, values = keras.Input((1,), dtype="int32", name="numbers"), keras.Input((3,), name="values")
    joined = tf.concat([tf.one_hot(numbers[:, 0], 5), tf.cast(numbers, "float32") / 5.0, values], 1)
    model = keras.Model([numbers, values], layers.Dense(2, name="out")(layers.Dense(4, activation="relu", name="in")(joined)))
    random = np.random.default_rng(0)
    x = {"numbers": random.integers(0, 5, (16, 1)), "values": random.normal(size=(16, 3)).astype(np.float32)}
    relevance = xaic.attribute(model, x, np.arange(16) % 2, rule=rule, allow_approximate=True)
    assert np.isfinite(relevance.weights["in"]).all()
    assert np.abs(relevance.weights["in"]).max() > 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_inputs_of_other_floats(dtype, rule):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), dtype=dtype)
    model = keras.Model(inputs, layers.Dense(2, name="out")(layers.Dense(4, "relu", name="in")(inputs)))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(dtype)
    assert np.abs(xaic.attribute(model, x, np.arange(16) % 2, rule=rule).weights["in"]).max() > 0


@pytest.mark.parametrize("decides", [lambda p: tf.argmax(p, -1), lambda p: p > 0.5, lambda p: tf.math.top_k(p, 2).indices])
def test_outputs_that_are_no_floats_are_refused(decides):
    inputs = keras.Input((4,))
    found = layers.Dense(3, "softmax")(inputs)
    with pytest.raises(ModelError, match=r"output 1 \('.+'\) .* gives no floats \(\w+\)\. .* Give the model without"):
        xaic.attribute(keras.Model(inputs, [found, decides(found)]), np.zeros((4, 4)), target="predicted")
