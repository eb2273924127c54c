from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from keras_xaic import metrics
from keras_xaic.errors import DataError

RNG = np.random.default_rng(11)


def scores(samples: int, classes: int) -> np.ndarray:
    raw = RNG.uniform(0.01, 1, (samples, classes)).astype(np.float32)
    return raw / raw.sum(axis=1, keepdims=True)


def test_accuracy_by_hand_for_integer_and_one_hot_labels():
    outputs = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    labels = np.array([1, 0, 1, 2])
    assert metrics.accuracy(outputs, labels) == 0.5
    assert metrics.accuracy(outputs, labels[:, None]) == 0.5
    assert metrics.accuracy(outputs, np.eye(3)[labels]) == 0.5


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_accuracy_of_one_score_knows_probabilities_from_logits(shape):
    labels = np.array([1, 0, 1, 0])
    assert metrics.accuracy(np.array([0.9, 0.4, 0.6, 0.6]).reshape(shape), labels) == 0.75
    assert metrics.accuracy(np.array([3.0, -0.1, 0.2, -2.0]).reshape(shape), labels) == 1.0


def test_accuracy_per_position():
    outputs = np.zeros((2, 3, 4))
    outputs[..., 1] = 1
    labels = np.array([[1, 1, 0], [1, 2, 3]])
    assert metrics.accuracy(outputs, labels) == 0.5


def test_accuracy_on_quantized_ties_takes_the_first_class_as_keras_does():
    assert metrics.accuracy(np.array([[0.5, 0.5]]), np.array([0])) == 1.0
    assert metrics.accuracy(np.array([[0.5, 0.5]]), np.array([1])) == 0.0


def test_agreement():
    a = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    assert metrics.agreement(a, a[:, ::-1]) == 0.0
    assert metrics.agreement(a, np.array([[0.0, 1.0], [0.0, 1.0], [0.2, 0.3], [3.0, -1.0]])) == 0.75
    with pytest.raises(DataError, match=r"\(4, 2\).*\(3, 2\)"):
        metrics.agreement(a, a[:3])


def test_mse_by_hand():
    assert metrics.mse(np.array([[1.0], [3.0]]), np.array([0.0, 1.0])) == 2.5
    assert metrics.METRICS["mse"].higher_is_better is False
    with pytest.raises(DataError, match="mse"):
        metrics.mse(np.zeros((2, 3)), np.zeros(2))


@pytest.mark.parametrize("shape", [(200,), (200, 1)])
def test_binary_auc_and_f1_are_scikit_learns(shape):
    labels = RNG.integers(0, 2, 200)
    score = np.clip(np.round(0.3 * labels + RNG.uniform(0, 0.7, 200), 1), 0, 1)  # rounded: many ties
    assert metrics.auc(score.reshape(shape), labels) == pytest.approx(sk.roc_auc_score(labels, score), abs=1e-12)
    assert metrics.f1(score.reshape(shape), labels) == pytest.approx(sk.f1_score(labels, score > 0.5), abs=1e-12)


def test_two_columns_are_a_binary_classifier():
    labels = RNG.integers(0, 2, 100)
    outputs = scores(100, 2)
    assert metrics.auc(outputs, labels) == pytest.approx(sk.roc_auc_score(labels, outputs[:, 1]))
    assert metrics.f1(outputs, labels) == pytest.approx(sk.f1_score(labels, outputs.argmax(1)))


def test_many_classes_are_scikit_learns_macro():
    labels, outputs = RNG.integers(0, 5, 300), scores(300, 5)
    expected = sk.roc_auc_score(labels, outputs, multi_class="ovr", average="macro")
    assert metrics.auc(outputs, labels) == pytest.approx(expected, abs=1e-6)
    assert metrics.auc(outputs, np.eye(5)[labels]) == pytest.approx(expected, abs=1e-6)
    assert metrics.f1(outputs, labels) == pytest.approx(sk.f1_score(labels, outputs.argmax(1), average="macro"))


def test_auc_of_one_class_is_refused():
    with pytest.raises(DataError, match="one class"):
        metrics.auc(np.array([0.1, 0.2]), np.array([1, 1]))


def test_metrics_by_name():
    assert {"accuracy", "auc", "f1", "mse"} == set(metrics.METRICS)
    with pytest.raises(DataError, match=r"'acc' is not known.*accuracy"):
        metrics.get_metric("acc")
    with pytest.raises(DataError, match="3 outputs and 2 targets"):
        metrics.get_metric("accuracy")(np.zeros((3, 2)), np.zeros(2, int))


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        (None, None),
        (np.array([1, 0]), "accuracy"),
        (np.array([True, False]), "accuracy"),
        (np.eye(3, dtype=np.float32), "accuracy"),
        (np.array([0.5, 1.0]), "mse"),
        (np.array([[0.5, 0.5]]), "mse"),
        (np.array([[0.0], [1.0]]), "mse"),
    ],
)
def test_default_metric(targets, name):
    assert metrics.default_metric(targets) == name


def test_drop_in_points_and_for_mse_in_percent():
    assert metrics.drop_pp(0.9, 0.885) == pytest.approx(1.5)
    assert metrics.drop_pp(0.9, 0.91) == pytest.approx(-1.0)
    assert metrics.drop_pp(0.2, 0.25, "mse") == pytest.approx(25.0)
    assert metrics.drop_pp(None, 0.9) is None
    assert metrics.drop_pp(0.0, 0.1, "mse") is None
