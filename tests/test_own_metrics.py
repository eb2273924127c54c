"""Metrics that are functions, or Keras metrics, of the user's own: they choose epochs and judge, and files do without them."""

import functools
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import XaicWarning
from keras_xaic.metrics import Task
from keras_xaic.settings import DataOptions

K = keras.metrics


def top_two(labels, outputs):
    """Of arrays: the share of samples whose class is among the two largest outputs."""
    order = np.argsort(outputs, axis=1)[:, -2:]
    return np.mean([label in row for label, row in zip(labels, order)])


def squared_error(targets, outputs):
    """Of tensors alone, as functions for `compile` are written."""
    return tf.reduce_mean(tf.square(targets - outputs), axis=-1)


def accuracy(labels, outputs):
    return 0.25


class Spread(K.Metric):
    """Largest output minus the smallest, over all updates."""

    def __init__(self):
        super().__init__(name="spread")
        self.low = self.add_weight(name="low", initializer="ones")
        self.high = self.add_weight(name="high", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.low.assign(tf.minimum(self.low, tf.reduce_min(y_pred)))
        self.high.assign(tf.maximum(self.high, tf.reduce_max(y_pred)))

    def result(self):
        return self.high - self.low

    def reset_state(self):
        self.low.assign(1.0)
        self.high.assign(0.0)


def of(metric, kind="classification", outputs=3):
    return Task(kind, outputs).judged_by(DataOptions(metric=metric).metric)


LABELS = np.array([0, 1, 2, 1])
OUTPUTS = np.array([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]], np.float32)


@pytest.mark.parametrize(
    ("given", "name", "value", "better"),
    [
        (top_two, "top_two", 0.75, "higher"),
        (lambda y, p: float(p[0, 0]), "lambda", 0.6, "higher"),
        (functools.partial(lambda y, p, k: k, k=7), "lambda", 7.0, "higher"),
        (accuracy, "own_accuracy", 0.25, "higher"),
        (Spread(), "spread", 0.5, "higher"),
        (Spread, "spread", 0.5, "higher"),
        (K.SparseTopKCategoricalAccuracy(k=2), "own_sparse_top_k_categorical_accuracy", 0.75, "higher"),
        (K.MeanMetricWrapper(top_two), "top_two", 0.75, "higher"),
        ([top_two], "top_two", 0.75, "higher"),
    ],
)
def test_functions_and_metrics_of_ones_own_judge(given, name, value, better):
    task = of(given)
    assert (task.metric_name, task.metric.better) == (name, better)
    assert task.score(OUTPUTS, LABELS) == pytest.approx(value)
    assert task.goodness(OUTPUTS, type("Labelled", (), {"y": LABELS})) == pytest.approx(value)


def test_functions_of_tensors_get_what_fit_gives_them():
    task = of(squared_error, "regression", 1)
    assert task.metric.better == "lower"
    # targets (4,) beside outputs (4, 1): broadcast against each other they would give another number
    assert task.score(np.array([[1.0], [2.0], [3.0], [5.0]], np.float32), np.array([1, 2, 3, 4])) == 0.25


def test_keras_metrics_that_are_set_otherwise_judge_as_keras_does():
    binary, outputs, labels = "binary", np.array([[0.2], [0.4], [0.7], [0.9]], np.float32), np.array([0, 1, 0, 1])
    for metric in (
        K.AUC(curve="PR"),
        K.BinaryAccuracy(threshold=0.3),
        K.Precision(),
        K.Recall(),
        K.MeanAbsolutePercentageError(),
    ):
        metric.update_state(labels, outputs[:, 0])
        expected = float(metric.result())
        assert of(metric, binary, 1).score(outputs, labels) == pytest.approx(expected)
        assert float(metric.result()) == pytest.approx(expected)  # the user's object holds what it held


def test_which_way_is_better_can_be_said():
    def distance_to_go(y, p):
        return 1.0

    def gap(y, p):
        return 1.0

    gap.better = "lower"
    assert of(distance_to_go).metric.better == "lower"
    assert of(gap).metric.better == "lower"
    distance_to_go.better = "higher"
    assert of(distance_to_go).metric.better == "higher"


@pytest.mark.parametrize(
    "loss", [keras.losses.Huber(), keras.losses.huber, keras.losses.LogCosh, K.Poisson(), K.LogCoshError()]
)
def test_losses_are_better_the_lower_they_are(loss):
    assert of(loss, "regression", 1).metric.better == "lower"
    assert of(loss, "regression", 1).score(np.array([[2.0], [4.0]], np.float32), np.array([1.0, 4.0])) is not None


def test_a_metric_that_finds_chance_better_is_doubted():
    def misses(labels, outputs):
        return np.mean(outputs.argmax(axis=1) != labels)

    labels = np.arange(60) % 3
    outputs = np.eye(3, dtype=np.float32)[labels]
    doubt = of(misses).doubt(outputs, labels)
    assert "misses is 0, targets in random order give 0.6" in doubt
    assert "better = 'lower'" in doubt
    misses.better = "lower"
    assert of(misses).doubt(outputs, labels) is None
    assert of(top_two).doubt(outputs, labels) is None


