"""Inputs and outputs of a file are in the order of the model, whatever the converter sorts by."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.convert import float_twin
from keras_xaic.tflite.flatbuffer import load
from keras_xaic.tflite.io_types import with_io


def run(content, arrays):
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), arrays):
        interpreter.set_tensor(detail["index"], array[:1])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize("loop", [False, True])
def test_twelve_of_one_shape_are_not_mixed_up(loop):
    """Names fall where numbers rise; with a loop, the converter reads a SavedModel, which keeps no order."""
    keras.utils.set_random_seed(0)
    shape = (200, 2) if loop else (3,)
    inputs = [keras.Input(shape, name=f"in{12 - number}") for number in range(12)]
    outputs = []
    for number, one in enumerate(inputs):
        flat = layers.GlobalAveragePooling1D()(one) if loop else one
        is_loop = loop and number == 5
        outputs.append(layers.SimpleRNN(2, name="loop")(one) if is_loop else layers.Dense(2, name=f"out{12 - number}")(flat))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, *shape)).astype(np.float32) for _ in inputs]
    found = run(float_twin(model), arrays)
    assert len(found) == 12
    for given, expected in zip(found, model([array[:1] for array in arrays])):
        np.testing.assert_allclose(given, expected, atol=1e-5)


def test_the_same_tensor_twice_and_an_input_as_an_output():
    keras.utils.set_random_seed(0)
    second, first = keras.Input((3,), name="second"), keras.Input((3,), name="first")
    hidden = layers.Dense(3, name="hidden")(first)
    model = keras.Model([second, first], [hidden, layers.Add()([hidden, second]), hidden])
    arrays = [np.random.default_rng(number).normal(size=(64, 3)).astype(np.float32) for number in range(2)]
    expected = [one.numpy() for one in model([array[:1] for array in arrays])]
    for content, limit in ((float_twin(model), 1e-5), (with_io(build_tflite(model, arrays), "float32"), 0.1)):
        found = run(content, arrays)
        assert len(found) == 3
        for given, one in zip(found, expected):
            np.testing.assert_allclose(given, one, atol=limit)


def test_a_file_with_one_input_and_output_has_no_names():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    assert load(build_tflite(model, x)).signatureDefs in (None, [])
