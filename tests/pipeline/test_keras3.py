"""A model of Keras 3, compressed in one call."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic.data import as_data
from keras_xaic.models.keras3 import is_keras3
from keras_xaic.relevance import Attribution, layer_rows
from tests.grouped import grouped

keras = importlib.import_module("keras")
needs_keras3 = pytest.mark.skipif(not is_keras3(keras.__version__), reason="Keras 3 is not installed")


def trained():
    """A small model of Keras 3, on the backend that Keras has, and its data."""
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
    return model, as_data(((x[:150], y[:150]), (x[150:], y[150:])))


def compressed(model, data, out):
    report = xaic.compress(model, data, out=out, **grouped(epochs=1, baselines=(), target="mobile"))
    assert report.original.keras_accuracy > 0.9
    assert report.compressed.edge_accuracy > 0.9
    assert report.judge.interpreter in report.interpreters
    x, y = data.train.x, data.train.y
    rows = layer_rows(model, xaic.attribute(model, x[:20], y[:20]))
    assert [row.kind for row in rows] == ["conv", "dense"]
    assert Attribution(model).input_relevance(x[:2], y[:2])[0].shape == (2, 6, 6, 1)


@needs_keras3
def test_an_object_of_keras_3_is_compressed_in_one_call(tmp_path):
    compressed(*trained(), tmp_path / "out")


@needs_keras3
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_an_object_on_another_backend_is_compressed_and_comes_back(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.pipeline.test_keras3", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [backend, "done"]
    assert (tmp_path / "out" / "model.tflite").is_file()


def _on_another_backend(folder):
    """What the test above runs: compressed in one call, carried out by its plan, given back to Keras 3."""
    model, data = trained()
    before = [np.asarray(weight) for weight in model.get_weights()]
    compressed(model, data, folder / "out")
    small = xaic.apply(model, xaic.Plan.load(folder / "out" / "plan.json"), data, training=xaic.Training(epochs=0))
    back = keras.models.load_model(small.save_keras3(folder / "small.keras"))
    for ours, theirs in zip(before, model.get_weights()):
        np.testing.assert_array_equal(ours, np.asarray(theirs))
    x = data.test.x
    np.testing.assert_allclose(back.predict(x, verbose=0), small.model.predict(x, verbose=0), atol=1e-5)
    print(keras.backend.backend(), "done")


if __name__ == "__main__":
    _on_another_backend(pathlib.Path(sys.argv[1]))
