"""Layers of Keras that `keras.layers` of Keras 2 does not have."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.models import canonicalize
from keras_xaic.models.added_layers import CustomScaleLayer, LayerScale
from keras_xaic.models.given import as_model
from keras_xaic.models.keras3 import _known
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.io_types import with_io
from tests.tflite.models import run

X = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)


def of_keras(name):
    """The class that Keras 2 keeps in its applications."""
    applications = importlib.import_module(keras.applications.convnext.ConvNeXtTiny.__module__)
    return getattr(applications, name)


def make_model(scale):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    z = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    branch = layers.Dense(6, name="branch")(layers.LayerNormalization(name="norm")(z))
    branch = scale(init_values=0.3, projection_dim=6, name="scale")(branch)
    z = CustomScaleLayer(0.5, name="sum")([z, branch]) if scale is LayerScale else layers.Add(name="sum")([z, branch])
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(layers.GlobalAveragePooling2D()(z)))
    model.get_layer("scale").gamma.assign(np.linspace(-1, 1, 6))
    return model


@pytest.mark.parametrize("scale", [LayerScale, of_keras("LayerScale")], ids=["ours", "of keras"])
@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_files_are_read_and_converted(tmp_path, scale, ending):
    model = make_model(scale)
    model.save(tmp_path / f"model{ending}")
    loaded, wanted = xaic.load_model(tmp_path / f"model{ending}"), model.predict(X, verbose=0)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), wanted, atol=1e-6)
    relevance = xaic.attribute(loaded, X, np.arange(32) % 3)
    assert set(relevance.weights) == {"stem", "branch", "head"}
    content = with_io(build_tflite(canonicalize(loaded).model, X), "float32")
    assert np.abs(run(content, [X])[0] - wanted).mean() < 0.03


def test_classes_of_users_come_first(monkeypatch):
    assert _known("LayerScale") is LayerScale
    monkeypatch.setitem(keras.utils.get_custom_objects(), "LayerScale", type("LayerScale", (layers.Layer,), {}))
    assert _known("LayerScale") is None, "its settings are its own"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ConvNeXtTiny", "InceptionResNetV2"])
def test_models_of_keras_applications(name):
    library = importlib.import_module("keras")
    model = getattr(library.applications, name)(weights=None, input_shape=(80, 80, 3), classes=4)
    x = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 3)).astype(np.float32)
    np.testing.assert_allclose(as_model(model).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
