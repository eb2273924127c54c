"""Training that matches explanations: what its maps are, what its gradient may do, what it changes, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Data, Samples
from keras_xaic.errors import PlanError
from keras_xaic.metrics import Task
from keras_xaic.models import infer_task
from keras_xaic.training import Schedule, fit, predict
from keras_xaic.training.explanations import Taught, _joined, explain, maps_of
from tests.nets import linear


def task_of(model, x):
    return infer_task(model, Data(Samples(x)))


def unit(maps):
    flat = maps.reshape(len(maps), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_a_map_is_gradient_times_input_of_what_the_original_decides():
    random = np.random.default_rng(0)
    weights, x = random.normal(size=(7, 4)), random.normal(size=(20, 7)).astype(np.float32)
    model = linear(weights)
    outputs = predict(model, Samples(x))
    decided = (x @ weights).argmax(1)
    centred = weights - weights.mean(1, keepdims=True)  # softmax is the same for logits that differ by a constant
    found = explain(model, Samples(x), task_of(model, x), outputs, batch_size=8)
    np.testing.assert_allclose(found, unit(x * centred.T[decided]), atol=2e-3)


def test_maps_of_images_are_means_over_squares_and_of_values_in_the_direction_of_the_outputs():
    random = np.random.default_rng(1)
    x = random.normal(size=(5, 16, 16, 3)).astype(np.float32)
    kernel = random.normal(size=(768, 2)).astype(np.float32)
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(2, use_bias=False)])
    model.set_weights([kernel])
    outputs = x.reshape(5, -1) @ kernel
    slope = (outputs @ kernel.T).reshape(x.shape)
    pooled = (x * slope).sum(-1).reshape(5, 8, 2, 8, 2).mean((2, 4))
    task = infer_task(model, Data(Samples(x, outputs)))
    found = maps_of(model, task, [tf.constant(x)], [tf.constant(outputs)]).numpy()
    np.testing.assert_allclose(found, unit(pooled), atol=1e-4)


def test_its_gradient_never_works_against_the_loss_of_the_outputs_and_has_its_share_of_the_length():
    random = np.random.default_rng(2)
    main = [random.normal(size=(3, 2)), random.normal(size=4)]
    for sign in (1, -1):
        other = [sign * one + 0.1 * random.normal(size=one.shape) for one in main]
        tensors = [[tf.constant(one, tf.float32) for one in part] for part in (main, other)]
        joined = np.concatenate([one.numpy().ravel() for one in _joined(*tensors, 0.5)])
        a, b = (np.concatenate([one.ravel() for one in part]) for part in (main, other))
        extra = joined - a
        assert np.linalg.norm(extra) == pytest.approx(0.5 * np.linalg.norm(a), rel=1e-4)
        assert extra @ a >= -1e-3
        if a @ b > 0:
            assert extra @ b == pytest.approx(np.linalg.norm(extra) * np.linalg.norm(b), rel=1e-4)


def test_a_gradient_that_is_no_number_does_not_ruin_training():
    main, other = tf.constant([1.0, 2.0]), tf.constant([np.nan, 1.0])
    assert _joined([main], [other], 0.5)[0].numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("kind", "activation"), [("classification", "softmax"), ("multi-label", "sigmoid")])
def test_maps_can_be_derived_however_sure_the_original_is(kind, activation):
    x = np.float32([[80.0, 1.0, 2.0]])
    model = linear(np.eye(3), activation)
    with tf.GradientTape() as tape:
        maps = maps_of(model, Task(kind, 3, activation, ""), [tf.constant(x)], [model(x)])
        value = tf.reduce_sum(maps**3)
    assert np.isfinite(maps).all()
    assert np.isfinite(tape.gradient(value, model.trainable_variables)[0]).all()


@pytest.fixture(scope="module")
def twins():
    """Every input is there twice. The original uses the first of each pair, the student the second: outputs do not tell."""
    random = np.random.default_rng(3)
    once = random.normal(size=(256, 6)).astype(np.float32)
    x, weights = np.concatenate([once, once], axis=1), random.normal(size=(6, 3))
    teacher = linear(np.concatenate([weights, np.zeros((6, 3))]))
    return teacher, Samples(x), np.concatenate([np.zeros((6, 3)), weights * 0.7])


def alike(teacher, student, samples):
    outputs = predict(teacher, samples)
    maps = [explain(one, samples, task_of(teacher, samples.x), outputs).astype(float) for one in (teacher, student)]
    return float((maps[0] * maps[1]).sum(1).mean())


def test_a_student_comes_to_look_where_the_original_does(twins):
    teacher, samples, start = twins
    task, outputs = task_of(teacher, samples.x), predict(teacher, samples)
    held_back = task.labelled(samples, outputs)
    found = {}
    for share in (0.0, 2.0):
        student = linear(start)
        maps = explain(teacher, samples, task, outputs) if share else None
        schedule = Schedule(epochs=15, learning_rate=0.02, batch_size=32, explanation_loss=share, select_from=1.0)
        history = fit(student, samples, held_back, task, schedule, teacher=Taught(outputs, maps))
        assert history[-1].held_back > 0.97
        assert "train_step" not in vars(student), "the model trains as ever afterwards"
        found[share] = alike(teacher, student, samples)
    assert found[0.0] < 0.8
    assert found[2.0] > found[0.0] + 0.1


def test_models_without_gradients_at_their_inputs_are_refused_before_work(tmp_path):
    stack = [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3, "softmax")]
    x = np.random.default_rng(0).integers(0, 9, (20, 6))
    training = xaic.Training(epochs=1, explanation_loss=0.5)
    with pytest.raises(PlanError, match=r"explanation_loss, and the model's inputs have no gradient.*Leave out"):
        xaic.compress(keras.Sequential(stack), (x, np.arange(20) % 3), out=tmp_path / "out", training=training)


def test_outputs_alone_cannot_teach_reasons():
    model, x = linear(np.eye(3)), np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    training = xaic.Training(epochs=1, seed=0, explanation_loss=0.5)
    with pytest.raises(PlanError, match="a teacher that is outputs alone"):
        xaic.apply(model, xaic.Plan(), (x, np.arange(20) % 3), training=training, teacher=np.zeros((18, 3), np.float32))


@pytest.mark.parametrize("wrong", [-0.1, 11, "much"])
def test_a_wrong_share_is_refused_by_name(wrong):
    with pytest.raises(PlanError, match="explanation_loss"):
        xaic.Training(explanation_loss=wrong)
