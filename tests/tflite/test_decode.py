from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.decode import compress_for_micro
from keras_xaic.tflite.flatbuffer import load, operators, pack
from keras_xaic.tflite.micro_kit import resolver_calls
from keras_xaic.tflite.slim import slim
from tests.tflite.models import Small, inputs_of, on_grids

tflm = pytest.importorskip("tflite_micro")


def _run(content: bytes, count: int = 8) -> np.ndarray:
    interpreter = tflm.runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
    shape, random, outputs = interpreter.get_input_details(0)["shape"], np.random.default_rng(0), []
    for _ in range(count):
        interpreter.set_input(random.integers(-128, 128, shape).astype(np.int8), 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).copy())
    return np.concatenate(outputs)


def _small(bits: int, keep: float, storage: str) -> Small:
    x = inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(24, 3, activation="relu", name="conv")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depth")(x)
    x = layers.Conv2D(32, 3, activation="relu", name="wide")(x)
    model = keras.Model(inputs, layers.Dense(20, name="dense")(layers.Flatten()(x)))
    small = on_grids(model, bits=bits, storage=storage)
    random = np.random.default_rng(2)
    kernels = {
        key: dataclasses.replace(kernel, integers=kernel.integers * (random.random(kernel.integers.shape) < keep))
        for key, kernel in small.kernels.items()
    }
    for key, kernel in kernels.items():
        layer = model.get_layer(key)
        layer.set_weights([kernel.values, *layer.get_weights()[1:]])
    return Small(model, kernels, small.storages)


@pytest.mark.parametrize(
    ("bits", "keep", "storage", "most"),
    [(8, 1.0, "int8", 1.0), (8, 0.2, "int8", 0.6), (4, 0.2, "int4", 0.8), (3, 1.0, "int8", 0.65), (2, 1.0, "int4", 0.8)],
)
def test_the_same_bits_from_fewer_bytes(bits, keep, storage, most):
    small = _small(bits, keep, storage)
    plain = build_tflite(small, inputs_of(small.model, 20), lookup=False)
    micro = compress_for_micro(plain)
    np.testing.assert_array_equal(_run(micro.content), _run(plain))
    assert len(micro.content) <= most * len(plain)
    assert micro.saved_bytes == len(slim(plain, micro=True)) - len(micro.content)


@pytest.mark.parametrize("name", ["lookup-table", "huffman", "pruning"])
def test_each_encoding_is_decoded_to_the_same_bits(name, monkeypatch):
    from keras_xaic.tflite import decode

    encoders = {
        "lookup-table": decode.encode_lookup_table,
        "huffman": lambda weights, axis: decode.encode_huffman(weights),
        "pruning": lambda weights, axis: decode.encode_pruning(weights),
    }

    def only_one(one):
        record = one.weight_tensor.quantization
        axis = int(record.quantizedDimension) if len(record.scale) > 1 else None
        return encoders[name](one.weights.astype(np.int8), axis)

    monkeypatch.setattr(decode, "_smallest", only_one)
    small = _small(3, 0.2, "int8")
    plain = build_tflite(small, inputs_of(small.model, 20), lookup=False)
    micro = compress_for_micro(plain)
    kinds = {one.kind for one in operators(load(plain))}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= kinds
    assert len(micro.encodings) >= 3
    assert set(micro.encodings.values()) == {name}
    np.testing.assert_array_equal(_run(micro.content), _run(plain))


def test_a_layer_that_is_called_twice_is_stored_once_and_decoded_twice():
    inputs = keras.Input((40,))
    twice = layers.Dense(40, activation="relu", name="twice")
    model = keras.Model(inputs, twice(twice(inputs)))
    small = on_grids(model, bits=2, storage="int8")
    plain = build_tflite(small, inputs_of(model, 20))
    micro = compress_for_micro(plain)
    assert sum(operator.kind == "CUSTOM:TFLM_DECODE" for operator in operators(load(micro.content))) == 2
    assert len(micro.content) < len(plain) - 900
    np.testing.assert_array_equal(_run(micro.content), _run(plain))


def test_decoding_comes_right_before_its_reader():
    small = _small(2, 1.0, "int4")
    content = compress_for_micro(build_tflite(small, inputs_of(small.model, 20), lookup=False)).content
    found = list(operators(load(content)))
    for operator, reader in zip(found, found[1:]):
        if operator.kind == "CUSTOM:TFLM_DECODE":
            assert int(operator.record.outputs[0]) in [int(i) for i in reader.record.inputs]
    assert "AddDecode" in resolver_calls(load(content))


def test_the_memory_limit_is_kept():
    small = _small(2, 1.0, "int4")
    plain = build_tflite(small, inputs_of(small.model, 20), lookup=False)
    sizes = sorted(kernel.integers.size for kernel in small.kernels.values())
    limited = compress_for_micro(plain, largest_decoded=sizes[-2])
    free = compress_for_micro(plain)
    assert limited.decoded_bytes <= sizes[-2] < free.decoded_bytes == sizes[-1]
    assert len(free.content) < len(limited.content)
    untouched = compress_for_micro(plain, largest_decoded=0)
    assert untouched.content == plain
    assert (untouched.encodings, untouched.saved_bytes, untouched.decoded_bytes) == ({}, 0, 0)


def test_operator_codes_in_the_old_field_are_understood(digits):
    model = load(digits.int8)
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode), 0
    old = pack(model)
    np.testing.assert_array_equal(_run(compress_for_micro(old).content), _run(digits.int8))
