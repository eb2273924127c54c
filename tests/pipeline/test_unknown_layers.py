"""Layers that relevance has no rule for do not end a run: the report names them."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.errors import ModelError
from keras_xaic.pipeline import compress


@pytest.fixture(scope="module")
def case():
    keras.utils.set_random_seed(0)
    start = keras.Input((6, 6, 2))
    x = layers.GroupNormalization(2, name="odd")(layers.Conv2D(4, 3, activation="relu")(start))
    model = keras.Model(start, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
    x = np.random.default_rng(0).normal(size=(60, 6, 6, 2)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(-1)
    return model, {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]}


@pytest.mark.slow
def test_a_layer_without_a_rule_is_named_in_the_report(case, tmp_path):
    model, data = case
    report = compress(
        model,
        data,
        recipe="deeplift-mixed",
        out=tmp_path / "out",
        training=xaic.Training(epochs=0),
        device=xaic.Device(baselines=(), target="mobile"),
    )
    assert any("odd" in one and "approximate" in one for one in report.warnings)
    assert (tmp_path / "out" / "model.tflite").is_file()


def test_strict_refuses_it_before_any_work(case, tmp_path):
    model, data = case
    with pytest.raises(ModelError, match=r"no sound rule for 1 layer: odd"):
        compress(model, data, out=tmp_path / "out", training=xaic.Training(epochs=1), options=xaic.DataOptions(strict=True))
    assert not list(tmp_path.iterdir())
