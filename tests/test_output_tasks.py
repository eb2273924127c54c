"""Several outputs judged together, against numbers that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.data import Data, Parts, Samples
from keras_xaic.errors import DataError
from keras_xaic.metrics import Task
from keras_xaic.output_tasks import Tasks, by_output, infer_all, output_weights, task_of
from keras_xaic.tasks import Head, with_task

NAMES = ("digit", "box")
TRUTH = Parts([np.array([0, 1, 2, 1]), np.array([[0.0], [1.0], [2.0], [3.0]])], NAMES)
RIGHT = np.eye(3)[[0, 1, 2, 1]]
WRONG = np.eye(3)[[0, 1, 2, 2]]


def tasks(weights=(1.0, 1.0)):
    return Tasks((Task("classification", 3, "softmax"), Task("regression", 1)), NAMES, weights)


def outputs(digit, box):
    return Parts([digit, np.asarray(box, float).reshape(-1, 1)], NAMES)


def test_each_output_has_its_metric_and_the_worst_drop_counts():
    original, small = outputs(RIGHT, [0, 1, 2, 4]), outputs(WRONG, [0, 1, 2, 5])
    does = tasks()
    before, after = does.score(original, TRUTH), does.score(small, TRUTH)
    assert (before, after) == ((1.0, 0.25), (0.75, 1.0))
    assert does.drops(before, after, TRUTH) == (25.0, 300.0)
    assert does.drop(before, after, TRUTH) == 300.0
    assert does.headed(does.worst(does.drops(before, after, TRUTH))).metric_name == "mse"
    only = tasks((1.0, 0.0))
    assert only.drop(before, after, TRUTH) == 25.0
    assert does.agreement(small, original) == 0.75
    assert does.agreements(small, original) == (0.75, None)


def test_goodness_is_the_weighted_mean_of_metrics_and_shares_of_the_variance():
    given = Samples(np.zeros((4, 1)), TRUTH)
    variance = np.var([0.0, 1.0, 2.0, 3.0])
    found = tasks((1.0, 3.0)).goodness(outputs(WRONG, [0, 1, 2, 5]), given)
    assert found == pytest.approx((0.75 - 3 * 1.0 / variance) / 4)


def test_without_targets_the_original_decides():
    answers = outputs(WRONG, [1, 2, 3, 4])
    labelled = tasks().labelled(Samples(np.zeros((4, 1))), answers)
    np.testing.assert_array_equal(labelled.y.arrays[0], [0, 1, 2, 2])
    np.testing.assert_array_equal(labelled.y.arrays[1], answers.arrays[1])


def test_a_task_for_each_output_is_read_from_its_own_head_and_targets():
    heads = [Head((3,), "softmax", "", (2,), "digit"), Head((1,), "linear", "", (2,), "box")]
    data = Data(Samples(np.random.default_rng(0).normal(size=(4, 2)), TRUTH))
    found = infer_all(heads, data)
    assert [one.kind for one in found.tasks] == ["classification", "regression"]
    found = infer_all(heads, data, metric="box=mae", weights="box=0.5,digit=2")
    assert [one.metric_name for one in found.tasks] == ["accuracy", "mae"]
    assert found.weights == (2.0, 0.5)
    with pytest.raises(DataError, match=r"output digit: .*metric mae does not judge the task classification"):
        infer_all(heads, data, metric="mae")


def test_what_is_ambiguous_names_the_output_and_the_option():
    heads = [Head((3,), "softmax", "", (2,), "digit"), Head((1,), "linear", "", (2,), "sure")]
    data = Data(Samples(np.ones((4, 2)), Parts([TRUTH.arrays[0], np.array([0.0, 1.0, 1.0, 0.0])], ("digit", "sure"))))
    with pytest.raises(DataError) as caught:
        infer_all(heads, data)
    assert "output sure: " in str(caught.value)
    assert "task='sure=binary'" in str(caught.value)
    assert infer_all(heads, data, task="sure=binary").tasks[1].kind == "binary"


def test_labels_of_each_output_are_read_as_people_count_them():
    heads = [Head((3,), "softmax", "", (2,), "digit"), Head((1,), "sigmoid", "", (2,), "sure"), Head((1,), "", "", (2,), "box")]
    digit, sure, box = np.array([1, 2, 3, 3], np.uint8), np.array([-1.0, 1, 1, -1]), np.array([1.0, 2, 3, 4.5])

    def given(digit):
        return Samples(np.ones((4, 2)), Parts([digit, sure, box], ("digit", "sure", "box")))

    data = Data(given(digit), given(digit[::-1].copy()))
    found = infer_all(heads, data)
    read = with_task(data, found)
    for part, way in ((read.train, 1), (read.test, -1)):
        for one, right in zip(part.y.arrays, ([0, 1, 2, 2][::way], [0, 1, 1, 0], box)):
            np.testing.assert_array_equal(one, right)
    outputs = Parts([np.eye(3)[[0, 1, 2, 2]], np.array([[0.1], [0.9], [0.9], [0.1]]), box[:, None]])
    assert found.score(outputs, read.train.y) == (1.0, 1.0, 0.0)
    assert with_task(read, found).train.y.arrays[0].tolist() == [0, 1, 2, 2]
    with pytest.raises(DataError, match=r"y_test\[2\] is class 0. Expected classes 1 to 3"):
        infer_all(heads, Data(given(digit), given(np.array([1, 2, 0, 3], np.uint8))))


def test_facts_say_everything():
    assert task_of(tasks((2.0, 0.5)).facts()) == tasks((2.0, 0.5))
    assert task_of(Task("regression", 1).facts()) == Task("regression", 1)
    assert task_of({"parts": [{"name": "a"}, {"name": "b"}]}) is None


@pytest.mark.parametrize(
    ("value", "weights"),
    [
        (None, (1.0, 1.0)),
        ("digit", (1.0, 0.0)),
        ("digit, box", (1.0, 1.0)),
        ("digit=2,box=0.25", (2.0, 0.25)),
        ({"box": 3}, (0.0, 3.0)),
        (["box"], (0.0, 1.0)),
    ],
)
def test_weights_of_outputs(value, weights):
    assert output_weights(value, NAMES) == weights


@pytest.mark.parametrize("value", ["other", "digit=-1", "digit=nan", "digit=0,box=0", "digit=x"])
def test_weights_that_are_none(value):
    with pytest.raises(DataError):
        output_weights(value, NAMES)


def test_one_word_is_for_all_outputs():
    assert by_output("metric", "mae", NAMES) == ["mae", "mae"]
    assert by_output("metric", {"box": "mae"}, NAMES) == [None, "mae"]
    with pytest.raises(DataError, match=r"metric of 'boxes'\. Expected NAME=VALUE with names of outputs: digit, box"):
        by_output("metric", "boxes=mae", NAMES)
