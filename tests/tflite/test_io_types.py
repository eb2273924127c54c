"""Files whose inputs and outputs have another type compute the same; programs get what they ask for."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ExportError
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.convert import float_twin
from keras_xaic.tflite.io_types import with_io
from tests.tflite.models import inputs_of, open_file, run


def codes_of(content, arrays):
    """What a file gives for what it takes, as they are: one sample."""
    interpreter = open_file(content)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), arrays):
        interpreter.set_tensor(detail["index"], array[:1])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def details(content, what="inputs"):
    interpreter = open_file(content)
    return interpreter.get_input_details() if what == "inputs" else interpreter.get_output_details()


def test_uint8_codes_are_the_same_numbers_moved_by_128(twins):
    moved = with_io(twins.int8, "uint8")
    shapes = [detail["shape"][1:] for detail in details(twins.int8)]
    rng = np.random.default_rng(0)
    signed = [rng.integers(-128, 128, (1, *shape)).astype(np.int8) for shape in shapes]
    unsigned = [(one.astype(np.int16) + 128).astype(np.uint8) for one in signed]
    for given, expected in zip(codes_of(moved, unsigned), codes_of(twins.int8, signed)):
        assert given.dtype == np.uint8
        np.testing.assert_array_equal(given.astype(np.int16) - 128, expected)
    for new, old in zip(details(moved) + details(moved, "outputs"), details(twins.int8) + details(twins.int8, "outputs")):
        assert new["name"] == old["name"]
        assert new["quantization"] == (old["quantization"][0], old["quantization"][1] + 128)


def test_float32_values_are_those_that_the_codes_mean(twins):
    samples = inputs_of(twins.small.model, 6, seed=3)
    floating = with_io(twins.int8, "float32")
    for given, codes, detail in zip(run(floating, samples), run(twins.int8, samples), details(twins.int8, "outputs")):
        scale, zero = detail["quantization"]
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, (codes.astype(np.float32) - zero) * scale, atol=1.01 * scale)
        assert np.mean(np.abs(given - (codes.astype(np.float32) - zero) * scale) > scale / 2) < 0.1  # ties of rounding


def test_what_is_so_already_stays_as_it_is(twins):
    assert with_io(twins.int8, "int8") == twins.int8
    assert with_io(twins.float32, "float32") == twins.float32
    assert len(with_io(twins.int8, "uint8")) - len(twins.int8) < 1500


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_float_files_have_no_codes(digits, io):
    with pytest.raises(ExportError, match=r"input 0 of model\.tflite has float32 values, not codes of 8 bits.*float32"):
        with_io(float_twin(digits.small.model), io)


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("given", ["uint8", "int8"])
def test_the_bytes_of_images_stay_bytes(given, io):
    inputs = keras.Input((4,), dtype=given)
    model = keras.Model(inputs, layers.Dense(2)(tf.cast(inputs, tf.float32) / 255.0))
    x = np.arange(64).reshape(16, 4).astype(given)
    content = with_io(build_tflite(model, x, precision="int8"), io)
    assert details(content)[0]["dtype"] == np.dtype(given)
    found, wanted = run(content, [x])[0], model.predict(x, verbose=0)
    scale, zero = details(content, "outputs")[0]["quantization"]
    found = found if io == "float32" else (found.astype(np.float32) - zero) * scale
    np.testing.assert_allclose(found, wanted, atol=0.05 * np.abs(wanted).max())