def test_drops_are_in_percent_of_the_original():
    up, down = of(top_two), of(squared_error)
    assert (up.drop(30.0, 29.4), up.metric.drop_unit) == (pytest.approx(2.0), "%")
    assert down.drop(0.5, 0.51) == pytest.approx(2.0)
    assert up.drop(-2.0, -2.1) == pytest.approx(5.0)
    assert up.drop(0.0, 0.0) == 0.0
    assert up.drop(0.0, -1.0) is None
    assert (up.drop(0.0, 1.0), down.drop(0.0, -1.0)) == (0.0, 0.0), "nothing was lost"
    assert (up.drop(1.0, 0.95), down.drop(0.5, 0.55)) == (5.0, 10.0), "limits of 5 and 10 per cent are kept"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda y, p: 1 / 0, "metric lambda failed on targets .*: ZeroDivisionError: division by zero"),
        (lambda y, p: None, "metric lambda is nan"),
        (lambda y, p: float("nan"), "metric lambda is nan of 4 samples. Expected a finite number"),
        (lambda y, p: "good", "metric lambda failed"),
    ],
)
def test_functions_that_fail_are_one_line(given, said):
    with pytest.raises(xaic.XaicError, match=said):
        of(given).score(OUTPUTS, LABELS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda outputs: 1.0, "a function of two arguments"),
        (type("Needs", (K.Mean,), {"__init__": lambda self, size: None}), "making one failed"),
    ],
)
def test_what_cannot_be_called_is_said_at_once(given, said):
    with pytest.raises(xaic.PlanError, match=said):
        DataOptions(metric=given)


def test_a_failing_metric_is_said_before_any_work(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    x, y = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), np.arange(40) % 3
    with pytest.raises(xaic.XaicError, match=r"metric lambda failed .*KeyError"):
        xaic.compress(model, (x, y), out=tmp_path / "out", options=DataOptions(metric=lambda y, p: {}["a"]))
    assert not (tmp_path / "out").exists()


def test_what_a_bundle_remembers_of_it_judges_as_usual_and_names_it():
    there = Task.of(json.loads(json.dumps(of(top_two).facts())))
    assert (there.metric_name, there.missing, there.score(OUTPUTS, LABELS)) == ("accuracy", "top_two", 0.75)
    assert there.judged_by(DataOptions(metric=top_two).metric).missing == ""


@pytest.mark.slow
def test_a_run_is_judged_by_it_and_its_files_say_so(tmp_path):
    """Report: the function's own value of the file's outputs; verify and the device: one line, and the usual metric."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax", name="head")])
    model.set_weights([np.eye(4, 3) + np.random.default_rng(1).normal(size=(4, 3)) * 0.4, np.zeros(3)])  # better than chance
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    y, seen = x[:, :3].argmax(axis=1), []

    def doubled(labels, outputs):
        seen.append(len(labels))
        return 2.0 * np.mean(outputs.argmax(axis=1) == labels)

    options = DataOptions(metric=doubled)
    report = xaic.compress(
        model,
        {"x_train": x[:80], "y_train": y[:80], "x_test": x[80:], "y_test": y[80:]},
        recipe="int8",
        out=tmp_path / "b",
        options=options,
        device=xaic.Device("mobile", baselines=()),
        training=xaic.Training(epochs=0),
        budget=xaic.Budget(max_drop=100),
    )
    own = {"x_test": x[80:], "y_test": y[80:], "x_train": x[:80], "y_train": y[:80]}
    assert (report.metric.name, report.metric.better) == ("doubled", "higher")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged = xaic.verify(tmp_path / "b", own, options=options)
    truth = 2.0 * np.mean(np.asarray(judged.runs[judged.judge.interpreter].outputs).argmax(axis=1) == y[80:])
    assert report.compressed.edge_metric == judged.edge_metric == truth
    assert report.original.keras_metric == 2.0 * np.mean(model.predict(x[80:], verbose=0).argmax(axis=1) == y[80:])
    assert "doubled" in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    with pytest.warns(XaicWarning, match="doubled is a function of your own.*accuracy judges here"):
        usual = xaic.verify(tmp_path / "b", own)
    assert (usual.metric.name, usual.edge_metric) == ("accuracy", truth / 2)
    check = tmp_path / "b" / "check"
    done = subprocess.run([sys.executable, check / "edge_check.py"], capture_output=True, text=True, check=True)
    assert "the report's doubled is a function that no bundle holds" in done.stdout
    assert "PASS" in done.stdout
    assert json.loads((check / "task.json").read_text())["metric"]["name"] == "doubled"


def test_a_file_of_which_it_has_no_value_is_there_with_its_report(tmp_path):
    """What was trained for hours is not lost because a ratio of the user's divides by zero."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax", name="head")])
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    right = model.predict(x, verbose=0)

    def ratio(labels, outputs):
        rounded = 1e-5 < np.abs(outputs - right[: len(outputs)]).max() < 0.1
        return np.nan if rounded else 1.0

    with pytest.warns(XaicWarning, match="metric ratio is nan of 80 samples"):
        report = xaic.compress(
            model,
            {"x_train": x, "y_train": right.argmax(axis=1), "x_test": x, "y_test": right.argmax(axis=1)},
            recipe="int8",
            out=tmp_path / "b",
            options=DataOptions(metric=ratio),
            device=xaic.Device("mobile", baselines=("int8",)),
            training=xaic.Training(epochs=0),
            budget=xaic.Budget(max_drop=5),
        )
    assert report.original.edge_metric == 1.0
    assert report.compressed.edge_metric is report.compressed.drop_pp is None
    assert report.budget.met is False
    assert "ratio was not measured, at most 5 % was allowed" in report.verdict
    assert (tmp_path / "b" / "model.tflite").is_file()
