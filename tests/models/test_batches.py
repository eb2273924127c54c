"""Models that fix the size of their batches take batches of any size."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.given import as_model

X = np.random.default_rng(0).normal(size=(16, 6, 4)).astype(np.float32)
NAMED = {
    "nowhere": lambda t: layers.Flatten()(t),
    "in a shape": lambda t: tf.reshape(t, (8, 24)),
    "with a free size": lambda t: tf.reshape(t, (8, -1)),
    "by its multiple": lambda t: layers.Flatten()(tf.reshape(tf.reshape(t, (16, 3, 4)), [8, 6, 4])),
}


def made(flat):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(8, 6, 4))
    hidden = flat(layers.Conv1D(4, 3, padding="same", activation="relu", name="conv")(inputs))
    return keras.Model(inputs, {"found": layers.Dense(3, name="head")(hidden)})


@pytest.mark.parametrize("kind", NAMED)
def test_batches_of_any_size_give_what_those_of_the_fixed_one_give(kind):
    model = made(NAMED[kind])
    free = as_model(model)
    assert free.input_shape == (None, 6, 4)
    assert [layer.name for layer in free.layers if layer.weights] == ["conv", "head"]
    expected = np.concatenate([model(X[:8])["found"], model(X[8:])["found"]])
    np.testing.assert_allclose(free(X[:11])["found"], expected[:11], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "flat",
    [
        lambda t: layers.Flatten()(tf.concat([t, tf.ones((8, 6, 1))], -1)),
        lambda t: tf.reshape(tf.reshape(tf.transpose(t, (1, 0, 2)), (6, 32)), (8, 24)),
        lambda t: layers.Flatten()(t - tf.reduce_mean(t, 0, keepdims=True)),
    ],
)
def test_what_needs_its_own_size_is_refused(flat):
    with pytest.raises(ModelError, match=r"needs batches of 8 samples \(.+\)\. Expected .*\. Give its inputs no batch size"):
        as_model(made(flat))


def test_a_model_for_batches_of_any_size_is_left_as_it_is():
    model = keras.Sequential([keras.Input((6, 4)), layers.Flatten(), layers.Dense(2)])
    assert as_model(model) is model
