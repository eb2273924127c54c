"""Calls of TensorFlow functions that Keras 2 does not save as they are: the clone that is trained and saved has others."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.loading import load_model, save_model
from keras_xaic.tflite.convert import float_twin
from keras_xaic.tflite.flatbuffer import load

FUNCTIONS = {
    "last channels": lambda x: x[..., 1:],
    "in the middle": lambda x: x[:, ..., 0],
    "first": lambda x: x[..., :2, None, ::2],
    "behind an index": lambda x: x[:, 1, ...],
    "nothing left": lambda x: x[:, :, :3, 1, ...],
    "alone": lambda x: x[...],
    "new axes": lambda x: x[:, None, 0, ...],
    "whole quotients": lambda x: x // 0.5,
    "einsum of one": lambda x: tf.einsum("bijc->bjci", x),
    "einsum of two": lambda x: tf.einsum("bijc,bkjc->bikj", x, x + 1.0),
    "einsum of three": lambda x: tf.linalg.einsum("bijc,bkjc,bijc->bkj", x, x + 1.0, x * 2.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_clones_are_saved_and_converted(name, tmp_path):
    inputs = keras.Input((3, 4, 2))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(FUNCTIONS[name](layers.Conv2D(2, 1)(inputs)))))
    x = np.random.default_rng(0).normal(size=(5, 3, 4, 2)).astype(np.float32)
    wanted = model.predict(x, verbose=0)
    clone = canonicalize(model).model
    again = canonicalize(load_model(save_model(clone, tmp_path / "clone.keras"))).model
    for one in (clone, again, keras.models.clone_model(clone)):
        one.set_weights(clone.get_weights())
        np.testing.assert_allclose(one.predict(x, verbose=0), wanted, atol=1e-5)
    assert load(float_twin(again)).subgraphs
