"""Constants of unlike size in front of a model: plan, apply, export and verify prove their files as compress does."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.compression import apply
from keras_xaic.errors import XaicWarning
from keras_xaic.pipeline.size_fitting import noise_for
from keras_xaic.planning import Plan

FACTORS = np.array([1.0, 2.0, 4.0, 1.0, 3.0, 1.0])


def batchnorm(gains):
    layer = layers.BatchNormalization(epsilon=1e-12)
    layer.build((None, 6))
    layer.set_weights([np.ones(6), np.full(6, 0.5), np.zeros(6), 1.0 / np.square(gains)])
    return layer


def normalization(gains):
    return layers.Normalization(mean=np.full(6, 5.0), variance=1.0 / np.square(gains))


def dead(gains):
    """One column that hardly changed when statistics were measured."""
    return np.where(np.arange(6) == 1, 1e6, gains)


FRONTS = {
    "rescaling": (layers.Rescaling, FACTORS),
    "rescaling, one huge": (layers.Rescaling, dead(FACTORS)),
    "rescaling, one zero": (layers.Rescaling, np.where(np.arange(6) == 1, 0.0, FACTORS)),
    "rescaling, all tiny": (layers.Rescaling, np.full(6, 1e-6)),
    "batchnorm": (batchnorm, FACTORS),
    "batchnorm, no variance": (batchnorm, dead(FACTORS)),
    "normalization": (normalization, FACTORS),
    "normalization, no variance": (normalization, dead(FACTORS)),
}


@pytest.mark.parametrize("name", [name for name in FRONTS if "zero" not in name])
def test_noise_that_stands_for_data_is_alike_behind_the_front(name):
    make, gains = FRONTS[name]
    front = make(gains.tolist() if make is layers.Rescaling else gains)
    found = np.asarray(front(noise_for(keras.Sequential([keras.Input((6,)), front, layers.Dense(2)])).train.x))
    assert found.max() < 1.1
    assert np.ptp(found, axis=0).min() > 0.5


def test_what_is_applied_has_such_factors_in_its_kernels():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), layers.Rescaling(FACTORS.tolist()), layers.Dense(3, "softmax", name="head")])
    head = {"key": "head", "kind": "dense", "weights": 18, "bits": 8, "granularity": "tensor", "storage": "int8"}
    small = apply(model, Plan(layers=[head]), np.ones((8, 6), np.float32), training=xaic.Training(epochs=0)).model
    assert not any(isinstance(layer, layers.Rescaling) for layer in small.layers)
    kernel = FACTORS[:, None] * model.get_layer("head").get_weights()[0]
    np.testing.assert_allclose(small.get_layer("head").get_weights()[0], kernel, atol=np.abs(kernel).max() / 127)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRONTS)
def test_every_way_gives_a_file_as_good_as_the_model(name, tmp_path):
    make, gains = FRONTS[name]
    keras.utils.set_random_seed(2)
    front = make(gains.tolist() if make is layers.Rescaling else gains)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200, 6)) / np.where(gains == 0, 1.0, gains) + (5.0 if make is normalization else 0.0)).astype(
        np.float32
    )
    hidden = layers.Dense(8, "relu", bias_initializer="random_normal")
    model = keras.Sequential([keras.Input((6,)), front, hidden, layers.Dense(3, "softmax", name="head")])
    y = model.predict(x, verbose=0).argmax(-1)
    plan = xaic.plan(model, xaic.attribute(model, x[:64], y[:64]), xaic.Budget(mean_bits=8))
    small = xaic.apply(model, plan, (x, y), training=xaic.Training(epochs=0))
    for number, one in enumerate((small, model)):
        bundle = xaic.export(one, tmp_path / str(number), calibration=x, target="mobile")
        assert xaic.verify(bundle, (x, y)).edge_metric > 0.85, number


@pytest.mark.parametrize("io", [None, "int8"])
def test_a_table_of_unlike_units_is_scaled_in_the_file_or_told(io, tmp_path):
    keras.utils.set_random_seed(2)
    x = np.random.default_rng(0).uniform(-1, 1, (200, 6)).astype(np.float32)
    x[:, 0] = 150.0 * (x[:, 0] + 1.0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax")])
    kernel, bias = model.layers[0].get_weights()
    kernel[0] /= 150.0
    model.layers[0].set_weights([kernel, bias - 150.0 * kernel[0]])
    device = xaic.Device(target="mobile", baselines=(), file=xaic.FileOptions(io=io))
    how = {"recipe": "int8", "training": xaic.Training(epochs=0), "device": device, "out": tmp_path / "out"}
    data = {"x_train": x, "y_train": model.predict(x, verbose=0).argmax(-1)}
    if io is None:
        report = xaic.compress(model, data, **how)
        assert report.compressed.edge_metric > 0.97
        assert any("scales each column" in said for said in report.warnings)
        return
    with pytest.warns(XaicWarning, match="With io of float32"), contextlib.suppress(xaic.XaicError):
        xaic.compress(model, data, **how)
