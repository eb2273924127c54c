"""Shortcuts of residual networks: their gradient is right, and TensorFlow does not overrun its memory for it."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Samples
from keras_xaic.planning.output_divergence import hessian_traces

RANDOM = np.random.default_rng(0)


def values(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_gradients_of_strided_1x1_convolutions_are_right_and_do_not_crash(padding):
    kernel = tf.Variable(values(1, 1, 8, 16))
    for _ in range(20):  # the heap is damaged by the first, the process dies a few later
        x = tf.constant(values(3, 16, 16, 8))
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


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_gradients_of_strided_1x1_transposed_convolutions_are_right_and_do_not_crash(padding):
    kernel = tf.Variable(values(1, 1, 8, 16))
    for _ in range(20):
        x = tf.constant(values(3, 8, 8, 16))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.conv2d_transpose(x, kernel, (3, 16, 16, 8), 2, padding)
            total = tf.reduce_sum(y**2)
        toward_input, toward_kernel = tape.gradient(total, [x, kernel])
        upstream = 2 * y.numpy()[:, ::2, ::2]
        np.testing.assert_allclose(toward_kernel[0, 0], np.einsum("bijo,bijc->oc", upstream, x), rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(toward_input, np.einsum("bijo,oc->bijc", upstream, kernel[0, 0]), rtol=1e-3, atol=1e-3)


def test_gradients_of_strided_1x1_convolutions_with_paddings_of_their_own_are_right():
    x, kernel = values(2, 15, 15, 3), tf.Variable(values(1, 1, 3, 4))
    with tf.GradientTape() as tape:
        y = tf.nn.conv2d(x, kernel, 2, [[0, 0], [1, 0], [1, 0], [0, 0]])
        total = tf.reduce_sum(y**2)
    read = np.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)))[:, ::2, ::2]
    expected = np.einsum("bijc,bijo->co", read, 2 * y.numpy())
    np.testing.assert_allclose(tape.gradient(total, kernel)[0, 0], expected, rtol=1e-3, atol=1e-3)


def test_no_gradient_asks_for_the_kernel_that_overruns_its_memory():
    """Whether the process dies depends on what lies behind that memory; what is asked for does not."""

    @tf.function
    def second(x, kernel, seed):
        with tf.GradientTape() as outer:
            outer.watch([x, kernel, seed])
            with tf.GradientTape() as inner:
                inner.watch([x, kernel])
                y = tf.nn.conv2d(x, kernel, 2, "VALID")
                total = tf.reduce_sum(tf.nn.conv2d_transpose(y**2, kernel, x.shape, 2, "VALID") * seed)
            squares = [tf.reduce_sum(one**2) for one in inner.gradient(total, [x, kernel])]
        return outer.gradient(squares, [x, kernel, seed])

    graph = second.get_concrete_function(values(2, 4, 4, 3), values(1, 1, 3, 5), values(2, 4, 4, 3)).graph
    asked = [one.get_attr("strides") for one in graph.get_operations() if one.type == "Conv2DBackpropFilter"]
    assert len(asked) >= 4
    assert all(max(strides) == 1 for strides in asked)


def test_curvature_of_a_residual_network_is_measured():
    keras.utils.set_random_seed(1)  # of other weights, the curvature may be negative
    inputs = keras.Input((8, 8, 4))
    shortcut = layers.Conv2D(8, 1, strides=2, name="shortcut")(layers.Conv2D(4, 1, name="before")(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(shortcut)))
    traces = hessian_traces(model, Samples(values(16, 8, 8, 4), np.arange(16) % 3))
    assert all(np.isfinite(one) and one > 0 for one in traces.values())
