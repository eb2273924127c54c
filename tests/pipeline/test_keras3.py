"""A model of Keras 3, compressed in one call."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic.data import as_data
from keras_xaic.models.keras3 import is_keras3
from keras_xaic.relevance import Attribution, layer_rows
from tests.grouped import grouped

keras = importlib.import_module("keras")


@pytest.mark.skipif(not is_keras3(keras.__version__), reason="Keras 3 is not installed")
def test_an_object_of_keras_3_is_compressed_in_one_call(tmp_path):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    patterns = random.normal(size=(3, 6, 6, 1))
    y = random.integers(0, 3, 200)
    x = (patterns[y] + 0.3 * random.normal(size=(200, 6, 6, 1))).astype(np.float32)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x[:150], y[:150], epochs=5, verbose=0)
    data = as_data(((x[:150], y[:150]), (x[150:], y[150:])))
    report = xaic.compress(model, data, out=tmp_path / "out", **grouped(epochs=1, baselines=(), target="mobile"))
    assert report.original.keras_accuracy > 0.9
    assert report.compressed.edge_accuracy > 0.9
    assert report.judge.interpreter in report.interpreters
    rows = layer_rows(model, xaic.attribute(model, x[:20], y[:20]))
    assert [row.kind for row in rows] == ["conv", "dense"]
    assert Attribution(model).input_relevance(x[:2], y[:2])[0].shape == (2, 6, 6, 1)
