from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.planning import Plan
from keras_xaic.quantization import GridQuantizer, fold_kernels, freeze, quantize_by_plan, round_to_plan
from tests.plans import plan_for


class Host(layers.Layer):
    """Holds a quantizer's variables."""


def quantizer(bits, scale, mask=None):
    host = Host()
    grid = GridQuantizer(bits, np.asarray(scale, np.float32), mask)
    return grid, grid.build((3, 2), "kernel", host)


def test_output_is_on_the_grid_and_masked():
    mask = np.array([[True, False], [True, True], [True, True]])
    grid, weights = quantizer(3, [[0.5, 0.25]], mask)
    w = np.array([[0.7, 1.0], [-9.0, 0.1], [0.2, -0.4]], np.float32)
    out = grid(tf.constant(w), True, weights).numpy()
    np.testing.assert_allclose(out, [[0.5, 0.0], [-1.5, 0.0], [0.0, -0.5]])


def test_gradient_passes_rounding_and_stops_at_the_clip():
    grid, weights = quantizer(3, [[0.5, 0.5]])
    w = tf.Variable([[0.7, 9.0], [-0.3, -9.0], [0.2, 1.2]])
    with tf.GradientTape() as tape:
        out = tf.reduce_sum(grid(w, True, weights) * tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    np.testing.assert_allclose(tape.gradient(out, w), [[1, 0], [3, 0], [5, 6]], atol=1e-6)


def test_step_gradient_is_that_of_lsq():
    """LSQ eq. 3: d(q)/d(s) = round(w/s) - w/s inside the range and +-L beyond; here d/d(log s) = s * d/ds."""
    grid, weights = quantizer(3, [[0.5]])
    w = np.array([[0.7, 9.0], [-0.3, -9.0], [0.2, 1.2]], np.float32)
    with tf.GradientTape() as tape:
        out = tf.reduce_sum(grid(tf.constant(w), True, weights))
    ratio = w / 0.5
    by_definition = np.where(np.abs(ratio) <= 3, np.round(ratio) - ratio, 3 * np.sign(ratio)).sum()
    assert tape.gradient(out, weights["log_step"]).numpy().item() == pytest.approx(0.5 * by_definition, abs=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_finite_differences_of_the_smooth_surrogate(masked):
    """The surrogate holds what rounding added, ``round(v) - v`` at the clipped level v, and is smooth in weight and step."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(7, 2)).astype(np.float32)
    mask = rng.random(w.shape) < 0.7 if masked else None
    outer = rng.normal(size=w.shape)
    first = np.array([[0.3, 0.5]])
    grid, weights = quantizer(3, first, mask)
    kernel = tf.Variable(w)
    with tf.GradientTape() as tape:
        out = tf.reduce_sum(grid(kernel, True, weights) * tf.constant(outer, tf.float32))
    by_weight, by_step = tape.gradient(out, [kernel, weights["log_step"]])
    w = w.astype(np.float64)
    level = np.clip(w / first, -3, 3)
    added = np.round(level) - level

    def surrogate(values, log_step):
        step = first * np.exp(log_step)
        levels = (np.clip(values / step, -3, 3) + added) * (1 if mask is None else mask)
        return levels * step * outer

    e = 1e-6
    of_weight = (surrogate(w + e, np.zeros((1, 2))) - surrogate(w - e, np.zeros((1, 2)))) / (2 * e)
    of_step = (surrogate(w, np.full((1, 2), e)) - surrogate(w, np.full((1, 2), -e))).sum(axis=0, keepdims=True) / (2 * e)
    np.testing.assert_allclose(by_weight, of_weight, atol=1e-4)
    np.testing.assert_allclose(by_step, of_step, atol=1e-4)


def small_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(5, 3, name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="dense")(x))
    norm = model.get_layer("norm")
    rng = np.random.default_rng(0)
    norm.set_weights([rng.normal(size=6), rng.normal(size=6), rng.normal(size=6), rng.random(6) + 0.5])
    return model


@pytest.mark.parametrize("bits", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_trained_weights_are_exactly_on_their_grids_and_stay_so_when_batchnorm_is_folded(bits):
    model = small_model()
    quantized = quantize_by_plan(model, plan_for(model, bits))
    x = np.random.default_rng(2).normal(size=(64, 8, 8, 3)).astype(np.float32)
    quantized.compile("adam", "sparse_categorical_crossentropy")
    quantized.fit(x, np.arange(64) % 4, epochs=2, verbose=0)
    trained = quantized.predict(x, verbose=0)
    kernels = freeze(quantized, model)
    np.testing.assert_allclose(model.predict(x, verbose=0), trained, atol=2e-6)
    canonical = canonicalize(model)
    folded = fold_kernels(kernels, canonical)
    np.testing.assert_allclose(canonical.model.predict(x, verbose=0), trained, atol=2e-5)
    found = {kernel.key: kernel.value for kernel in weighted_kernels(canonical.model)}
    assert set(found) == set(folded)
    for key, grid in folded.items():
        np.testing.assert_array_equal(found[key], grid.values)
        assert np.abs(grid.integers).max() <= 2 ** (bits - 1) - 1


def test_masked_weights_stay_zero_through_training():
    model = small_model()
    mask = np.random.default_rng(3).random((3, 3, 3, 6)) < 0.5
    quantized = quantize_by_plan(model, plan_for(model, 4), {"conv": mask})
    x = np.random.default_rng(2).normal(size=(32, 8, 8, 3)).astype(np.float32)
    quantized.compile("adam", "sparse_categorical_crossentropy")
    quantized.fit(x, np.arange(32) % 4, epochs=1, verbose=0)
    assert not freeze(quantized, model)["conv"].integers[~mask].any()


def test_layers_without_a_plan_stay_float():
    model = small_model()
    plan = plan_for(model, 4)
    plan = plan.model_copy(update={"layers": [layer for layer in plan.layers if layer.key != "dense"]})
    before = model.get_layer("dense").get_weights()[0]
    kernels = freeze(quantize_by_plan(model, plan), model)
    assert "dense" not in kernels
    np.testing.assert_array_equal(model.get_layer("dense").get_weights()[0], before)


def test_rounding_without_training_is_what_the_quantizers_of_training_give():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3), layers.DepthwiseConv2D(2), layers.Flatten(), layers.Dense(3, name="head")]
    )
    given = [(kernel.key, kernel.kind, kernel.size) for kernel in weighted_kernels(model)]
    grids = zip(given, (3, 8, 2), ("channel", "channel", "tensor"))
    made = Plan(
        layers=[
            {"key": key, "kind": kind, "weights": size, "bits": bits, "granularity": granularity, "storage": "int8"}
            for (key, kind, size), bits, granularity in grids
        ]
    )
    mask = {given[0][0]: np.arange(given[0][2]).reshape(weighted_kernels(model)[0].shape) % 3 > 0}
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    expected = freeze(quantize_by_plan(model, made, mask), model)
    found = round_to_plan(other, made, mask)
    assert found.keys() == expected.keys() == {key for key, _, _ in given}
    for key, one in found.items():
        np.testing.assert_array_equal(one.integers, expected[key].integers)
        np.testing.assert_array_equal(one.scale, expected[key].scale)
    for one, two in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, two)
