from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.tflite.flatbuffer import load, pack
from keras_xaic.tflite.reading import read_grids
from keras_xaic.tflite.slim import TRANSFORMATIONS, drop_signature, slim
from tests.tflite.models import inputs_of, open_file, run, with_grids


def _files(twins) -> list[bytes]:
    return [twins.int8, twins.float32, with_grids(twins.int8, twins.float32, twins.small.kernels, twins.small.storages)]


@pytest.mark.parametrize("transformation", [drop_signature, *TRANSFORMATIONS], ids=lambda function: function.__name__)
def test_each_transformation_alone_keeps_every_bit(twins, transformation):
    samples = inputs_of(twins.small.model, 4)
    for content in _files(twins):
        model = load(content)
        transformation(model)
        changed = pack(model)
        assert len(changed) <= len(pack(load(content))) + 64  # a table of another form, and alignment
        for before, after in zip(run(content, samples), run(changed, samples)):
            np.testing.assert_array_equal(before, after)


def test_a_slim_file_computes_the_same_bits_and_holds_the_same_weights(twins):
    samples = inputs_of(twins.small.model, 8)
    for content in _files(twins):
        small = slim(content)
        assert len(small) < 0.95 * len(content)
        for before, after in zip(run(content, samples), run(small, samples)):
            np.testing.assert_array_equal(before, after)
        for before, after in zip(read_grids(content), read_grids(small)):
            np.testing.assert_array_equal(before.values, after.values)
            assert before.storage == after.storage


def test_slimming_twice_changes_nothing(twins):
    for content in _files(twins):
        assert slim(slim(content)) == slim(content)


def test_nothing_is_left_of_names_and_metadata(digits):
    small = slim(digits.int8)
    for word in (b"op0000", b"input_0", b"serving_default", b"MLIR", b"min_runtime_version"):
        assert word in digits.int8
        assert word not in small


def test_the_signature_is_kept_on_request(odd):
    interpreter = open_file(slim(odd.int8, signature=True))
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    samples = inputs_of(odd.small.model, 1)
    codes = {
        f"input_{number}": np.clip(np.rint(sample / detail["quantization"][0]) + detail["quantization"][1], -128, 127)
        for number, (sample, detail) in enumerate(zip(samples, interpreter.get_input_details()))
    }
    answer = interpreter.get_signature_runner()(**{name: array.astype(np.int8) for name, array in codes.items()})
    for number, expected in enumerate(run(odd.int8, samples)):
        np.testing.assert_array_equal(answer[f"output_{number}"], expected)


def test_a_file_that_tensorflow_made_itself_gets_smaller(digits):
    from keras_xaic._keras import tf

    content = tf.lite.TFLiteConverter.from_keras_model(digits.small.model).convert()
    samples = inputs_of(digits.small.model, 4)
    small = slim(content)
    assert len(small) < 0.95 * len(content)
    np.testing.assert_array_equal(run(content, samples)[0], run(small, samples)[0])
