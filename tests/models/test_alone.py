"""Models that give for a sample what depends on others of its batch, or on chance: no file can."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.given import as_model


def through(*steps):
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6,))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def inner():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.BatchNormalization()], name="inner")
    return lambda x: model(x, training=True)


TRAINING = "is called with training=True.*Make the model without"
BATCH = "gives for a sample what depends on the other samples of a batch, by layer "
WRONG = {
    "normalization": (lambda: lambda x: layers.BatchNormalization(name="norm")(x, training=True), f"layer 'norm' .*{TRAINING}"),
    "by position": (lambda: lambda x: layers.BatchNormalization(name="norm")(x, True), f"layer 'norm' .*{TRAINING}"),
    "dropout": (lambda: lambda x: layers.Dropout(0.5, name="drop")(x, training=True), f"layer 'drop' .*{TRAINING}"),
    "nested": (inner, f"layer 'inner' .*{TRAINING}"),
    "mean": (lambda: lambda x: x - tf.reduce_mean(x, axis=0, keepdims=True), f"{BATCH}'tf.math.reduce_mean"),
    "softmax": (lambda: layers.Softmax(axis=0, name="odd"), f"{BATCH}'odd'"),
    "chance": (lambda: layers.Lambda(lambda x: x + tf.random.normal((6,))), "draws random numbers"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_they_are_refused_by_name_and_stay_as_they_are(kind):
    """Of layers in training mode the file gave other values than `predict`; of others the interpreter was blamed."""
    make, said = WRONG[kind]
    model = through(make())
    before = [one.copy() for one in model.get_weights()]
    with pytest.raises(ModelError, match=said):
        as_model(model)
    assert all(map(np.array_equal, before, model.get_weights()))


RIGHT = {
    "frozen": lambda x: layers.BatchNormalization(trainable=False)(x, training=True),
    "no dropout": lambda x: layers.Dropout(0.0)(x, training=True),
    "training off": lambda x: layers.BatchNormalization()(x, training=False),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_training_mode_does_not_change_is_taken(kind):
    model = through(RIGHT[kind])
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_allclose(as_model(model)(x), model(x), atol=1e-6)
