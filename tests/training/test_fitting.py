from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Data, Samples, as_data
from keras_xaic.errors import DataError, PlanError
from keras_xaic.metrics import Task
from keras_xaic.models import load_model
from keras_xaic.models.losses import Targets, carried_loss, loss_name, task_loss
from keras_xaic.models.task import infer_task
from keras_xaic.training import Epoch, Schedule, fit, predict, within_minutes
from keras_xaic.training.fitting import _Batches


def make_data(count=200, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(count, 8)) * 0.3
    x[np.arange(count), y] += 1.0
    return Samples(x.astype(np.float32), y)


def make_model(classes=3, activation="softmax"):
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", name="a"),
            layers.Dense(classes, activation=activation, name="b"),
        ]
    )


TASK = Task("classification", 3, "softmax")


def test_training_learns_and_keeps_the_best_epoch():
    model = make_model()
    held = make_data(seed=1)
    history = fit(model, make_data(), held, TASK, Schedule(12, 1e-2, 16))
    assert max(epoch.held_back for epoch in history) > 0.9
    assert TASK.goodness(predict(model, held), held) == max(epoch.held_back for epoch in history)


@pytest.mark.parametrize("kind", ["adam", keras.optimizers.legacy.Adam])
def test_what_is_compiled_is_traced_once_however_many_epochs(kind, monkeypatch):
    model, traced = make_model(), {True: 0, False: 0}
    layer = model.get_layer("b")
    call = layer.call

    def counted(inputs):
        traced[training] += 1
        return call(inputs)

    train_step, training = model.train_step, False

    def step(data):
        nonlocal training
        training = True
        try:
            return train_step(data)
        finally:
            training = False

    monkeypatch.setattr(layer, "call", counted)
    monkeypatch.setattr(model, "train_step", step)
    fit(model, make_data(), make_data(seed=1), TASK, Schedule(3, 1e-2, 64, optimizer=kind))
    assert traced == {True: 1, False: 1}


