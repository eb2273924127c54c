from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xaic.tflite.entropy import Coding, RangeEncoder, best_coding, coding_order, encode_weights
from keras_xaic.unpacking import INT8, PRECISION, SCHEMES, Frequencies, RangeDecoder, WeightModel, stored_bytes


def _entropy_bytes(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def _round_trip(values: np.ndarray, coding: Coding) -> int:
    encoder = RangeEncoder()
    encode_weights(encoder, values, coding)
    stream = encoder.finish()
    model = WeightModel(coding.scheme, coding.limit, coding.average, coding.row)
    np.testing.assert_array_equal(np.array(RangeDecoder(stream).weights(model, len(values))) << coding.shift, values)
    return len(stream)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-127, 127), min_size=1, max_size=400),
    st.integers(1, 50),
    st.sampled_from(SCHEMES),
    st.integers(0, 127 * 256),
)
def test_what_was_encoded_comes_back(values, row, scheme, average):
    _round_trip(np.array(values, np.int64), Coding(scheme, 0, 127, average, row))


@pytest.mark.parametrize(
    "values", [np.zeros(1), np.zeros(5000), np.full(3000, 7), np.resize([-7, 7], 4001), np.full(999, -127)]
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_extreme_tensors(values, scheme):
    values = values.astype(np.int64)
    size = _round_trip(values, Coding(scheme, 0, 127, int(256 * np.abs(values).mean()), 10))
    assert size < 800  # one bit a weight, where signs alternate and are not looked at, and what it costs to learn the level


def test_carries_reach_back_through_the_stream():
    random = np.random.default_rng(0)
    encoder, written = RangeEncoder(), []
    for _ in range(20_000):  # symbols at the upper end of the range make long runs of 0xFFFF
        low = (1 << PRECISION) - 1 - int(random.integers(0, 2))
        written.append(low)
        encoder.encode(low, 1)
    decoder, each = RangeDecoder(encoder.finish()), list(range((1 << PRECISION) + 1))
    assert [decoder.symbol(each) for _ in written] == written


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_stream_is_close_to_the_entropy(bits):
    limit = 2 ** (bits - 1) - 1
    values = np.clip(np.rint(np.random.default_rng(0).normal(0, limit / 2.5, 40_000)), -limit, limit).astype(np.int64)
    assert _round_trip(values, best_coding(values, 100)) < 1.01 * _entropy_bytes(values)


def test_contexts_pay_where_weights_have_neighbours():
    random = np.random.default_rng(0)
    loud = np.repeat(random.random((100, 10)) < 0.3, 40, axis=1)  # stretches of large weights among zeros
    values = np.where(loud, np.rint(random.normal(0, 4, loud.shape)), 0).clip(-7, 7).astype(np.int64).ravel()
    assert _round_trip(values, best_coding(values, 400)) < 0.8 * _entropy_bytes(values)


def test_contexts_pay_where_columns_are_alike():
    random = np.random.default_rng(0)
    values = np.rint(random.normal(0, 1, (400, 60)) * random.uniform(0.1, 4, 60)).clip(-7, 7).astype(np.int64).ravel()
    coding = best_coding(values, 60)
    assert coding.scheme == "sizes-sign"
    assert _round_trip(values, coding) < 0.9 * _entropy_bytes(values)


def test_frequencies_begin_as_a_two_sided_geometric_distribution():
    counts = np.array(Frequencies(40, average=512).counts, float)  # mean magnitude 2: each level has 2/3 of the one before
    np.testing.assert_array_equal(counts, counts[::-1])
    np.testing.assert_allclose((counts[41:46] - 1) / (counts[40:45] - 1), 2 / 3, rtol=0.05)
    assert Frequencies(40, average=512).cumulative[-1] == 1 << PRECISION
    assert min(np.diff(Frequencies(127, average=0).cumulative)) > 0  # what never came can still come


@pytest.mark.parametrize("shift", [0, 1, 4])
def test_a_common_power_of_two_is_divided_out(shift):
    values = np.arange(-7, 8, dtype=np.int64) << shift
    coding = best_coding(values, 3)
    assert (coding.shift, coding.limit) == (shift, 7)
    _round_trip(values, coding)


@pytest.mark.parametrize("shape", [(4, 3, 6), (1, 5, 9), (7, 1, 4), (5, 8, 1)])
def test_coding_order_and_back(shape):
    outer, inner, positions = shape
    stored = np.arange(np.prod(shape)).reshape(outer, positions, inner)
    coded = coding_order(stored, shape)
    assert coded.reshape(outer, inner, positions)[0, 0].tolist() == stored[0, :, 0].tolist()
    assert stored_bytes(coded.tolist(), INT8, inner, positions) == stored.astype(np.uint8).tobytes()
