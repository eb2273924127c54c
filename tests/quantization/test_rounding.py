from __future__ import annotations

import itertools

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.compression import apply
from keras_xaic.data import Data, Samples
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.models import canonicalize, weighted_kernels
from keras_xaic.planning import Budget, PlanOptions, plan
from keras_xaic.quantization.input_moments import can_take_patches, moments
from keras_xaic.quantization.rounding import BLOCK, compensate, round_by_outputs
from keras_xaic.relevance import attribute


def correlated(count, inputs, seed=0):
    """Neighbouring inputs are alike."""
    noise = np.random.default_rng(seed).normal(size=(count, inputs + 8))
    return sum(noise[:, shift : shift + inputs] for shift in range(8))


def output_error(x, w, levels, step):
    return float(np.square(x @ (w - levels * step)).sum())


def test_uncorrelated_inputs_are_rounded_to_nearest():
    w = np.random.default_rng(0).normal(size=(7, 5))
    levels = compensate(w, np.array([0.3]), 3, np.diag(np.arange(1.0, 8.0)))
    np.testing.assert_array_equal(levels, np.clip(np.round(w / 0.3), -3, 3))


def geometric_mean(values):
    return float(np.exp(np.mean(np.log(values))))


def test_compensation_is_close_to_the_best_of_all_choices():
    nearest_over_best, ours_over_best = [], []
    for seed in range(12):
        x = correlated(200, 5, seed)
        w = np.random.default_rng(seed + 100).normal(size=(5, 1))
        gram, step = x.T @ x / len(x), 0.5
        best = min(
            output_error(x, w, np.array(choice, float)[:, None], step) for choice in itertools.product(range(-3, 4), repeat=5)
        )
        nearest_over_best.append(output_error(x, w, np.clip(np.round(w / step), -3, 3), step) / best)
        ours_over_best.append(output_error(x, w, compensate(w, np.array([step]), 3, gram).astype(float), step) / best)
    assert geometric_mean(ours_over_best) < min(2.2, 0.8 * geometric_mean(nearest_over_best))


def test_the_more_inputs_the_more_compensation_gains():
    x, w = correlated(500, 64), np.random.default_rng(1).normal(size=(64, 16))
    gram, step = x.T @ x / len(x), 0.5
    nearest = output_error(x, w, np.clip(np.round(w / step), -7, 7), step)
    assert output_error(x, w, compensate(w, np.array([step]), 7, gram).astype(float), step) < 0.4 * nearest


def test_blocks_do_not_change_the_answer():
    inputs = BLOCK + 40
    x, w = correlated(400, inputs), np.random.default_rng(1).normal(size=(inputs, 3))
    gram, step = x.T @ x / 400, np.array([0.4])
    damped = gram + np.eye(inputs) * 0.01 * np.trace(gram) / inputs
    order = np.argsort(-np.diag(gram), kind="stable")
    left, levels = w[order].copy(), np.zeros_like(w)
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    for row in range(inputs):  # the definition: eliminate one input at a time from the inverse
        levels[row] = np.clip(np.round(left[row] / step), -7, 7)
        error = (left[row] - levels[row] * step) / inverse[row, row]
        left -= np.outer(inverse[:, row], error)
        inverse -= np.outer(inverse[:, row], inverse[row]) / inverse[row, row]
    expected = np.empty_like(levels)
    expected[order] = levels
    assert np.mean(compensate(w, step, 7, gram) == expected) > 0.99  # float order may turn a tie


def test_zeros_are_kept_and_made_up_for():
    x, w = correlated(300, 40), np.random.default_rng(2).normal(size=(40, 4))
    keep = np.random.default_rng(3).random((40, 4)) < 0.6
    levels = compensate(w, np.array([0.05]), 127, x.T @ x / 300, keep)
    assert not levels[~keep].any()
    assert output_error(x, w, levels, 0.05) < 0.6 * output_error(x, w, np.round(w * keep / 0.05), 0.05)


