from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import layers, tf
from keras_xaic.quantization import CodebookQuantizer


class Host(layers.Layer):
    """Holds a quantizer's variables."""


def weights(seed=0, shape=(30, 8)):
    return np.random.default_rng(seed).laplace(0, 0.1, shape).astype(np.float32)


def built(quantizer, kernel):
    return quantizer, quantizer.build(tf.TensorShape(kernel.shape), "kernel", Host())


@pytest.mark.parametrize("axes", [(), (1,)])
@pytest.mark.parametrize("bits", [2, 4])
def test_every_weight_takes_the_nearest_level_of_the_codebook(bits, axes):
    kernel = weights()
    quantizer, variables = built(CodebookQuantizer.fit(kernel, bits, axes), kernel)
    frozen = quantizer.freeze(kernel)
    np.testing.assert_array_equal(quantizer(tf.constant(kernel), True, variables), frozen.values)
    assert len(frozen.codebook) <= 2**bits
    distance = np.abs(kernel[..., None] / quantizer.scale[..., None] - frozen.codebook.astype(float))
    np.testing.assert_array_equal(frozen.integers, frozen.codebook[distance.argmin(axis=-1)])


def test_masked_weights_are_zero_and_do_not_shape_the_codebook():
    kernel = weights(1)
    mask = np.random.default_rng(2).random(kernel.shape) < 0.5
    kernel = np.where(mask, kernel, 0.03).astype(np.float32)
    quantizer, _ = built(CodebookQuantizer.fit(kernel, 3, (), mask), kernel)
    frozen = quantizer.freeze(kernel)
    assert not frozen.integers[~mask].any()
    other, _ = built(CodebookQuantizer.fit(np.where(mask, kernel, 0.05).astype(np.float32), 3, (), mask), kernel)
    np.testing.assert_array_equal(frozen.codebook, other.freeze(kernel).codebook)


def test_gradients_are_sums_over_members():
    kernel = weights(3)
    quantizer = CodebookQuantizer.fit(kernel, 3, (1,))
    distance = np.abs(kernel[..., None] / quantizer.scale[..., None] - quantizer.levels.astype(float))
    members = distance.argmin(axis=-1)
    quantizer, variables = built(quantizer, kernel)
    seed = np.random.default_rng(5).normal(size=kernel.shape)
    w = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantizer(w, True, variables) * tf.constant(seed, tf.float32))
    by_weight, by_shift = tape.gradient(loss, [w, variables["shift"]])
    np.testing.assert_allclose(by_weight, seed, rtol=1e-6)

    def surrogate(shift):  # the centroids themselves, members fixed, without rounding
        centroids = quantizer.levels + shift / quantizer.scale.mean()
        return float((centroids[members] * quantizer.scale * seed).sum())

    inner = [i for i, level in enumerate(quantizer.levels) if level and abs(level) < 127]
    for place in inner:
        moved = np.zeros(len(quantizer.levels))
        moved[place] = 1e-5
        difference = (surrogate(moved) - surrogate(-moved)) / 2e-5
        assert by_shift.numpy()[place] == pytest.approx(difference, rel=1e-3, abs=1e-5)
    assert by_shift.numpy()[list(quantizer.levels).index(0)] == 0.0


def test_centroids_move_by_training_and_keep_zero_and_int8():
    kernel = weights(6)
    quantizer, variables = built(CodebookQuantizer.fit(kernel, 3, ()), kernel)
    before = quantizer.freeze(kernel).codebook
    variables["shift"].assign(np.full(len(quantizer.levels), 5 * quantizer.scale.item()))
    after = quantizer.freeze(kernel).codebook
    assert 0 in after
    assert after.max() <= 127
    moved = before.astype(int) + 5
    expected = np.where(before == 0, 0, np.where(before > 0, np.minimum(moved, 127), np.minimum(moved, -1)))
    np.testing.assert_array_equal(after, np.unique(expected))
