"""Recurrent layers that carry their state from batch to batch."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.errors import XaicWarning
from keras_xaic.models.given import as_model

X = np.random.default_rng(0).normal(size=(24, 6, 3)).astype(np.float32)
WAYS = {
    "gru": lambda: layers.GRU(4, stateful=True, name="memory"),
    "lstm": lambda: layers.LSTM(4, stateful=True, name="memory"),
    "simple": lambda: layers.SimpleRNN(4, stateful=True, name="memory"),
    "both ways": lambda: layers.Bidirectional(layers.GRU(4, stateful=True), name="memory"),
    "cells": lambda: layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)], stateful=True, name="memory"),
}


def make_model(way):
    keras.utils.set_random_seed(3)
    head = layers.Dense(2, activation="softmax", name="head")
    return keras.Sequential([keras.Input(batch_shape=(8, 6, 3)), WAYS[way](), head])


def outputs_of(model):
    """The outputs of a stateful model for `X`, where each of its batches begins without state."""
    parts = []
    for start in range(0, len(X), 8):
        model.reset_states()
        parts.append(model.predict(X[start : start + 8], verbose=0))
    return np.concatenate(parts)


@pytest.mark.parametrize("way", WAYS)
def test_samples_begin_without_state_in_batches_of_any_size(way):
    model = make_model(way)
    with pytest.warns(XaicWarning, match="^The state of memory of model .*stateful=True"):
        free = as_model(model)
    wanted = outputs_of(model)
    for size in (1, 5, 24):
        np.testing.assert_allclose(free.predict(X, batch_size=size, verbose=0), wanted, atol=1e-5)
    assert model.get_layer("memory").stateful, "the user's model is untouched"
    assert as_model(free) is free


def test_layers_inside_models_are_named_by_their_path():
    inner = keras.Sequential([keras.Input(batch_shape=(8, 6, 3)), WAYS["gru"]()], name="inner")
    inputs = keras.Input(batch_shape=(8, 6, 3))
    with pytest.warns(XaicWarning, match="^The state of inner/memory of"):
        free = as_model(keras.Model(inputs, inner(inputs)))
    assert free.predict(X[:3], verbose=0).shape == (3, 4)


def test_what_goes_in_is_prepared_as_before():
    prepared = layers.Normalization(name="norm")
    prepared.adapt(3 * X + 5)
    model = keras.Sequential([keras.Input(batch_shape=(8, 6, 3)), prepared, WAYS["gru"](), layers.Dense(2, name="head")])
    with pytest.warns(XaicWarning, match="stateful=True"):
        free = as_model(model)
    np.testing.assert_allclose(free.predict(X, verbose=0), outputs_of(model), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_files_of_stateful_models_are_compressed(tmp_path, ending):
    model = make_model("gru")
    model.save(tmp_path / f"model{ending}")
    y = np.arange(24) % 2
    device = xaic.Device(target="mobile", baselines=())
    with pytest.warns(XaicWarning, match="not carried from batch to batch"):
        report = xaic.compress(
            tmp_path / f"model{ending}", (X, y), training=xaic.Training(epochs=1), device=device, out=tmp_path / "out"
        )
    assert report.original.keras_metric == np.mean(outputs_of(model).argmax(1) == y)
