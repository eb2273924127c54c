"""What training goes on from: weights before rounding, with the zeros of masks and no others."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.models import weighted_kernels
from keras_xaic.planning import LayerPlan, Plan


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 12)).astype(np.float32)
    return Data(Samples(x, (x[:, :3].argmax(axis=1)).astype(np.int64)))


def make_model():
    keras.utils.set_random_seed(1)
    z = inputs = keras.Input((12,))
    z = layers.Dense(20, activation="relu", name="hidden")(z)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(z))


def make_plan(sparsity):
    common = {"kind": "dense", "granularity": "tensor", "storage": "int4", "bits": 3}
    hidden = LayerPlan(key="hidden", weights=240, sparsity=sparsity, **common)
    return Plan(layers=[hidden, LayerPlan(key="head", weights=60, **common)])


def test_weights_are_those_that_round_to_the_grids(data):
    small = xaic.apply(make_model(), make_plan(0.5), data, training=xaic.Training(epochs=2))
    values = {kernel.key: kernel.value for kernel in weighted_kernels(small.trainable)}
    for key, grid in small.kernels.items():
        rounded = np.clip(np.round(values[key] / grid.scale), -grid.limit, grid.limit)
        np.testing.assert_array_equal(rounded, grid.integers)
        assert np.abs(values[key] - grid.values).max() > 0
    assert (values["hidden"] == 0).sum() == 120
    assert (values["head"] == 0).sum() == 0 < (small.kernels["head"].integers == 0).sum()


@pytest.mark.slow
def test_zeros_that_are_there_are_not_made_again(data):
    first = xaic.apply(make_model(), make_plan(0.5), data, training=xaic.Training(epochs=4))
    again = xaic.apply(first.trainable, make_plan(0.5), data, training=xaic.Training(epochs=4))
    more = xaic.apply(first.trainable, make_plan(0.7), data, training=xaic.Training(epochs=4))
    assert {stage: len(epochs) for stage, epochs in first.history.items()} == {"prune": 2, "quantize": 2}
    assert {stage: len(epochs) for stage, epochs in again.history.items()} == {"prune": 0, "quantize": 4}
    assert {stage: len(epochs) for stage, epochs in more.history.items()} == {"prune": 1, "quantize": 3}, "less is missing"
    was_zero = first.kernels["hidden"].integers == 0
    kept = weighted_kernels(first.trainable)[0].value == 0
    assert (again.kernels["hidden"].integers[kept] == 0).all()
    assert was_zero[kept].all()