def test_training_that_makes_things_worse_is_undone():
    model, held = make_model(), make_data(seed=1)
    fit(model, make_data(), held, TASK, Schedule(10, 1e-2, 16))
    before = model.get_weights()
    fit(model, make_data(), held, TASK, Schedule(1, 30.0, 16))
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("spacing", [0.0, 3600.0])
def test_an_interrupted_run_continues_to_the_same_weights(tmp_path, monkeypatch, spacing):
    class Stop(Exception):
        pass

    monkeypatch.setattr("keras_xaic.training.state.SPACING", spacing)

    schedule, count = Schedule(5, 1e-2, 16), len(make_data())

    def stop_after_two(done, total, note):
        if done > 2 * schedule.steps_per_epoch(count):
            raise Stop

    whole = make_model()
    fit(whole, make_data(), make_data(seed=1), TASK, Schedule(5, 1e-2, 16))
    model = make_model()
    with pytest.raises(Stop):
        fit(model, make_data(), make_data(seed=1), TASK, schedule, checkpoint=tmp_path, progress=stop_after_two)
    again, steps = make_model(), []
    how = {"checkpoint": tmp_path, "progress": lambda done, total, note: steps.append(done)}
    history = fit(again, make_data(), make_data(seed=1), TASK, Schedule(5, 1e-2, 16), **how)
    assert len(history) == 5
    trained = 3 if spacing == 0.0 else 5  # of short epochs not every one is kept
    assert len(steps) == trained * schedule.steps_per_epoch(count)
    assert len(list(tmp_path.iterdir())) == 4  # the last state alone: epochs.json, the best weights, two of the checkpoint
    for one, other in zip(whole.get_weights(), again.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_distillation_loss_by_hand():
    teacher_logits, student_logits = np.array([[2.0, 0.0, -1.0]]), np.array([[0.5, 0.2, 0.1]])

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    labels, hot = np.array([0]), np.array([[1.0, 0, 0]])
    t, s = softmax(teacher_logits / 2), softmax(student_logits / 2)
    expected = 0.3 * -np.log(softmax(student_logits)[0, 0]) + 0.7 * 4 * (t * np.log(t / s)).sum()
    for activation, transform in (("linear", lambda z: z), ("softmax", softmax)):
        task = Task("classification", 3, activation)
        both = Targets(task, Samples(np.zeros((1, 1)), labels), transform(teacher_logits))[:]
        np.testing.assert_allclose(both[:, 0], hot)
        loss = task_loss(task, 0.7, 2.0)(tf.constant(both), tf.constant(transform(student_logits), tf.float32))
        assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_value_and_binary_losses_by_hand():
    both = tf.constant([[[1.0], [0.5]]])
    assert float(task_loss(Task("regression", 1), 0.25, 1.0)(both, tf.constant([[0.0]]))) == pytest.approx(0.75 + 0.25 * 0.25)
    target = 0.75 * 1.0 + 0.25 * 0.5
    expected = -(target * np.log(0.3) + (1 - target) * np.log(0.7))
    binary = task_loss(Task("binary", 1, "sigmoid"), 0.25, 1.0)
    assert float(binary(both, tf.constant([[0.3]]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "activation", "shape", "targets", "keras_loss"),
    [
        ("multi-label", "sigmoid", (4,), np.array([[1, 0, 1, 1], [0, 0, 1, 0]]), "binary_crossentropy"),
        ("segmentation", "softmax", (2, 3, 4), np.arange(12).reshape(2, 2, 3) % 4, "sparse_categorical_crossentropy"),
        ("segmentation", "sigmoid", (2, 3, 1), np.arange(12).reshape(2, 2, 3) % 2, "binary_crossentropy"),
        ("classification", "softmax", (4,), np.array([3, 1]), "sparse_categorical_crossentropy"),
        ("classification", "sigmoid", (4,), np.eye(4)[[3, 1]], "binary_crossentropy"),
        ("reconstruction", "linear", (2, 2, 1), np.arange(8).reshape(2, 2, 2, 1), "mean_squared_error"),
    ],
)
def test_the_loss_of_labels_is_the_one_keras_trains_such_a_task_with(kind, activation, shape, targets, keras_loss):
    outputs = tf.nn.softmax(tf.random.stateless_normal((2, *shape), (1, 2)), axis=-1)
    outputs = outputs if shape[-1] > 1 else tf.random.stateless_uniform((2, *shape), (1, 2))
    outputs_count = int(np.prod(shape)) if kind == "reconstruction" else shape[-1]
    task, samples = Task(kind, outputs_count, activation), Samples(np.zeros((2, 1)), targets)
    given = task_loss(task, 0.0, 1.0)(tf.constant(Targets(task, samples, None)[:]), outputs)
    known = targets.reshape(outputs.shape) if "sparse" not in keras_loss else targets
    expected = tf.reduce_mean(keras.losses.get(keras_loss)(tf.constant(known, tf.float32), outputs))
    assert float(given) == pytest.approx(float(expected), rel=1e-4)
    alike = task_loss(task, 1.0, 2.0)  # the model itself as its teacher: nothing to learn
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = alike(tf.constant(Targets(task, Samples(np.zeros((2, 1))), outputs.numpy())[:]), outputs)
    slope = tape.gradient(value, outputs)
    assert float(tf.reduce_max(tf.abs(slope - tf.reduce_mean(slope, axis=-1, keepdims=True)))) < 1e-5


def test_the_loss_that_a_model_carries_is_read_from_everything_keras_writes(tmp_path):
    for loss, name in (
        ("mse", "mean_squared_error"),
        (keras.losses.Huber(), "huber"),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), "sparse_categorical_crossentropy"),
        (keras.losses.KLDivergence(), "kl_divergence"),
        (["binary_crossentropy"], "binary_crossentropy"),
        (None, ""),
    ):
        model = make_model(1, None)
        model.compile("sgd", loss)
        assert carried_loss(model) == name
        for ending in (".keras", ".h5", "") if isinstance(loss, keras.losses.Huber) else (".h5",):
            model.save(tmp_path / f"m{ending}")
            assert carried_loss(load_model(tmp_path / f"m{ending}")) == name, ending
    keras3 = {"module": "keras.losses", "class_name": "BinaryCrossentropy", "config": {"from_logits": True}}
    assert loss_name(keras3) == "binary_crossentropy"
    assert loss_name({"only": "mae"}) == "mean_absolute_error"
    assert loss_name({"one": "mae", "two": "mse"}) == ""


