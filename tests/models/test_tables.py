"""Numbers that an embedding has no row for are said before any work, not by TensorFlow in the midst of it."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Parts, Samples
from keras_xaic.errors import DataError
from keras_xaic.models import infer_task
from keras_xaic.relevance.inputs import as_inputs

IDS = np.random.default_rng(0).integers(0, 10, (40, 5))
Y = np.arange(40) % 3


def reader(kind):
    """Returns a model of three classes whose table has ten rows."""
    inputs = keras.Input((5,))
    x = inputs
    if kind == "parts":
        x = layers.Reshape((4,))(inputs[:, 1:])
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4, name="words")(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def changed(row, place, value):
    ids = IDS.copy()
    ids[row, place] = value
    return ids


@pytest.mark.parametrize("kind", ["inputs", "parts"])
@pytest.mark.parametrize("value", [10, -1, 123456])
def test_a_row_that_is_not_there_is_named(kind, value):
    model = reader(kind)
    assert infer_task(model, Data(Samples(IDS, Y))).kind == "classification"
    for part in (Data(Samples(changed(7, 2, value), Y)), Data(Samples(IDS, Y), Samples(changed(7, 2, value), Y))):
        key = "x_train" if part.test is None else "x_test"
        with pytest.raises(DataError, match=rf"{key}\[7\] asks the layer words for row {value}\. Expected .* from 0 to 9"):
            infer_task(model, part)
    with pytest.raises(DataError, match=rf"x\[7\] asks the layer words for row {value}"):
        as_inputs(model, changed(7, 2, value))
    first = Data(Samples(changed(7, 0, value), Y))
    if kind == "parts":  # nothing reads it
        assert infer_task(model, first).kind == "classification"


def test_rows_are_numbers_as_the_model_sees_them():
    model = reader("inputs")
    assert infer_task(model, Data(Samples(IDS + 0.9, Y))).kind == "classification"
    with pytest.raises(DataError, match="for row 18"):
        infer_task(model, Data(Samples(np.full((40, 5), 9), Y, scale=2.0)))


def test_tables_of_one_of_several_inputs_and_behind_weights():
    plain, ids = keras.Input((3,), name="plain"), keras.Input((5,), name="ids")
    x = layers.Flatten()(layers.Embedding(10, 2, name="words")(ids))
    places = layers.Dense(2, activation="relu")(plain)
    y = layers.Flatten()(layers.Embedding(2, 2)(places))
    model = keras.Model([plain, ids], layers.Dense(3, activation="softmax")(layers.Concatenate()([x, y])))
    values = np.full((40, 3), 50.0, np.float32)
    assert infer_task(model, Data(Samples(Parts([values, IDS]), Y))).kind == "classification"
    with pytest.raises(DataError, match=r"\[3\] asks the layer words for row 11"):
        infer_task(model, Data(Samples(Parts([values, changed(3, 1, 11)]), Y)))
