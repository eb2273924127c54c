"""Whole numbers that become rows of zeros and ones, as people prepare columns of a table: as Keras does it, in the file too."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ExportError
from keras_xaic.tflite.convert import float_twin
from keras_xaic.tflite.one_hot import as_one_hot

NUMBERS = np.array([[1, 3, 3], [0, 2, 1], [4, 4, 4]])


@pytest.mark.parametrize(
    ("layer", "given"),
    [
        (layers.CategoryEncoding(5, "one_hot"), NUMBERS[:, :1]),
        (layers.CategoryEncoding(5, "one_hot"), NUMBERS[:, 0]),
        (layers.CategoryEncoding(5, "multi_hot"), NUMBERS),
        (layers.CategoryEncoding(5, "count"), NUMBERS),
        (layers.Discretization([0.5, 2.0, 3.5]), NUMBERS.astype(np.float32)),
        (layers.Discretization([0.5, 2.0], output_mode="one_hot"), NUMBERS[:, :1].astype(np.float32)),
        (layers.Discretization([0.5, 2.0], output_mode="multi_hot"), NUMBERS.astype(np.float32)),
        (layers.IntegerLookup(vocabulary=[1, 4, 2]), NUMBERS),
        (layers.IntegerLookup(vocabulary=[1, 4], num_oov_indices=3), NUMBERS),
        (layers.IntegerLookup(vocabulary=[1, 4], mask_token=3), NUMBERS),
        (layers.IntegerLookup(vocabulary=[0, 1, 2, 3, 4], num_oov_indices=0), NUMBERS),
        (layers.IntegerLookup(vocabulary=[1, 4, 2], output_mode="one_hot"), NUMBERS[:, :1]),
        (layers.IntegerLookup(vocabulary=[1, 4], output_mode="multi_hot", mask_token=3), NUMBERS),
        (layers.IntegerLookup(vocabulary=[1, 4], output_mode="count", num_oov_indices=2), NUMBERS),
        (layers.IntegerLookup(vocabulary=[1, 4], output_mode="count", max_tokens=6, pad_to_max_tokens=True), NUMBERS),
        (layers.IntegerLookup(vocabulary=[1, 2**40]), np.array([[1, 2**40, 2**40 + 1]])),
    ],
)
def test_the_same_as_keras(layer, given):
    expected = np.asarray(layer(given))
    found = np.asarray(as_one_hot(layer)(tf.constant(given)))
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert found.dtype == expected.dtype


def same_in_file(model):
    interpreter = tf.lite.Interpreter(model_content=float_twin(model))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], NUMBERS[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, model.predict(NUMBERS[:1], verbose=0), rtol=1e-5)


def test_weights_are_counted():
    layer, weights = layers.CategoryEncoding(5, "count"), np.array([[0.5, 2.0, 1.0]] * 3, np.float32)
    np.testing.assert_allclose(as_one_hot(layer)(tf.constant(NUMBERS), weights), layer(NUMBERS, weights))


def test_the_file_encodes():
    keras.utils.set_random_seed(0)
    start = keras.Input((3,), dtype="int64")
    model = keras.Model(start, layers.Dense(2)(layers.CategoryEncoding(5, "multi_hot")(start)))
    same_in_file(model)


@pytest.mark.parametrize("mode", ["int", "multi_hot"])
def test_the_file_looks_numbers_up(mode):
    keras.utils.set_random_seed(0)
    start = keras.Input((3,), dtype="int64")
    found = layers.IntegerLookup(vocabulary=[1, 4, 2], output_mode=mode)(start)
    behind = layers.Flatten()(layers.Embedding(4, 2)(found)) if mode == "int" else found
    model = keras.Model(start, layers.Dense(2)(behind))
    same_in_file(model)


def test_an_operator_that_tflite_lacks_is_named_with_its_layer():
    start = keras.Input((3,), dtype="int64")
    hashed = layers.Hashing(7, name="hashed")(start)
    model = keras.Model(start, layers.Dense(2)(layers.Embedding(7, 2)(hashed)[:, 0]))
    with pytest.raises(ExportError, match=r"layer 'hashed' \(Hashing\)"):
        float_twin(model)
