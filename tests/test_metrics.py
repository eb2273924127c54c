"""Metrics against scikit-learn as independent truth."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from keras_xaic import metrics
from keras_xaic.data import Samples
from keras_xaic.errors import DataError
from keras_xaic.metrics import METRICS, Task

RNG = np.random.default_rng(0)


def scores(samples: int, classes: int) -> np.ndarray:
    raw = RNG.uniform(size=(samples, classes))
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def score(kind: str, metric: str, outputs: np.ndarray, targets: np.ndarray, activation: str = "softmax") -> float:
    width = int(np.prod(outputs.shape[1:])) if kind in ("regression", "reconstruction") else outputs.shape[-1]
    return Task(kind, width, activation, metric).score(outputs, targets)


def test_classification_is_scikit_learns():
    labels, outputs = RNG.integers(0, 8, 300), scores(300, 8)
    one_hot, chosen = np.eye(8)[labels], outputs.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(labels, chosen),
        "top5": sk.top_k_accuracy_score(labels, outputs, k=5),
        "f1": sk.f1_score(labels, chosen, average="macro"),
        "auc": np.mean([sk.roc_auc_score(labels == c, outputs[:, c]) for c in range(8)]),
    }
    for name, value in expected.items():
        for targets in (labels, labels[:, None], one_hot, labels.astype(float)):
            assert score("classification", name, outputs, targets) == pytest.approx(value, abs=1e-12), name


def test_quantized_ties_take_the_first_class_as_keras_does():
    assert score("classification", "accuracy", np.array([[0.5, 0.5]]), np.array([0])) == 1.0
    assert score("classification", "accuracy", np.array([[0.5, 0.5]]), np.array([1])) == 0.0


@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_binary_outputs_inside_0_and_1_are_read_by_what_the_model_ends_in(activation):
    labels = RNG.integers(0, 2, 200)
    outputs = np.round(0.3 * labels + RNG.uniform(0.05, 0.7, 200), 1)[:, None]  # rounded: many ties
    threshold = 0.5 if activation == "sigmoid" else 0.0
    chosen = outputs[:, 0] > threshold
    for name, value in (
        ("accuracy", sk.accuracy_score(labels, chosen)),
        ("f1", sk.f1_score(labels, chosen)),
        ("auc", sk.roc_auc_score(labels, outputs[:, 0])),
    ):
        for targets in (labels, labels[:, None], labels.astype(np.float32), labels.astype(bool)):
            assert score("binary", name, outputs, targets, activation) == pytest.approx(value, abs=1e-12)


def test_two_columns_are_two_classes():
    labels, outputs = RNG.integers(0, 2, 100), scores(100, 2)
    assert score("classification", "auc", outputs, labels) == pytest.approx(sk.roc_auc_score(labels, outputs[:, 1]))
    assert score("classification", "f1", outputs, labels) == pytest.approx(sk.f1_score(labels, outputs.argmax(1)))


def test_labels_each_for_itself_are_scikit_learns():
    truth = (RNG.uniform(size=(200, 4)) < [0.5, 0.1, 0.9, 0.3]).astype(int)
    logits = RNG.normal(size=(200, 4)) + truth
    chosen = (logits > 0).astype(int)
    assert score("multi-label", "label_accuracy", logits, truth, "linear") == pytest.approx(np.mean(chosen == truth))
    assert score("multi-label", "f1", logits, truth, "linear") == pytest.approx(sk.f1_score(truth, chosen, average="macro"))
    assert score("multi-label", "auc", logits, truth, "linear") == pytest.approx(sk.roc_auc_score(truth, logits))


@pytest.mark.parametrize("one_hot", [False, True])
def test_segmentation_is_scikit_learns(one_hot):
    truth = RNG.integers(0, 3, (6, 5, 4))
    outputs = np.eye(4)[truth] + RNG.normal(0, 0.6, (6, 5, 4, 4))  # the last class occurs in answers only
    targets, chosen = np.eye(4)[truth] if one_hot else truth, outputs.argmax(-1)
    expected = sk.jaccard_score(truth.ravel(), chosen.ravel(), average="macro")
    assert score("segmentation", "mean_iou", outputs, targets) == pytest.approx(expected)
    assert score("segmentation", "pixel_accuracy", outputs, targets) == pytest.approx(np.mean(chosen == truth))


def test_masks_of_one_channel_count_the_background_as_a_class():
    truth = (RNG.uniform(size=(5, 6, 6)) < 0.3).astype(int)
    outputs = np.clip(truth + RNG.normal(0, 0.5, truth.shape), 0, 1)[..., None]
    expected = sk.jaccard_score(truth.ravel(), outputs.ravel() > 0.5, average="macro")
    for targets in (truth, truth[..., None]):
        assert score("segmentation", "mean_iou", outputs, targets, "sigmoid") == pytest.approx(expected)


def test_values_are_scikit_learns():
    truth = RNG.normal(size=(50, 3)) * [1, 10, 100]
    given = truth + RNG.normal(size=truth.shape)
    for name, value in (
        ("mse", sk.mean_squared_error(truth, given)),
        ("mae", sk.mean_absolute_error(truth, given)),
        ("rmse", sk.mean_squared_error(truth, given) ** 0.5),
        ("r2", sk.r2_score(truth, given)),
    ):
        assert score("regression", name, given, truth, "linear") == pytest.approx(value)
    flat = score("regression", "r2", np.ones((4, 1)), np.full(4, 2), "linear")
    assert flat == sk.r2_score(np.full(4, 2), np.ones(4)) == 0.0


def test_targets_that_do_not_belong_to_the_outputs_are_refused():
    with pytest.raises(DataError, match=r"mse of outputs \(2, 3\) and targets \(2,\)"):
        score("regression", "mse", np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(DataError, match="3 outputs and 2 targets"):
        score("classification", "accuracy", np.zeros((3, 2)), np.zeros(2, int))
    with pytest.raises(DataError, match="one class"):
        score("binary", "auc", np.array([[0.1], [0.2]]), np.array([1, 1]))


def test_agreement_is_of_decisions():
    a = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    task = Task("classification", 2)
    assert task.agreement(a, a[:, ::-1]) == 0.0
    assert task.agreement(a, np.array([[0.0, 1.0], [0.0, 1.0], [0.2, 0.3], [3.0, -1.0]])) == 0.75
    assert Task("regression", 2).agreement(a, a + 1) is None
    assert Task("multi-label", 2, "sigmoid").agreement(a, np.round(a)) == 1.0
    with pytest.raises(DataError, match=r"\(4, 2\).*\(3, 2\)"):
        task.agreement(a, a[:3])


def test_metrics_by_name_and_by_task():
    assert metrics.get_metric("Top-1") is METRICS["accuracy"]
    assert metrics.get_metric("mean-iou") is METRICS["mean_iou"]
    assert {name for name, one in METRICS.items() if one.better == "lower"} == {"mse", "mae", "rmse"}
    with pytest.raises(DataError, match=r"'acuracy' is not known.*accuracy"):
        metrics.get_metric("acuracy")
    with pytest.raises(DataError, match=r"mse does not judge the task binary.*accuracy, auc, f1"):
        Task("binary", 1, "sigmoid", "mse")
    with pytest.raises(DataError, match="3 classes is always 1"):
        Task("classification", 3, "softmax", "top5")
    for kind in metrics.KINDS:
        task = Task(kind, 9)
        assert kind in task.metric.tasks
        assert Task.of(task.facts()) == task
    assert Task.of({"task": "binary"}) is None


def test_drop_in_points_and_for_errors_in_percent():
    accuracy, mse, mae = METRICS["accuracy"], METRICS["mse"], METRICS["mae"]
    assert accuracy.drop(0.9, 0.885) == pytest.approx(1.5)
    assert accuracy.drop(1.0, 0.95) == 5.0, "a limit of 5 points is kept"
    assert accuracy.drop(0.9, 0.91) == pytest.approx(-1.0)
    assert mse.drop(0.2, 0.25) == pytest.approx(25.0)
    assert mae.drop(2.0, 1.0) == pytest.approx(-50.0)
    assert accuracy.drop(None, 0.9) is None
    assert mse.drop(0.0, 0.1) is None
    assert (accuracy.drop_unit, mse.drop_unit, METRICS["r2"].drop_unit) == ("pp", "%", "pp")


@pytest.mark.parametrize(("metric", "error"), [("mse", 0.05), ("mae", 0.02), ("rmse", 0.03)])
def test_a_drop_from_no_error_is_measured_by_the_best_constant(metric, error):
    targets = RNG.normal(3, 2, (400, 2))
    constant = {
        "mse": targets.var(axis=0).mean(),
        "mae": np.abs(targets - np.median(targets, axis=0)).mean(),
        "rmse": targets.var(axis=0).mean() ** 0.5,
    }[metric]
    task = Task("regression", 2, "linear", metric)
    assert task.drop(0.0, error, targets) == pytest.approx(100 * error / constant)
    assert task.drop(1e-9, error, targets) == pytest.approx(100 * error / constant, rel=1e-4)
    assert task.drop(error, 2 * error, targets) == pytest.approx(100.0)


def test_an_original_that_is_no_better_than_chance_is_doubted():
    labels = RNG.integers(0, 10, 400)
    right, task = np.eye(10)[labels] + RNG.normal(0, 0.3, (400, 10)), Task("classification", 10)
    assert task.doubt(right, labels) is None
    assert "no better than chance" in str(task.doubt(right, (labels + 1) % 10))  # labels that count from 1
    assert "no better than chance" in str(task.doubt(RNG.normal(size=(400, 10)), labels))
    assert "no better than chance" in str(task.doubt(np.tile([9.0] + [0.0] * 9, (400, 1)), labels))
    values = RNG.normal(5, 1, (200, 1))
    assert Task("regression", 1).doubt(values + 0.5 * RNG.normal(size=(200, 1)), values) is None
    assert "the best constant" in str(Task("regression", 1).doubt(values * 255, values))  # another scale
    few = np.array([0, 1, 0])
    assert Task("binary", 1, "sigmoid").doubt(few[:, None] * 1.0, few) is None


def test_samples_without_labels_get_what_the_model_decides():
    samples, logits = Samples(np.zeros((3, 2))), np.array([[0.2], [-3.0], [0.9]])
    assert Task("binary", 1).labelled(samples, logits).y.tolist() == [1, 0, 1]
    assert Task("binary", 1, "sigmoid").labelled(samples, logits).y.tolist() == [0, 0, 1]
    assert Task("regression", 1).labelled(samples, logits).y is logits


@pytest.mark.parametrize(("outputs", "said"), [(0, "a task with 0 outputs"), (-3, "-3 outputs")])
def test_a_task_without_outputs_is_none(outputs, said):
    with pytest.raises(DataError, match=said):
        Task("classification", outputs, "softmax")
    assert Task.of({"task": "classification", "outputs": outputs, "activation": "x", "metric": {"name": "accuracy"}}) is None


@pytest.mark.parametrize("outputs", [2, 4, 7, 10**30])
def test_outputs_of_another_task_are_refused(outputs):
    with pytest.raises(DataError, match=r"outputs of shape \(4, 3\)"):
        Task("classification", outputs, "softmax").score(np.zeros((4, 3)), np.arange(4) % 2)
