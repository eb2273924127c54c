"""Encodings against small decoders written here from the format's description."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.tflite.encoders import Encoded, _code_tree, _codes, encode_huffman, encode_lookup_table, encode_pruning

RANDOM = np.random.default_rng(0)
TENSORS = {
    "two values": RANDOM.choice(np.array([-3, 5], np.int8), (4, 3, 3, 2)),
    "one value": np.full((2, 5), 7, np.int8),
    "all zero": np.zeros((3, 4), np.int8),
    "grid": RANDOM.integers(-7, 8, (6, 30)).astype(np.int8),
    "sparse": (RANDOM.integers(-7, 8, (5, 3, 3, 4)) * (RANDOM.random((5, 3, 3, 4)) < 0.2)).astype(np.int8),
    "full range": RANDOM.integers(-128, 128, (8, 400)).astype(np.int8),
    "peaked": np.clip(np.rint(RANDOM.laplace(0, 6, (8, 900))), -127, 127).astype(np.int8),
}


def _header(encoded: Encoded) -> list[int]:
    header = encoded.ancillary[:16].tolist()
    assert header[1:4] == [1, 0, 0]
    return header


def _decode_huffman(encoded: Encoded, count: int) -> list[int]:
    header = _header(encoded)
    assert (header[0], header[4]) == (1, 1)
    width, tables = (header[5] >> 4) + 1, encoded.ancillary[16:].view("<u2").tolist()
    assert encoded.data.size % 4 == 0
    bits = np.unpackbits(encoded.data).tolist()
    symbols, position = [], 0
    for _ in range(count):
        place, wide = 0, width
        while True:
            index = int("".join(map(str, bits[position : position + wide])), 2)
            entry = tables[place + index]
            if entry & 0x8000:
                position += entry >> 11 & 15
                symbols.append((entry & 0xFF ^ 0x80) - 0x80)
                break
            position += wide
            place, wide = place + index + (entry & 0x7FF), (entry >> 11) + 1
    assert position <= len(bits) - 32  # the decoder reads ahead
    return symbols


def _decode_table(encoded: Encoded, shape: tuple[int, ...]) -> np.ndarray:
    header = _header(encoded)
    assert (header[0], header[4]) == (0, 1)
    axis, bits, stride = header[5] >> 4, header[5] & 7, header[6]
    values = encoded.ancillary[16:].view(np.int8).reshape(-1, stride)
    raw = np.unpackbits(encoded.data)[: int(np.prod(shape)) * bits].reshape(-1, bits)
    indices = (raw @ (1 << np.arange(bits - 1, -1, -1))).reshape(shape)
    channels = np.zeros(shape, int) if axis == 15 else np.indices(shape)[axis]
    return values[channels, indices]


@pytest.mark.parametrize("weights", TENSORS.values(), ids=TENSORS)
def test_huffman(weights):
    encoded = encode_huffman(weights)
    assert _decode_huffman(encoded, weights.size) == weights.ravel().tolist()


def test_huffman_is_as_short_as_its_entropy_allows():
    weights = TENSORS["peaked"]
    counts = np.unique(weights, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    assert entropy <= encode_huffman(weights).data.size <= 1.02 * entropy + 8


def test_huffman_codes_longer_than_the_decoder_takes_are_refused():
    counts = [1, 1]
    while len(counts) < 33:  # Fibonacci counts make the longest codes
        counts.append(counts[-1] + counts[-2])
    codes = _codes(_code_tree(np.arange(33), np.array(counts)))
    assert max(length for _, length in codes.values()) == 32
    assert encode_huffman(np.repeat(np.arange(33, dtype=np.int8), counts)) is None


@pytest.mark.parametrize("name", ["two values", "one value", "all zero", "grid", "sparse"])
@pytest.mark.parametrize("axis", [None, 0, "last"])
def test_lookup_table(name, axis):
    weights = TENSORS[name]
    axis = weights.ndim - 1 if axis == "last" else axis
    np.testing.assert_array_equal(_decode_table(encode_lookup_table(weights, axis), weights.shape), weights)


def test_a_table_of_more_than_128_values_is_refused():
    assert encode_lookup_table(TENSORS["full range"], None) is None


@pytest.mark.parametrize("weights", TENSORS.values(), ids=TENSORS)
def test_pruning(weights):
    encoded = encode_pruning(weights)
    assert _header(encoded)[0] == 2
    decoded = np.unpackbits(encoded.data)[: weights.size].astype(np.int8)
    decoded[decoded != 0] = encoded.ancillary[16:].view(np.int8)
    np.testing.assert_array_equal(decoded.reshape(weights.shape), weights)
