"""What a model does, from its output, loss, shapes and targets together."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.data import Data, Samples
from keras_xaic.errors import DataError, Spelling
from keras_xaic.metrics import Task
from keras_xaic.tasks import Head, infer, with_task

RNG = np.random.default_rng(0)
N = 40
CLASSES = RNG.integers(0, 3, N)
LABELS = (RNG.uniform(size=(N, 3)) < 0.5).astype(int)
YES_NO = RNG.integers(0, 2, N)
MASKS = RNG.integers(0, 3, (N, 4, 4))
IMAGES = RNG.uniform(size=(N, 4, 4, 1)).astype(np.float32)
REAL = RNG.normal(size=N).astype(np.float32)
CE, BCE, MSE = "sparse_categorical_crossentropy", "binary_crossentropy", "mean_squared_error"


def decide(shape, activation, loss, targets, inputs=(5,), **options):
    x = np.zeros((N, *inputs), np.float32) if targets is not IMAGES else IMAGES
    return infer(Head(shape, activation, loss, x.shape[1:]), Data(Samples(x, targets)), **options)


@pytest.mark.parametrize(
    ("kind", "shape", "activation", "loss", "targets"),
    [
        ("classification", (3,), "softmax", "", CLASSES),
        ("classification", (3,), "softmax", CE, None),
        ("classification", (3,), "linear", "", CLASSES),
        ("classification", (3,), "linear", "", np.eye(3)[CLASSES]),
        ("classification", (3,), "linear", CE, CLASSES.astype(np.float32)),
        ("classification", (3,), "softmax", MSE, np.eye(3)[CLASSES]),
        ("classification", (3,), "softmax", "", RNG.dirichlet(np.ones(3), N)),
        ("classification", (3,), "sigmoid", BCE, CLASSES),
        ("binary", (1,), "sigmoid", "", YES_NO),
        ("binary", (1,), "sigmoid", BCE, YES_NO.astype(np.float32)[:, None]),
        ("binary", (1,), "linear", BCE, YES_NO.astype(np.float32)),
        ("binary", (1,), "linear", "", YES_NO),
        ("binary", (1,), "linear", "", YES_NO.astype(bool)),
        ("binary", (1,), "linear", "hinge", 2 * YES_NO - 1),
        ("multi-label", (3,), "sigmoid", "", LABELS),
        ("multi-label", (3,), "sigmoid", BCE, LABELS.astype(np.float32)),
        ("multi-label", (3,), "linear", BCE, LABELS),
        ("regression", (1,), "linear", "", REAL),
        ("regression", (1,), "linear", MSE, RNG.integers(20, 300, N)),
        ("regression", (1,), "linear", "", RNG.integers(20, 300, (N, 1))),
        ("regression", (3,), "linear", "", RNG.integers(-5, 9, (N, 3))),
        ("regression", (3,), "linear", "", RNG.normal(size=(N, 3))),
        ("regression", (1,), "sigmoid", MSE, RNG.uniform(size=N)),
        ("regression", (3,), "sigmoid", "", RNG.uniform(size=(N, 3))),
        ("segmentation", (4, 4, 3), "softmax", "", MASKS),
        ("segmentation", (4, 4, 3), "linear", CE, MASKS[..., None]),
        ("segmentation", (4, 4, 3), "softmax", "", np.eye(3)[MASKS]),
        ("segmentation", (4, 4, 1), "sigmoid", "", MASKS % 2),
        ("segmentation", (4, 4, 1), "linear", BCE, (MASKS % 2)[..., None].astype(np.float32)),
        ("segmentation", (None, None, 3), "softmax", "", MASKS),
        ("regression", (4, 4, 1), "linear", "", RNG.uniform(size=(N, 4, 4))),
        ("reconstruction", (4, 4, 1), "sigmoid", "", IMAGES),
        ("reconstruction", (4, 4, 1), "sigmoid", BCE, IMAGES),
        ("reconstruction", (5,), "linear", "", None),
    ],
)
def test_output_loss_and_targets_together_say_what_a_model_does(kind, shape, activation, loss, targets):
    task = decide(shape, activation, loss, targets)
    assert task.kind == kind
    assert task.activation == activation
    if targets is not None:  # it can be judged at once
        outputs = RNG.uniform(size=(N, *[4 if size is None else size for size in shape]))
        assert np.isfinite(task.score(outputs, targets))


@pytest.mark.parametrize(
    ("first", "second", "shape", "activation", "loss", "targets"),
    [
        ("binary", "regression", (1,), "linear", "", YES_NO.astype(np.float32)),
        ("regression", "binary", (1,), "linear", MSE, YES_NO),
        ("regression", "binary", (1,), "linear", BCE, RNG.integers(0, 9, N)),
        ("classification", "multi-label", (3,), "sigmoid", BCE, np.eye(3)[CLASSES]),
        ("classification", "regression", (3,), "linear", MSE, np.eye(3)[CLASSES]),
        ("multi-label", "regression", (3,), "linear", "", LABELS.astype(np.float32)),
        ("segmentation", "regression", (4, 4, 1), "linear", "", (MASKS % 2).astype(np.float32)),
        ("regression", "classification", (3,), "linear", "", None),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_naming_both_and_the_options(first, second, shape, activation, loss, targets):
    with pytest.raises(DataError) as caught:
        decide(shape, activation, loss, targets)
    text = str(caught.value)
    assert "\n" not in text
    spelled = caught.value.render(spelled={name: Spelling.flag(f"--{name}") for name in ("task", "metric")})
    for kind in (first, second):
        assert f"as {kind} (" in text
        assert f"task='{kind}'" in text
        assert f"--task {kind}" in spelled
        if targets is None or kind != "binary" or np.max(targets) <= 1:
            assert decide(shape, activation, loss, targets, task=kind).kind == kind
    assert decide(shape, activation, loss, targets, strict=False).kind == first


@pytest.mark.parametrize(
    ("shape", "activation", "y", "metric", "expected"),
    [
        ((3,), "sigmoid", LABELS, "accuracy", "label_accuracy"),
        ((3,), "sigmoid", LABELS, "BinaryAccuracy", "label_accuracy"),
        ((1,), "sigmoid", CLASSES % 2, "binary_accuracy", "accuracy"),
        ((4, 4, 3), "softmax", MASKS, "sparse_categorical_accuracy", "pixel_accuracy"),
    ],
)
def test_accuracy_is_that_of_the_task_as_in_keras(shape, activation, y, metric, expected):
    assert decide(shape, activation, "", y, metric=metric).metric_name == expected


def test_a_metric_says_which_reading_is_meant():
    targets = YES_NO.astype(np.float32)
    assert decide((1,), "linear", "", targets, metric="mae") == Task("regression", 1, "linear", "mae")
    assert decide((1,), "linear", "", targets, metric="auc") == Task("binary", 1, "linear", "auc")


@pytest.mark.parametrize(
    ("shape", "activation", "targets", "options", "said"),
    [
        ((3,), "softmax", np.full(N, 3), {}, r"y_train\[0\] is class 3.*classes 0 to 2"),
        ((3,), "softmax", np.full(N, -1), {}, r"y_train\[0\] is class -1"),
        ((3,), "softmax", REAL, {}, r"targets of shape \(N,\) \(real numbers\) do not fit"),
        ((3,), "linear", np.zeros((N, 4)), {}, r"do not fit the output of shape \(3,\)"),
        ((4, 4, 3), "softmax", MASKS[:, :3], {}, "do not fit"),
        ((4, 4, 3), "softmax", np.where(MASKS == 2, 255, MASKS), {}, "is class 255"),
        ((1,), "sigmoid", RNG.integers(1, 3, N), {"task": "binary"}, r"is 2.*0 or 1"),
        ((3,), "softmax", np.eye(3)[CLASSES] * (CLASSES != 1)[:, None], {}, r"y_train\[\d+\] is 0 for every class"),
        ((4, 4, 3), "softmax", np.eye(3)[MASKS] * (MASKS != 1)[..., None], {}, "is 0 for every class.*-1 where a pos"),
        ((3,), "softmax", CLASSES, {"task": "binary"}, "task binary does not fit"),
        ((3,), "softmax", CLASSES, {"task": "guess"}, "task 'guess' is not known"),
        ((3,), "softmax", CLASSES, {"task": "regression"}, "y_train has shape"),
        ((3,), "softmax", CLASSES, {"metric": "mse"}, "mse does not judge the task classification"),
    ],
)
def test_targets_that_do_not_fit_are_named_before_any_work(shape, activation, targets, options, said):
    with pytest.raises(DataError, match=said):
        decide(shape, activation, "", targets, **options)


def test_test_targets_are_checked_too():
    x = np.zeros((N, 5), np.float32)
    data = Data(Samples(x, CLASSES), Samples(x, CLASSES + 1))
    with pytest.raises(DataError, match=r"y_test\[\d+\] is class 3"):
        infer(Head((3,), "softmax", "", (5,)), data)


def test_samples_keep_the_task_that_was_decided_for_them():
    task = Task("regression", 1)
    data = with_task(Data(Samples(np.zeros((N, 5)), RNG.integers(0, 9, N))), task)
    train, held_back = data.split()
    assert train.task is held_back.task is data.calibration(4).task is task
    assert train.labels is None  # whole numbers, but values
    assert Samples(np.zeros((N, 5)), REAL > 0, task=Task("binary", 1)).labels.tolist() == (REAL > 0).astype(int).tolist()
