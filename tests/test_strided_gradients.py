"""Shortcuts of residual networks: their gradient is right, and TensorFlow does not overrun its memory for it."""

from __future__ import annotations

import numpy as np

from keras_xaic._keras import tf


def test_gradients_of_strided_1x1_convolutions_are_right_and_do_not_crash():
    random = np.random.default_rng(0)
    kernel = tf.Variable(random.normal(size=(1, 1, 8, 16)).astype(np.float32))
    for padding in ("VALID", "SAME"):
        for _ in range(20):  # the heap is damaged by the first, the process dies a few later
            x = tf.constant(random.normal(size=(3, 16, 16, 8)).astype(np.float32))
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.nn.conv2d(x, kernel, 2, padding)
                total = tf.reduce_sum(y**2)
            toward_input, toward_kernel = tape.gradient(total, [x, kernel])
            upstream = 2 * y.numpy()
            np.testing.assert_allclose(
                toward_kernel[0, 0], np.einsum("bijc,bijo->co", x.numpy()[:, ::2, ::2], upstream), rtol=1e-3, atol=1e-2
            )
            expected = np.zeros(x.shape, np.float32)
            expected[:, ::2, ::2] = np.einsum("bijo,co->bijc", upstream, kernel.numpy()[0, 0])
            np.testing.assert_allclose(toward_input, expected, rtol=1e-3, atol=1e-3)
