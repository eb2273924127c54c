"""Convolutions whose channels come first are compressed like others."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.edge import judge, run_file
from keras_xaic.models.given import as_model
from keras_xaic.relevance import attribute
from keras_xaic.tflite import build_tflite

FIRST = {"data_format": "channels_first"}
IMAGE, SEQUENCE = (4, 9, 8), (4, 10)
KINDS = {
    "strides": (IMAGE, lambda: layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", **FIRST)),
    "groups": (IMAGE, lambda: layers.Conv2D(6, 3, groups=2, **FIRST)),
    "each channel": (IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, **FIRST)),
    "separable": (IMAGE, lambda: layers.SeparableConv2D(6, 3, **FIRST)),
    "transposed": (IMAGE, lambda: layers.Conv2DTranspose(6, 3, strides=2, **FIRST)),
    "sequence": (SEQUENCE, lambda: layers.Conv1D(6, 3, **FIRST)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_come_first(kind):
    shape, make = KINDS[kind]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.ReLU()(make()(inputs)))))
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    made = as_model(model)
    np.testing.assert_allclose(made(x), model(x), atol=1e-5)
    name = model.layers[1].name
    assert made.get_layer(name).data_format == "channels_last"
    sums = [float(one.sum()) for one in attribute(made, x, rule="lrp.z", reduce="sum").weights.values()]
    np.testing.assert_allclose(sums, sums[-1], rtol=1e-3, err_msg="relevance that reaches a layer has passed the next one")


VOLUME = (2, 6, 7, 8)
OF_VOLUMES = {
    "convolution": lambda: layers.Conv3D(4, 3, strides=2, padding="same", activation="relu", **FIRST),
    "transposed": lambda: layers.Conv3DTranspose(4, 3, strides=2, **FIRST),
    "pooling": lambda: layers.AveragePooling3D(**FIRST),
    "all places": lambda: layers.GlobalMaxPooling3D(**FIRST),
    "all places, kept": lambda: layers.GlobalAveragePooling3D(keepdims=True, **FIRST),
    "larger": lambda: layers.ZeroPadding3D(((1, 0), (0, 2), (1, 1)), **FIRST),
}


@pytest.mark.parametrize("kind", OF_VOLUMES)
def test_volumes_whose_channels_come_first_are_converted(kind, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(VOLUME)
    body = layers.MaxPooling3D(**FIRST)(layers.Conv3D(3, 2, **FIRST)(inputs))
    model = keras.Model(inputs, layers.Flatten(**FIRST)(OF_VOLUMES[kind]()(body)))
    x = np.random.default_rng(0).normal(size=(8, *VOLUME)).astype(np.float32)
    made = as_model(model)
    np.testing.assert_allclose(made(x), model(x), atol=1e-5)
    (tmp_path / "model.tflite").write_bytes(build_tflite(made, x))
    outputs = run_file(tmp_path / "model.tflite", x, interpreter=judge()).outputs
    assert np.abs(outputs - model(x)).max() < 0.05 * np.ptp(model(x))
