from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.errors import ExportError
from keras_xaic.tflite.flatbuffer import (
    TensorType,
    constant,
    load,
    operators,
    pack,
    pack_bits,
    require_version,
    set_constant,
    unpack_bits,
)
from tests.tflite.models import inputs_of, run


def test_packed_values_begin_in_the_lowest_bits():
    assert pack_bits(np.array([1, -1, 7]), 4).tolist() == [0xF1, 0x07]
    assert unpack_bits(np.array([0xF1, 0x07], np.uint8), 3, 4).tolist() == [1, -1, 7]
    assert pack_bits(np.array([1, -1, 0, -2, 1]), 2).tolist() == [0b10_00_11_01, 0b01]
    assert unpack_bits(np.array([0b10_00_11_01, 0b01], np.uint8), 5, 2).tolist() == [1, -1, 0, -2, 1]


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 15, 16])
def test_packed_values_come_back(count, bits):
    values = np.resize(np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)), count)
    packed = pack_bits(values, bits)
    assert packed.size == -(-count * bits // 8)
    np.testing.assert_array_equal(unpack_bits(packed, count, bits), values)


@pytest.mark.parametrize(("value", "bits"), [(8, 4), (-9, 4), (2, 2), (-3, 2)])
def test_values_that_do_not_fit_are_refused(value, bits):
    with pytest.raises(ExportError, match=f"do not fit {bits} bits"):
        pack_bits(np.array([value]), bits)


def test_packing_is_lossless_and_stable_and_smaller(twins):
    for content in (twins.int8, twins.float32):
        packed = pack(load(content))
        assert packed == pack(load(packed))
        assert len(packed) <= len(content)
        samples = inputs_of(twins.small.model, 4)
        for before, after in zip(run(content, samples), run(packed, samples)):
            np.testing.assert_array_equal(before, after)


def test_constants_start_on_16_bytes(digits):
    content = pack(load(digits.int8))
    large = [one.data for one in load(content).buffers if one.data is not None and len(one.data) >= 32]
    assert len(large) > 4
    for data in large:
        assert content.index(data.tobytes()) % 16 == 0


def test_equal_vectors_are_written_once(digits):
    model = load(digits.float32)
    size = len(pack(model))
    marker = np.arange(40, 240, dtype=np.uint8)
    for _ in range(5):
        model.buffers.append(type(model.buffers[0])())
        model.buffers[-1].data = marker
    content = pack(model)
    assert content.count(marker.tobytes()) == 1
    assert len(content) < size + 300
    assert all(np.array_equal(buffer.data, marker) for buffer in load(content).buffers[-5:])


def test_set_constant_leaves_other_tensors_alone(digits):
    model = load(digits.float32)
    graph = model.subgraphs[0]
    first, second = [t for t in graph.tensors if constant(model, t) is not None and t.type == TensorType.FLOAT32][:2]
    second.buffer, second.shape = first.buffer, first.shape
    before = constant(model, first).copy()
    set_constant(model, second, before + 1, TensorType.FLOAT32)
    np.testing.assert_array_equal(constant(model, first), before)
    np.testing.assert_array_equal(constant(model, second), before + 1)


def test_a_short_buffer_is_refused(digits):
    model = load(digits.int8)
    convolution = next(operator for operator in operators(model) if operator.kind == "CONV_2D")
    weights = convolution.input(1)
    model.buffers[weights.buffer].data = model.buffers[weights.buffer].data[:-1]
    with pytest.raises(ExportError, match="is stored in"):
        constant(model, weights)


def test_versions_only_rise(digits):
    model = load(digits.int8)
    operator = next(iter(operators(model)))
    code = model.operatorCodes[operator.record.opcodeIndex]
    require_version(operator, 7)
    require_version(operator, 2)
    assert code.version == 7


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x1c\x00\x00\x00TFL3", b"\xff\xff\xff\x7fTFL3" + bytes(64)])
def test_other_files_are_refused(content):
    with pytest.raises(ExportError):
        load(content)
