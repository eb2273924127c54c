"""Convolutions whose channels come first are compressed like others."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models.given import as_model
from keras_xaic.relevance import attribute

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
