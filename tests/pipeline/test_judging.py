"""One notion of task and metric, from training to the device."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as sk

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.errors import DataError, XaicWarning
from keras_xaic.planning import Budget


def trained(model, x, y, loss):
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(x, y, epochs=15, verbose=0)
    return model


def table(targets_of):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 6)).astype(np.float32)
    y = targets_of(x @ rng.normal(size=(6, 3)))
    return Data(Samples(x[:160], y[:160]), Samples(x[160:], y[160:]))


def network(width, activation):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(width, activation=activation)]
    )


CASES = {
    "whole numbers": (lambda z: np.round(10 * z[:, 0]).astype(np.int64), 1, None, "mse", "regression", "mse"),
    "several labels": (lambda z: (z > 0).astype(int), 3, "sigmoid", "binary_crossentropy", "multi-label", "label_accuracy"),
}


@pytest.mark.parametrize("name", ["several labels", pytest.param("whole numbers", marks=pytest.mark.slow)])
def test_the_metric_is_the_same_in_report_verification_and_on_the_device(name, tmp_path):
    targets_of, width, activation, loss, kind, metric = CASES[name]
    data = table(targets_of)
    model = trained(network(width, activation), data.train.x, data.train.y, loss)
    report = xaic.compress(
        model,
        data,
        recipe="int8",
        budget=Budget(max_drop=50),
        training=xaic.Training(epochs=0),
        device=xaic.Device(baselines=(), target="mobile"),
        out=tmp_path / "out",
    )
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (written["schema"], written["task"], written["metric"]["name"]) == (2, kind, metric)
    outputs = edge.run_file(tmp_path / "out" / "model.tflite", data.test.x).outputs[0]
    by_hand = {
        "mse": lambda: sk.mean_squared_error(data.test.y, outputs),
        "label_accuracy": lambda: np.mean((outputs > 0.5) == data.test.y),
    }
    assert report.compressed.edge_metric == pytest.approx(by_hand[metric]())
    assert report.compressed.edge_accuracy is None
    assert xaic.verify(tmp_path / "out", data).edge_metric == report.compressed.edge_metric
    script = tmp_path / "out" / "check" / "edge_check.py"
    done = subprocess.run([sys.executable, str(script), "--runs", "0"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{metric} " in done.stdout


def test_one_bundle_has_one_accuracy_however_its_inputs_are_scaled(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (200, 6), dtype=np.uint8)
    labels = (pixels[:, 0] > pixels[:, 1]).astype(int)
    model = trained(network(2, "softmax"), pixels / 255.0, labels, "sparse_categorical_crossentropy")
    raw = Data(Samples(pixels, labels), Samples(pixels, labels))
    report = xaic.compress(
        model,
        raw,
        recipe="int8",
        training=xaic.Training(epochs=0),
        device=xaic.Device(baselines=(), target="mobile"),
        options=xaic.DataOptions(scale=1 / 255),
        budget=Budget(max_drop=50),
        out=tmp_path / "out",
    )
    assert report.compressed.edge_accuracy > 0.8
    for data in (raw, Data(*[Samples(pixels, labels, 1 / 255)] * 2), ((pixels, labels), (pixels, labels))):
        assert xaic.verify(tmp_path / "out", data).edge_accuracy == report.compressed.edge_accuracy
    with pytest.raises(DataError, match="scaled by"):
        xaic.verify(tmp_path / "out", Data(Samples(pixels, labels, 1 / 127)))


def test_labels_that_do_not_fit_are_doubted_before_any_work(tmp_path):
    data = table(lambda z: z.argmax(axis=1))
    model = trained(network(3, "softmax"), data.train.x, data.train.y, "sparse_categorical_crossentropy")
    wrong = Data(data.train, Samples(data.test.x, (data.test.y + 1) % 3))
    with pytest.warns(XaicWarning, match="no better than chance"):
        report = xaic.compress(
            model,
            wrong,
            recipe="int8",
            training=xaic.Training(epochs=0),
            device=xaic.Device(baselines=(), target="mobile"),
            out=tmp_path / "out",
        )
    assert any("no better than chance" in one for one in report.warnings)