def test_what_a_model_does_is_read_from_its_head_and_targets():
    x = np.zeros((4, 8), np.float32)
    assert infer_task(make_model(), as_data((x, np.arange(4) % 3))) == Task("classification", 3, "softmax")
    assert infer_task(make_model(activation=None), as_data((x, np.arange(4) % 3))) == Task("classification", 3)
    assert infer_task(make_model(activation=None), as_data((x, np.full((4, 3), 0.5)))) == Task("regression", 3)
    assert infer_task(make_model(1, "sigmoid"), as_data((x, np.arange(4) % 2))) == Task("binary", 1, "sigmoid")
    assert infer_task(make_model(), as_data(x)) == Task("classification", 3, "softmax")


def test_data_that_does_not_fit_is_named_before_training():
    with pytest.raises(DataError, match="x_train has samples of shape"):
        infer_task(make_model(), as_data((np.zeros((4, 9)), np.arange(4) % 3)))
    with pytest.raises(DataError, match="class 3"):
        infer_task(make_model(), as_data((np.zeros((4, 8)), np.arange(4))))
    a, b = keras.Input((2,)), keras.Input((2,))
    with pytest.raises(DataError, match=r"x_train has 1 inputs\. Expected 2"):
        infer_task(keras.Model([a, b], layers.Add()([a, b])), as_data(np.zeros((4, 2))))


def test_progress_counts_steps():
    told = []
    fit(
        make_model(),
        make_data(64),
        make_data(8),
        TASK,
        Schedule(2, 1e-2, 16),
        progress=lambda done, total, note: told.append((done, total)),
    )
    assert [done for done, _ in told] == list(range(1, 9))
    assert {total for _, total in told} == {8}


def test_without_labels_the_original_teaches():
    teacher = make_model()
    fit(teacher, make_data(), make_data(seed=1), TASK, Schedule(10, 1e-2, 16))
    samples = Samples(make_data(seed=2).x)
    outputs = predict(teacher, samples)
    keras.utils.set_random_seed(9)
    student = keras.models.clone_model(teacher)
    fit(student, samples, samples, infer_task(student, Data(samples)), Schedule(15, 1e-2, 16), teacher=outputs)
    assert (predict(student, samples).argmax(1) == outputs.argmax(1)).mean() > 0.9


def test_patience_ends_training_that_stands_still():
    history = fit(make_model(), make_data(), make_data(seed=1), TASK, Schedule(20, 1e-12, 16, patience=3))
    assert len(history) == 4


@pytest.mark.parametrize(
    ("values", "over"),
    [([], False), ([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6], False), ([0.1, 0.2, 0.3, 0.3, 0.3], True)],
)
def test_patience_counts_epochs_since_the_best(values, over):
    history = [Epoch(number, 0.0, value) for number, value in enumerate(values, 1)]
    assert Schedule(20, patience=2).is_over(history) is over
    assert not Schedule(20, patience=2, select_from=0.5).is_over(history)
    assert Schedule(len(values), patience=None).is_over(history)


