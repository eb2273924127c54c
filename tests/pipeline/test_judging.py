"""One notion of task and metric, from training to the device."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import sklearn.metrics as sk

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.errors import DataError, XaicWarning
from keras_xaic.keras_metrics import metric_names
from keras_xaic.metrics import Task
from keras_xaic.pipeline.judging import Judge
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


@pytest.mark.slow
def test_a_segmentation_model_on_the_device_and_as_source(tmp_path):
    """A mask of one channel; the check script's mean IoU is that of numpy, and the source holds the file."""
    rng = np.random.default_rng(0)
    y = np.zeros((160, 12, 12, 1), np.uint8)
    for one, (a, b) in zip(y, rng.integers(0, 7, (160, 2))):
        one[a : a + 5, b : b + 5] = 1
    x = (y + 0.4 * rng.normal(size=y.shape)).astype(np.float32)
    keras.utils.set_random_seed(0)
    start = keras.Input((12, 12, 1))
    small = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(start)
    both = layers.Concatenate()([layers.UpSampling2D()(small), start])
    model = trained(
        keras.Model(start, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(both)), x, y, "binary_crossentropy"
    )
    data = Data(Samples(x[:120], y[:120]), Samples(x[120:], y[120:]))
    options = {"training": xaic.Training(epochs=0), "device": xaic.Device(baselines=())}
    report = xaic.compress(model, data, recipe="int8", budget=Budget(max_drop=50), out=tmp_path / "out", **options)
    assert (report.task, report.metric.name) == ("segmentation", "mean_iou")
    found = edge.run_file(tmp_path / "out" / "model.tflite", data.test.x).outputs[0].reshape(data.test.y.shape) > 0.5
    truth = data.test.y == 1
    by_hand = np.mean([(found & truth).sum() / (found | truth).sum(), (~found & ~truth).sum() / (~found | ~truth).sum()])
    assert report.compressed.edge_metric == pytest.approx(by_hand)
    check = [sys.executable, str(tmp_path / "out" / "check" / "edge_check.py"), "--runs", "0"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mean_iou " in done.stdout
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    source = tmp_path / "out" / "micro" / "model_data.cc"
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(tmp_path / "model_data.o")]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


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


def test_a_round_is_judged_where_a_group_of_samples_has_all_of_a_class(monkeypatch):
    y = np.zeros(60, int)
    y[[3, 13]] = 1  # the same group
    own = np.random.default_rng(0).uniform(size=(60, 1))
    given = types.SimpleNamespace(together=np.where(y[:, None] == 1, 0.7, own))
    monkeypatch.setattr(edge, "run_file", lambda *_, **__: given)
    judge = Judge(Samples(np.zeros((60, 2)), y), Task("binary", 1, "sigmoid", "auc"), given.together)
    good, lost, doubt = judge(pathlib.Path("model.tflite"))
    assert good == pytest.approx(sk.roc_auc_score(y, given.together[:, 0]))
    assert (lost, doubt) == (0.0, 0.0)


def precision(targets, outputs):
    yes = outputs[:, 0] > 0.5
    with np.errstate(invalid="ignore"):
        return np.float64(np.sum(yes & (targets.reshape(-1) == 1))) / np.sum(yes)


def test_a_round_for_which_ones_own_metric_has_no_value_is_worse_than_any(monkeypatch):
    y = np.arange(60) % 2
    never = types.SimpleNamespace(together=np.full((60, 1), 0.3))
    monkeypatch.setattr(edge, "run_file", lambda *_, **__: never)
    task = Task("binary", 1, "sigmoid").judged_by(metric_names(precision))
    judge = Judge(Samples(np.zeros((60, 2)), y), task, y[:, None] * 0.9)
    assert judge(pathlib.Path("model.tflite")) == (-np.inf, np.inf, 0.0)
    assert task.goodness(never.together, judge.samples) == -np.inf
    with pytest.raises(DataError, match="precision is nan of 60 samples"):
        task.score(never.together, y)


@pytest.mark.parametrize(("key", "row"), [("x_train", 5), ("x_test", 7)])
def test_samples_for_which_the_model_gives_nan_are_named(tmp_path, key, row):
    tokens = np.random.default_rng(0).integers(1, 9, (30, 6))
    data = {"x_train": tokens[:20], "y_train": np.arange(20) % 2, "x_test": tokens[20:], "y_test": np.arange(10) % 2}
    data[key][row] = 0  # padding alone, of which a mean is 0 / 0
    embedding = layers.Embedding(9, 4, mask_zero=True)
    model = keras.Sequential([keras.Input((6,)), embedding, layers.GlobalAveragePooling1D(), layers.Dense(2, "softmax")])
    device = xaic.Device(target="mobile", baselines=())
    with pytest.raises(DataError, match=rf"NaN for 1 of \d+ samples of {key}, such as {key}\[{row}\]"):
        xaic.compress(model, data, out=tmp_path / "out", recipe="int8", training=xaic.Training(epochs=0), device=device)
