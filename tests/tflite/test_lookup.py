from __future__ import annotations

import numpy as np
import pytest

from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.errors import ExportError
from keras_xaic.settings import FileOptions
from keras_xaic.tflite import (
    build_tflite,
    compress_for_micro,
    export,
    look_up,
    measure_layers,
    pack_download,
    read_grids,
    unpack_download,
)
from keras_xaic.tflite.flatbuffer import TensorType, constant, load, operators
from keras_xaic.tflite.pairing import weight_operators
from tests.tflite.models import Small, inputs_of, on_grids, run


def _model() -> Small:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 16))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(10, activation="relu", name="dense")(x)
    return on_grids(keras.Model(inputs, layers.Dense(4, name="head")(x)), bits=2)


def _files(small: Small) -> tuple[bytes, bytes]:
    samples = inputs_of(small.model, 20)
    return build_tflite(small, samples, lookup=False), build_tflite(small, samples)


@pytest.mark.parametrize("interpreter", ["tflite-runtime", "litert", "tflm"])
def test_every_interpreter_answers_the_same_bits(interpreter, tmp_path):
    if interpreter not in edge.available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    small = _model()
    x = np.random.default_rng(0).integers(-128, 128, (6, 6, 6, 16)).astype(np.int8)
    answers = []
    for name, content in zip(("plain", "looked-up"), _files(small)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        answers.append(edge.run_file(path, x, interpreter=interpreter).outputs[0])
    np.testing.assert_array_equal(*answers)


def test_four_weights_share_a_byte_and_are_read_back():
    small = _model()
    plain, content = _files(small)
    assert [one.storage for one in read_grids(content)] == ["lookup", "lookup", "int4"]
    for before, after in zip(read_grids(plain), read_grids(content)):
        np.testing.assert_array_equal(before.values, after.values)
        assert after.weight_bytes == before.weight_bytes // (2 if after.storage == "lookup" else 1)
    assert len(content) < len(plain) - 2000
    assert [one.storage for one in measure_layers(content, small.model)] == ["lookup", "lookup", "int4"]


def test_the_first_weight_is_the_highest_digit():
    small = _model()
    content = _files(small)[1]
    model = load(content)
    (one, *_) = weight_operators(model)
    assert one.codes.type == TensorType.INT8
    first, codes = one.weights.ravel()[:4].astype(int), constant(model, one.codes)
    assert codes[0] == sum((int(weight) + 1) * 3**power for weight, power in zip(first, (3, 2, 1, 0)))
    assert codes.min() >= 0
    assert codes.max() <= 80


def test_three_share_a_byte_where_their_number_is_no_multiple_of_four():
    odd = _odd()
    plain, content = _files(odd)
    assert read_grids(content)[0].weight_bytes == odd.kernels["conv"].integers.size // 3
    np.testing.assert_array_equal(run(plain, inputs_of(odd.model, 4))[0], run(content, inputs_of(odd.model, 4))[0])


def _odd() -> Small:
    inputs = keras.Input((5, 5, 31))
    return on_grids(keras.Model(inputs, layers.Conv2D(31, 3, padding="same", name="conv")(inputs)), bits=2)


@pytest.mark.parametrize("bits", [3, 4])
def test_more_values_stay_as_they_are(bits):
    small = on_grids(_model().model, bits=bits)
    plain, content = _files(small)
    assert content == plain == look_up(plain)


def test_a_layer_that_is_called_twice_is_stored_once():
    inputs = keras.Input((96,))
    twice = layers.Dense(96, activation="relu", name="twice")
    small = on_grids(keras.Model(inputs, twice(twice(inputs))), bits=2)
    plain, content = _files(small)
    assert [one.storage for one in read_grids(content)] == ["lookup", "lookup"]
    assert len(content) < len(plain) - 1000
    np.testing.assert_array_equal(run(plain, inputs_of(small.model, 4))[0], run(content, inputs_of(small.model, 4))[0])


def test_a_bundle_can_be_had_without(tmp_path):
    small = _model()
    made = [
        export(small, tmp_path / str(way), calibration=inputs_of(small.model, 20), file=FileOptions(lookup=way))
        for way in (True, False)
    ]
    files = [bundle.model.read_bytes() for bundle in made]
    assert files == [*reversed(_files(small))]
    micro = [(bundle.micro / "model.tflite").read_bytes() for bundle in made]
    assert micro[0] == micro[1]
    assert unpack_download(made[0].download.read_bytes()) == files[0]


def test_other_uses_of_the_same_operators_are_no_weights():
    content = _files(_model())[1]
    for spoil in ("code", "axis", "shape"):
        model = load(content)
        (one, *_) = weight_operators(model)
        if spoil == "code":
            model.buffers[one.codes.buffer].data = np.full(len(model.buffers[one.codes.buffer].data), 255, np.uint8)
        elif spoil == "axis":
            next(op for op in operators(model) if op.kind == "GATHER").record.builtinOptions.axis = 1
        else:
            one.weight_tensor.shape = np.array([1, 1, 1, 1], np.int32)
        assert one.weights.shape not in [other.weights.shape for other in weight_operators(model)]


def test_looking_up_twice_changes_nothing():
    content = _files(_model())[1]
    assert look_up(content) == content


def test_the_download_is_hardly_larger_and_comes_back_whole():
    plain, content = _files(_model())
    packed = pack_download(content)
    assert unpack_download(packed) == content
    assert len(packed) < len(pack_download(plain)) + 450  # three operators, a table
    assert len(packed) < 0.9 * len(content)


def test_the_compression_for_micro_wants_weights_that_are_stored():
    plain, content = _files(_model())
    assert len(compress_for_micro(plain).content) < len(plain)
    with pytest.raises(ExportError, match="lookup=False"):
        compress_for_micro(content)