def test_the_users_loss_optimizer_and_callbacks_are_used():
    seen = []

    def squared(labels, outputs):
        return tf.reduce_sum(tf.square(labels - outputs), axis=-1)

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, type(self.model.optimizer).__name__, float(self.model.optimizer.learning_rate)))
            self.model.stop_training = epoch == 1

    model, samples = make_model(), make_data()
    schedule = Schedule(3, 1e-2, 300, distillation=0.0, optimizer=keras.optimizers.SGD(0.03), loss=squared)
    outputs = predict(model, samples)
    history = fit(model, samples, make_data(seed=1), TASK, schedule, callbacks=[Watch()])
    assert seen == [(0, "SGD", pytest.approx(0.03)), (1, "SGD", pytest.approx(0.03))]
    assert history[0].loss == pytest.approx(np.square(np.eye(3)[samples.y] - outputs).sum(-1).mean(), rel=1e-5)


def test_the_users_loss_stands_beside_distillation():
    both, outputs = tf.constant([[[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]]]), tf.constant([[0.6, 0.3, 0.1]])
    own, taught = task_loss(TASK, 0.0, 2.0, "mse")(both, outputs), task_loss(TASK, 1.0, 2.0)(both, outputs)
    assert float(own) == pytest.approx((0.16 + 0.09 + 0.01) / 3, rel=1e-5)
    assert float(task_loss(TASK, 0.7, 2.0, "mse")(both, outputs)) == pytest.approx(
        0.3 * float(own) + 0.7 * float(taught), rel=1e-5
    )


@pytest.mark.parametrize("wrong", ["no_such_loss", keras.losses.SparseCategoricalCrossentropy(ignore_class=1)])
def test_losses_that_cannot_be_used_are_named(wrong):
    with pytest.raises(PlanError, match=r"loss is '(no_such_loss|sparsecategoricalcrossentropy)'"):
        task_loss(TASK, 0.5, 2.0, wrong)


def test_an_optimizer_that_does_not_exist_is_named():
    with pytest.raises(PlanError, match="optimizer is 'no_such'"):
        fit(make_model(), make_data(), make_data(seed=1), TASK, Schedule(1, optimizer="no_such"))


def test_a_share_of_the_samples_is_another_one_in_every_epoch():
    batches = [_Batches(make_data(), np.zeros(200), Schedule(2, batch_size=16, share=0.25), number) for number in (0, 1)]
    assert [len(one) for one in batches] == [4, 4] == [Schedule(1, batch_size=16, share=0.25).steps_per_epoch(200)] * 2
    assert set(batches[0].order) != set(batches[1].order)


def test_minutes_are_translated_to_epochs_and_leave_the_model_alone():
    model, data = make_model(), make_data()
    before = model.get_weights()
    plenty = within_minutes(model, data, TASK, Schedule(7, 1e-2, 16, minutes=60.0))
    assert (plenty.epochs, plenty.share) == (7, 1.0)
    few = within_minutes(model, data, TASK, Schedule(10**9, 1e-2, 16, minutes=0.05))
    assert 1 < few.epochs < 10**6
    short = within_minutes(model, data, TASK, Schedule(7, 1e-2, 16, minutes=1e-9))
    assert short.epochs == 1
    assert 0.0 < short.share < 1.0
    assert within_minutes(model, data, TASK, Schedule(7)) == Schedule(7)
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_same_seed_same_weights_and_another_seed_others():
    """What the slow tests say of whole runs, of training alone."""
    first, again, other = (make_model() for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        fit(model, make_data(64), make_data(64, seed=1), TASK, Schedule(2, 1e-2, 16, seed=seed))
    for one, same in zip(first.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(one, same)
    assert any((one != changed).any() for one, changed in zip(first.get_weights(), other.get_weights()))


def test_layers_that_need_to_know_shapes_are_trained():
    inputs = keras.Input((2,))
    bins = layers.Discretization([0.3, 0.6], output_mode="one_hot")(inputs[:, :1])
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([bins, inputs])))
    x = np.random.default_rng(0).uniform(0, 1, (64, 2)).astype(np.float32)
    samples = Samples(x, (x[:, 0] > 0.5).astype(np.int32))
    history = fit(model, samples, samples, Task("classification", 2, "linear"), Schedule(2, 1e-2, 16))
    assert len(history) == 2
    assert "train_step" not in vars(model)