LAYERS = {
    "dense": (lambda: layers.Dense(5, name="one"), (7,)),
    "dense over positions": (lambda: layers.Dense(5, name="one"), (4, 7)),
    "conv": (lambda: layers.Conv2D(5, 3, strides=2, padding="same", name="one"), (9, 8, 3)),
    "conv dilated": (lambda: layers.Conv2D(5, (2, 3), dilation_rate=2, name="one"), (9, 8, 3)),
    "conv1d": (lambda: layers.Conv1D(5, 3, strides=2, padding="same", name="one"), (9, 3)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="one"), (6, 6, 3)),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3, name="one"), (9, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_moments_predict_the_mean_and_the_energy_of_the_layers_own_outputs(name):
    make, shape = LAYERS[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, make()(inputs))
    kernel = weighted_kernels(model)[0]
    x = np.random.default_rng(0).normal(0.3, 1, (20, *shape)).astype(np.float32)
    assert can_take_patches(kernel)
    measured = moments(kernel, x, gram=True)
    outputs = model.predict(x, verbose=0).reshape(-1, kernel.channels).astype(np.float64)
    w = kernel.value.astype(np.float64)
    if kernel.kind == "depthwise":
        taps = w.reshape(-1, *w.shape[-2:])
        mean = np.einsum("ct,tcm->cm", measured.mean, taps).ravel()
        energy = np.einsum("tcm,ctu,ucm->cm", taps, measured.gram, taps).ravel()
    else:
        flat = w.reshape(-1, w.shape[-1])
        mean, energy = measured.mean @ flat, np.einsum("io,ij,jo->o", flat, measured.gram, flat)
    np.testing.assert_allclose(mean, outputs.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(energy, np.square(outputs).mean(axis=0), rtol=1e-4)


def net():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    y = layers.SeparableConv2D(8, 3, padding="same", name="separable")(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(6, activation="softmax", name="head")(x))


def smooth(count):
    """Neighbouring pixels are alike, as in pictures."""
    x = np.random.default_rng(0).normal(size=(count, 14, 14, 3))
    return sum(x[:, i : i + 12, j : j + 12] for i in range(3) for j in range(3)).astype(np.float32) / 9 + 0.3


@pytest.fixture(scope="module")
def case():
    model, x = net(), smooth(96)
    model.get_layer("norm").set_weights([np.ones(8), np.zeros(8), np.zeros(8), np.full(8, 0.3)])
    return model, x, attribute(model, x, target="predicted")


@pytest.mark.parametrize("bits", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_outputs_stay_closer_than_with_nearest_rounding_on_data_that_was_not_seen(case, bits):
    model, x, relevance = case
    made = plan(model, relevance, Budget(), PlanOptions(bits=(bits,)))
    meant = model.predict(x[64:], verbose=0)
    error = {}
    for rounding in ("nearest", "outputs"):
        small = apply(
            model, made, Data(Samples(x[:64])), relevance=relevance, training=xaic.Training(epochs=0, rounding=rounding)
        )
        error[rounding] = float(np.square(small.model.predict(x[64:], verbose=0) - meant).mean())
        for kernel in weighted_kernels(small.model):
            np.testing.assert_array_equal(kernel.value, small.kernels[kernel.key].values)
    assert error["outputs"] < 0.6 * error["nearest"]


def test_biases_take_up_the_shift_of_the_mean_output(case):
    model, x, _ = case
    reference, rounded = canonicalize(model).model, canonicalize(model).model
    kernels = {}
    for kernel in weighted_kernels(rounded):
        kernels[kernel.key] = quantize(kernel.value, 2, fit_scale(kernel.value, 2, ()))
        kernel.variable.assign(kernels[kernel.key].values)
    round_by_outputs(rounded, kernels, reference, Samples(x))
    inner = [keras.Model(one.inputs, one.get_layer("stem").output).predict(x, verbose=0) for one in (reference, rounded)]
    np.testing.assert_allclose(inner[0].mean(axis=(0, 1, 2)), inner[1].mean(axis=(0, 1, 2)), atol=1e-4)


def test_pruned_weights_stay_zero(case):
    model, x, relevance = case
    made = plan(model, relevance, Budget(), PlanOptions(bits=(4,), sparsity=0.5))
    small = apply(model, made, Data(Samples(x)), relevance=relevance, training=xaic.Training(epochs=0))
    assert small.sparsity >= made.sparsity - 0.01
