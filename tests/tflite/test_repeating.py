"""A vector that is repeated over time needs no operator that microcontrollers lack."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.tflite.convert import float_twin
from keras_xaic.tflite.flatbuffer import load, operators
from keras_xaic.tflite.repeating import MOST, as_joined


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 23, 100, 577])
def test_the_same_as_keras(count):
    layer, given = layers.RepeatVector(count), tf.constant([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(as_joined(layer)(given), layer(given))


def test_the_file_of_an_auto_encoder_joins():
    start = keras.Input((5,))
    model = keras.Model(start, layers.Conv1D(2, 3)(layers.RepeatVector(23)(layers.Dense(4)(start))))
    found = list(operators(load(float_twin(model))))
    assert "TILE" not in {one.kind for one in found}
    assert max(len(one.record.inputs) for one in found if one.kind == "CONCATENATION") <= MOST + 1
