from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xaic.tflite.entropy import Coding, RangeEncoder, _contexts, best_coding, coding_order, encode_weights
from keras_xaic.tflite.unpacking import CHANNELS, SCHEMES, WINDOW, RangeDecoder, context_of, decode_weights, stored_order


def _entropy_bytes(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def _round_trip(values: np.ndarray, row: int, coding: Coding) -> int:
    encoder = RangeEncoder()
    encode_weights(encoder, values, row, coding)
    stream = encoder.finish()
    levels = decode_weights(RangeDecoder(stream), len(values), row, coding.scheme, coding.limit)
    np.testing.assert_array_equal(np.array(levels) << coding.shift, values)
    return len(stream)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-127, 127), min_size=1, max_size=400),
    st.integers(1, 50),
    st.sampled_from(SCHEMES),
    st.sampled_from([0, 127]),
)
def test_what_was_encoded_comes_back(values, row, scheme, limit):
    _round_trip(np.array(values, np.int64), row, Coding(scheme, limit, 0))


@pytest.mark.parametrize(
    "values", [np.zeros(1), np.zeros(5000), np.full(3000, 7), np.resize([-7, 7], 4001), np.full(999, -127)]
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_extreme_tensors(values, scheme):
    values = values.astype(np.int64)
    size = _round_trip(values, 10, Coding(scheme, 127, 0))
    assert size < 700


def test_carries_reach_back_through_the_stream():
    random = np.random.default_rng(0)
    encoder, written = RangeEncoder(), []
    for _ in range(20_000):  # symbols at the upper end of the range make long runs of 0xFFFF
        low = (1 << 16) - 1 - int(random.integers(0, 2))
        written.append(low)
        encoder.encode(low, 1)
    decoder = RangeDecoder(encoder.finish())
    assert [decoder.bits(16) for _ in written] == written


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_stream_is_close_to_the_entropy(bits):
    limit = 2 ** (bits - 1) - 1
    values = np.clip(np.rint(np.random.default_rng(0).normal(0, limit / 2.5, 40_000)), -limit, limit).astype(np.int64)
    coding, predicted = best_coding(values, 100, 7)
    size = _round_trip(values, 100, coding)
    assert size < 1.01 * _entropy_bytes(values)
    assert abs(size - predicted / 8) < 0.01 * size


def test_contexts_pay_where_weights_have_neighbours():
    random = np.random.default_rng(0)
    loud = np.repeat(random.random((100, 10)) < 0.3, 40, axis=1)  # stretches of large weights among zeros
    values = np.where(loud, np.rint(random.normal(0, 4, loud.shape)), 0).clip(-7, 7).astype(np.int64).ravel()
    coding, _ = best_coding(values, 400, 7)
    assert _round_trip(values, 400, coding) < 0.8 * _entropy_bytes(values)


@pytest.mark.parametrize("shift", [0, 1, 4])
def test_a_common_power_of_two_is_divided_out(shift):
    values = np.arange(-7, 8, dtype=np.int64) << shift
    coding, _ = best_coding(values, 3, 127)
    assert coding.shift == shift
    _round_trip(values, 3, coding)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_encoder_and_decoder_agree_on_contexts(scheme):
    row, levels = 6, np.random.default_rng(0).integers(-127, 128, 200).tolist()

    def at(place: int) -> int:
        return levels[place] if place >= 0 else 0

    expected = [
        context_of(
            scheme,
            before=at(i - 1),
            above=at(i - row),
            nearby=sum(abs(at(i - k)) for k in range(1, WINDOW + 1)),
            column=sum(abs(at(i - k * row)) for k in range(1, CHANNELS + 1)),
        )
        for i in range(len(levels))
    ]
    assert _contexts(np.array(levels), row, scheme).tolist() == expected


@pytest.mark.parametrize("shape", [(4, 3, 6), (1, 5, 9), (7, 1, 4), (5, 8, 1)])
def test_coding_order_and_back(shape):
    outer, inner, positions = shape
    stored = np.arange(np.prod(shape)).reshape(outer, positions, inner)
    coded = coding_order(stored, shape)
    assert coded.reshape(outer, inner, positions)[0, 0].tolist() == stored[0, :, 0].tolist()
    assert stored_order(coded.tolist(), *shape) == stored.ravel().tolist()
