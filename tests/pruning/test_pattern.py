from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xaic._keras import tf
from keras_xaic.pruning import pattern_mask

SHAPES = st.sampled_from([(5, 3), (8, 4), (3, 3, 2, 5), (4, 3, 7)])


def columns(array):
    return np.asarray(array).reshape(-1, array.shape[-1])


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.floats(0.0, 0.95), st.integers(0, 1000))
def test_the_lowest_single_weights_go(shape, sparsity, seed):
    scores = np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)
    mask = pattern_mask(tf.constant(scores), sparsity).numpy()
    kept = max(1, int(np.rint(np.float32(scores.size) * np.float32(1 - sparsity))))
    assert mask.sum() == kept
    assert (mask == (scores >= scores.size - kept)).all()


def test_equal_scores_do_not_change_how_many_go():
    assert pattern_mask(tf.zeros((10, 10)), 0.73).numpy().sum() == 27


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from([(1, 2), (2, 4), (3, 4)]), st.integers(0, 1000))
def test_of_every_m_weights_of_a_channel_the_n_lowest_go(shape, pattern, seed):
    zeros, group = pattern
    scores = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    mask = columns(pattern_mask(tf.constant(scores), 0.5, f"{zeros}:{group}").numpy())
    for column, values in zip(mask.T, columns(scores).T):
        for start in range(0, len(values) - group + 1, group):
            part = values[start : start + group]
            expected = np.sort(np.argsort(part)[zeros:])
            assert np.flatnonzero(column[start : start + group]).tolist() == expected.tolist()


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from([(2, 2), (4, 1), (1, 3)]), st.floats(0.1, 0.9), st.integers(0, 1000))
def test_blocks_go_together_the_lowest_mean_first(shape, block, sparsity, seed):
    height, width = block
    scores = np.random.default_rng(seed).random(shape).astype(np.float32)
    mask, rows = columns(pattern_mask(tf.constant(scores), sparsity, f"{height}x{width}").numpy()), columns(scores)
    means = {}
    for top in range(0, rows.shape[0], height):
        for left in range(0, rows.shape[1], width):
            inside = mask[top : top + height, left : left + width]
            assert inside.all() or not inside.any()
            means[float(rows[top : top + height, left : left + width].mean())] = bool(inside.all())
    kept = [mean for mean, stays in means.items() if stays]
    gone = [mean for mean, stays in means.items() if not stays]
    assert len(kept) == max(1, round(len(means) * (1 - sparsity) - 1e-9)) or abs(len(kept) - len(means) * (1 - sparsity)) <= 0.5
    assert not gone or max(gone) <= min(kept) + 1e-6


@pytest.mark.parametrize("pattern", ["unstructured", "2x2"])
def test_something_always_stays(pattern):
    assert pattern_mask(tf.ones((4, 4)), 0.999, pattern).numpy().any()
