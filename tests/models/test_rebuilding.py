"""Layers made again from their configuration."""

from __future__ import annotations

import time

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.models import canonicalize

X = np.random.default_rng(0).normal(size=(16, 5, 3)).astype(np.float32)
KINDS = {
    "lstm": lambda: layers.LSTM(4, name="memory"),
    "gru": lambda: layers.GRU(4, name="memory"),
    "both ways": lambda: layers.Bidirectional(layers.LSTM(4), name="memory"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_are_drawn_once_and_compute_the_same(kind):
    keras.utils.set_random_seed(4)
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Dense(2)(KINDS[kind]()(layers.Masking(0.0)(inputs))))
    inputs_with_gaps = np.where(np.arange(5)[None, :, None] > 2, 0, X)
    clone = canonicalize(model).model
    if not tf.config.list_physical_devices("GPU"):
        parts = [part for part in clone.get_layer("memory")._flatten_layers() if hasattr(part, "_could_use_gpu_kernel")]
        assert parts
        assert not any(part._could_use_gpu_kernel for part in parts)
    np.testing.assert_allclose(
        clone.predict(inputs_with_gaps, verbose=0), model.predict(inputs_with_gaps, verbose=0), atol=1e-6
    )


@pytest.mark.slow
def test_a_clone_of_a_recurrent_model_is_made_faster_than_the_model():
    """Once a second and a half for each layer, at every clone, and there are dozens in one compression."""

    def make():
        inputs = keras.Input((20, 3))
        tensor = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
        return keras.Model(inputs, layers.Bidirectional(layers.GRU(4))(tensor))

    make()  # what is slow the first time only
    start = time.perf_counter()
    model = make()
    own = time.perf_counter() - start
    start = time.perf_counter()
    canonicalize(model)
    assert time.perf_counter() - start < own / 2


@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_what_losses_and_metrics_in_the_graph_leave_there_is_read(tmp_path, ending):
    """`model.add_loss` and `model.add_metric` add layers of Keras' own that the outputs do not need."""
    inputs = keras.Input((5, 3))
    hidden = layers.Dense(4, name="hidden")(layers.Flatten(name="flat")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(hidden))
    model.add_loss(1e-3 * tf.reduce_mean(tf.abs(hidden)))
    model.add_metric(tf.reduce_mean(hidden), name="mean")
    model.save(tmp_path / f"model{ending}")
    loaded = xaic.load_model(tmp_path / f"model{ending}")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    assert [layer.name for layer in canonicalize(loaded).model.layers][1:] == ["flat", "hidden", "head"]
    assert set(xaic.attribute(loaded, X, np.arange(16) % 2).weights) == {"hidden", "head"}
