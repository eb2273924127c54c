"""Keras' callbacks see a stage of training as they see `fit`: one run, full logs, and what they set stays set."""

from __future__ import annotations

import csv
import errno
import functools
import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.compression import apply
from keras_xaic.data import Samples
from keras_xaic.errors import MachineError, PlanError, XaicError, XaicWarning
from keras_xaic.metrics import Task
from keras_xaic.pipeline import compress
from keras_xaic.planning import Plan
from keras_xaic.settings import DataOptions, Device, Training
from keras_xaic.training import Schedule, check_training, fit, predict
from keras_xaic.training.fitting import _Batches

TASK = Task("classification", 3, "softmax")
MATCHING = {"batch_size": 16, "distillation": 0.0, "seed": 3}


def make_data(count=96, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.normal(size=(count, 8)) * 0.3
    x[np.arange(count), y] += 1.0
    return Samples(x.astype(np.float32), y)


TRAIN, HELD = make_data(), make_data(48, seed=1)


def make_model():
    keras.utils.set_random_seed(5)
    hidden = layers.Dense(12, activation="relu", name="a")
    return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(3, "softmax", name="b")])


def ours(callbacks, epochs=4, **options):
    return fit(make_model(), TRAIN, HELD, TASK, Schedule(epochs, 1e-2, **{**MATCHING, **options}), callbacks=callbacks)


class InOrder(keras.utils.Sequence):
    """The batches of our epochs, for a `fit` of Keras alone."""

    def __init__(self, schedule):
        from keras_xaic.models.losses import Targets

        self.batches = _Batches(TRAIN, Targets(TASK, TRAIN, None), schedule, 0)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        chosen = self.batches.order[index * 16 : (index + 1) * 16]
        return TRAIN.inputs(chosen), TRAIN.y[chosen]

    def on_epoch_end(self):
        self.batches.on_epoch_end()


def plain(callbacks, epochs=4, rate=1e-2, loss="sparse_categorical_crossentropy"):
    """What `fit` of Keras gives for the same epochs."""
    model = make_model()
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    schedule = Schedule(epochs, rate, **MATCHING)
    how = {"validation_data": (HELD.x, HELD.y), "validation_batch_size": MATCHING["batch_size"], "shuffle": False, "verbose": 0}
    model.fit(InOrder(schedule), epochs=epochs, callbacks=callbacks, **how)
    return model


def rows_of(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def constant(rate=1e-2):
    return keras.callbacks.LearningRateScheduler(lambda epoch, old: rate)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_csv_logger_records_what_it_records_in_fit(tmp_path, reduction):
    losses = {"mean": (None, "sparse_categorical_crossentropy")}
    losses["sum"] = (L.CategoricalCrossentropy(reduction="sum"), L.SparseCategoricalCrossentropy(reduction="sum"))
    loss, theirs = losses[reduction]
    ours([constant(), keras.callbacks.CSVLogger(tmp_path / "ours.csv")], loss=loss)
    plain([constant(), keras.callbacks.CSVLogger(tmp_path / "plain.csv")], loss=theirs)
    mine, theirs = rows_of(tmp_path / "ours.csv"), rows_of(tmp_path / "plain.csv")
    assert len(mine) == len(theirs) == 4
    assert set(theirs[0]) <= set(mine[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr"}
    for one, other in zip(mine, theirs):
        for name, value in other.items():
            assert one[name] == pytest.approx(value, abs=2e-4, rel=2e-4), name


def test_early_stopping_stops_where_it_stops_in_fit():
    class Count(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.begun = self.epochs = 0

        def on_train_begin(self, logs=None):
            self.begun += 1

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1

    def stop():
        return keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.08)

    one, other = Count(), Count()
    history = ours([constant(), one, stop()], epochs=12)
    plain([constant(), other, stop()], epochs=12)
    assert one.epochs == other.epochs == len(history) < 12
    assert one.begun == 1


def test_reduce_on_plateau_wins_over_our_schedule(tmp_path):
    def reduce():
        return keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=1, min_delta=10.0)

    ours([reduce(), keras.callbacks.CSVLogger(tmp_path / "ours.csv")], epochs=5)
    plain([reduce(), keras.callbacks.CSVLogger(tmp_path / "plain.csv")], epochs=5)
    rates = [[row["lr"] for row in rows_of(tmp_path / f"{name}.csv")] for name in ("ours", "plain")]
    np.testing.assert_allclose(*rates, rtol=1e-5)
    assert rates[0][-1] < 1e-4


def test_a_callback_of_ones_own_may_set_the_rate_and_else_the_cosine_holds():
    seen = []

    class Mine(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                keras.backend.set_value(self.model.optimizer.learning_rate, 0.5)

        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["lr"])

    ours([Mine()], epochs=4)
    assert 1e-2 > seen[0] > seen[1]
    assert seen[2:] == [0.5, 0.5]


def test_callbacks_that_only_look_on_change_nothing(tmp_path):
    one, other = make_model(), make_model()
    schedule = Schedule(3, 1e-2, **MATCHING)
    fit(one, TRAIN, HELD, TASK, schedule)
    fit(other, TRAIN, HELD, TASK, schedule, callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    for mine, theirs in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    assert rows_of(tmp_path / "log.csv")[0]["lr"] < 1e-2


def test_tensorboard_writes_one_run_per_stage(tmp_path):
    pytest.importorskip("tensorboard")  # newer TensorFlow does not bring it
    for name, run in (("ours", ours), ("plain", plain)):
        run([constant(), keras.callbacks.TensorBoard(tmp_path / name)])
    found = {}
    for name in ("ours", "plain"):
        files = list((tmp_path / name).rglob("events*"))
        tags = {}
        for file in files:
            for event in tf.compat.v1.train.summary_iterator(str(file)):
                for value in event.summary.value:
                    if value.tag.startswith("epoch_"):
                        tags[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
        found[name] = (sum("train" in str(file) for file in files), {step for _, step in tags}, tags)
    assert found["ours"][0] == found["plain"][0] == 1
    assert found["ours"][1] == found["plain"][1] == {0, 1, 2, 3}
    for tag, value in found["plain"][2].items():
        if tag in found["ours"][2]:
            assert found["ours"][2][tag] == pytest.approx(value, abs=2e-4), tag
    assert ("epoch_loss", 3) in found["ours"][2]


def test_mlflow_records_what_it_records_in_fit(tmp_path, monkeypatch):
    """`pip install mlflow-skinny pandas` has it run; its files hold lines of time, value and step."""
    pytest.importorskip("mlflow")
    pytest.importorskip("pandas")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow
    from mlflow.tensorflow import MlflowCallback

    mlflow.set_tracking_uri(f"file://{tmp_path}")
    mlflow.set_experiment("habits")
    found = {}
    for name, run in (("ours", ours), ("plain", plain)):
        with mlflow.start_run(run_name=name) as started:
            run([constant(), MlflowCallback()])
        files = (tmp_path / started.info.experiment_id / started.info.run_id / "metrics").iterdir()
        found[name] = {file.name: [line.split()[1:3] for line in file.read_text().splitlines()] for file in files}
    assert {"loss", "val_loss", "accuracy", "lr"} <= set(found["ours"])
    for metric, lines in found["ours"].items():
        assert [step for _, step in lines] == ["0", "1", "2", "3"], metric
        theirs = [float(value) for value, _ in found["plain"][metric]]
        assert [float(value) for value, _ in lines] == pytest.approx(theirs, abs=2e-4), metric


class Interrupt(Exception):
    pass


def test_a_resumed_stage_continues_the_callbacks(tmp_path):
    def counting():
        return keras.callbacks.EarlyStopping("val_loss", patience=3, min_delta=10.0)

    schedule = Schedule(8, 1e-2, **MATCHING)
    whole = fit(make_model(), TRAIN, HELD, TASK, schedule, callbacks=[counting()])

    def interrupt(done, total, note):
        if done == 2 * 6 + 3:
            raise Interrupt

    keep = {"callbacks": [counting()], "checkpoint": tmp_path}
    with pytest.raises(Interrupt):
        fit(make_model(), TRAIN, HELD, TASK, schedule, progress=interrupt, **keep)
    again = fit(make_model(), TRAIN, HELD, TASK, schedule, callbacks=[counting()], checkpoint=tmp_path)
    assert len(again) == len(whole) == 4
    once_more = fit(make_model(), TRAIN, HELD, TASK, schedule, callbacks=[counting()], checkpoint=tmp_path)
    assert once_more == again, "a stage that was stopped stays stopped"


@pytest.mark.parametrize(
    "optimizer",
    ["adam", keras.optimizers.Adam, keras.optimizers.SGD(0.1), keras.optimizers.legacy.Adam(1e-2), keras.optimizers.legacy.SGD],
    ids=["name", "class", "instance", "legacy", "legacy class"],
)
def test_optimizers_in_every_form(optimizer, tmp_path):
    model = make_model()
    before = predict(model, HELD)
    history = fit(model, TRAIN, HELD, TASK, Schedule(2, 1e-2, **{**MATCHING, "optimizer": optimizer}), checkpoint=tmp_path)
    assert history[-1].loss < history[0].loss
    assert np.abs(predict(model, HELD) - before).max() > 0
    again = fit(make_model(), TRAIN, HELD, TASK, Schedule(2, 1e-2, **{**MATCHING, "optimizer": optimizer}), checkpoint=tmp_path)
    assert again == history


def cross_entropy(labels, outputs):
    return keras.losses.categorical_crossentropy(labels, outputs)


L = keras.losses


@pytest.mark.parametrize(
    "loss",
    [
        "categorical_crossentropy",
        L.CategoricalCrossentropy,
        L.CategoricalCrossentropy(),
        cross_entropy,
        lambda labels, outputs: -3 * labels * tf.math.log(outputs),
        "sparse_categorical_crossentropy",
        L.SparseCategoricalCrossentropy(),
        L.sparse_categorical_crossentropy,
    ],
    ids=["name", "class", "instance", "function", "of each output", "sparse name", "sparse instance", "sparse function"],
)
def test_losses_in_every_form(loss):
    losses = [one.loss for one in ours([], epochs=2, loss=Training(loss=loss).loss)]
    np.testing.assert_allclose(losses, [one.loss for one in ours([], epochs=2)], rtol=1e-4)


def wrong_shape(labels, outputs):
    return labels - outputs[:, :2]


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (wrong_shape, r"loss wrong_shape failed on outputs \(8, 3\) \(ValueError: Dimensions must be equal"),
        (lambda labels, outputs: np.mean(labels - outputs), "loss <lambda> failed .*NotImplementedError"),
        (lambda labels, outputs: tf.numpy_function(np.subtract, [labels, outputs], tf.float32), "<lambda> has no gradient"),
        (lambda labels, outputs: tf.constant(1.0), "loss <lambda> has no gradient"),
        (lambda labels, outputs: 1 / 0, r"loss <lambda> failed .*ZeroDivisionError"),
        (lambda labels, outputs: outputs * np.nan, "loss <lambda> is nan for the model as it is"),
        (L.SparseCategoricalCrossentropy(ignore_class=0), "loss is 'sparsecategoricalcrossentropy'"),
    ],
)
def test_a_loss_that_fails_is_named_before_any_work(loss, said, tmp_path):
    for call in (apply_it, compress_it):
        with pytest.raises(PlanError, match=said) as caught:
            call(Training(epochs=1, loss=loss), tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.partial").exists()


def apply_it(training, out):
    head = {"key": "b", "kind": "dense", "weights": 36, "bits": 4, "granularity": "tensor", "storage": "int8"}
    apply(make_model(), Plan(layers=[head]), (TRAIN.x, TRAIN.y), training=training)


def compress_it(training, out):
    compress(make_model(), (TRAIN.x, TRAIN.y), out=out, training=training, device=Device("mobile", baselines=()))


def test_weights_that_are_no_numbers_are_never_the_best():
    model, schedule = make_model(), Schedule(1, 1e-3, **MATCHING)
    before = model.get_weights()
    with pytest.warns(XaicWarning, match="weights of before are kept"):
        fit(model, TRAIN, HELD, TASK, schedule, judge=lambda model: 1.0, callbacks=[Lost()])
    np.testing.assert_equal(model.get_weights(), before)
    with pytest.raises(PlanError, match=r"ended in weights that are no numbers \(from epoch 1 on\)"):
        fit(model, TRAIN, HELD, TASK, replace(schedule, select_from=0.5), callbacks=[Lost()])


class Lost(keras.callbacks.Callback):
    """Makes weights what a learning rate that is far too high makes them."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.set_weights([one * np.nan for one in self.model.get_weights()])


class Unsaved(keras.optimizers.SGD):
    def __init__(self, strength, **how):
        super().__init__(**how)
        self.strength = strength


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("Optimizer", "optimizer is 'Optimizer'. Expected the name of a Keras optimizer"),
        (keras.optimizers.Optimizer, "optimizer is <class .*Expected the name of a Keras optimizer"),
        (Unsaved(1.0), "a fresh Unsaved cannot be made of the optimizer .*'strength'.* Expected one whose get_config"),
    ],
)
def test_optimizers_that_are_none_are_one_line(optimizer, said):
    with pytest.raises(PlanError, match=said):
        check_training(Training(optimizer=optimizer))


def test_a_loss_that_python_computes_with_a_gradient_trains():
    def loss(labels, outputs):
        return tf.py_function(keras.losses.categorical_crossentropy, [labels, outputs], tf.float32)

    losses = [one.loss for one in ours([], epochs=1, loss=loss)]
    np.testing.assert_allclose(losses, [one.loss for one in ours([], epochs=1)], rtol=1e-4)


def test_a_loss_that_becomes_no_number_is_said():
    with pytest.warns(XaicWarning, match="no number in epoch 1: weights of before are kept"):
        ours([], epochs=1, loss=lambda labels, outputs: outputs * tf.constant(np.nan))


K = keras.metrics


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("acc", "accuracy"),
        ("mean_absolute_error", "mae"),
        ("RootMeanSquaredError", "rmse"),
        (K.SparseCategoricalAccuracy, "accuracy"),
        (K.AUC(num_thresholds=50), "auc"),
        (K.BinaryAccuracy(), "label_accuracy"),
        (K.SparseTopKCategoricalAccuracy(), "top5"),
        (K.mean_squared_error, "mse"),
        (K.MeanMetricWrapper(K.mean_squared_error), "mse"),
        (K.get("mae"), "mae"),
        (["accuracy"], "accuracy"),
        ({"a": [K.MeanIoU(3)], "b": "f1"}, {"a": "mean_iou", "b": "f1"}),
    ],
)
def test_metrics_in_every_form(given, name):
    assert DataOptions(metric=given).metric == name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["accuracy", "auc"], "or a mapping from outputs to metrics: accuracy"),
        ("Precision", "metric 'Precision' is not known. Expected one of accuracy"),
        (3, r"metric is 3\. Expected one metric, by its name, as it is in keras.metrics or a function of your own: accuracy"),
        ("val_accuracy", "Expected 'label_accuracy' or 'accuracy'"),
    ],
)
def test_metrics_that_cannot_judge_are_named(given, said):
    with pytest.raises(PlanError, match=said):
        DataOptions(metric=given)


class Failing(keras.callbacks.Callback):
    def __init__(self, hook, error):
        super().__init__()
        self.error = error
        setattr(self, hook, self.fail)

    def fail(self, *_):
        raise self.error


HOOKS = ["set_model", "set_params", "on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"]


@pytest.mark.parametrize("hook", [*HOOKS, "on_epoch_end", "on_train_end"])
def test_a_callback_that_fails_is_named(hook):
    with pytest.raises(PlanError) as caught:
        ours([Failing(hook, KeyError("val_auc"))], epochs=1)
    said = f"the callback Failing failed in {hook} (KeyError: 'val_auc'). Mend it, or leave it out of callbacks."
    assert str(caught.value) == said
    assert isinstance(caught.value.__cause__, KeyError)  # with the traceback of the user's own lines


def test_a_lambda_that_fails_is_named():
    with pytest.raises(PlanError, match=r"LambdaCallback failed in on_epoch_end \(ZeroDivisionError"):
        ours([keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)], epochs=1)


def test_a_callback_whose_file_cannot_be_written_is_named(tmp_path):
    with pytest.raises(XaicError, match=r"callback CSVLogger failed in on_.*[Nn]o such file or directory"):
        ours([keras.callbacks.CSVLogger(tmp_path / "none" / "log.csv")], epochs=1)
    with pytest.raises(MachineError, match=r"callback Failing failed in on_epoch_end \(x.csv: the disk is full"):
        ours([Failing("on_epoch_end", OSError(errno.ENOSPC, "", "x.csv"))], epochs=1)


class Evaluates(keras.callbacks.Callback):
    """Evaluates the model on labels as `fit` takes them."""

    def __init__(self, x, y, one_batch=False):
        super().__init__()
        self.data, self.one_batch, self.found = (x, y), one_batch, []

    def on_epoch_end(self, epoch, logs=None):
        judge = self.model.test_on_batch if self.one_batch else functools.partial(self.model.evaluate, verbose=0)
        self.found.append((judge(*self.data), logs["val_loss"], logs["val_accuracy"], self.model.predict(HELD.x, verbose=0)))


@pytest.mark.parametrize(("y", "one_batch"), [(HELD.y, False), (np.eye(3)[HELD.y], True)], ids=["numbers", "one-hot"])
def test_a_callback_may_evaluate_and_predict(y, one_batch):
    one = Evaluates(HELD.x, y, one_batch)
    ours([one], epochs=2, distillation=0.5)
    for (loss, accuracy), val_loss, val_accuracy, outputs in one.found:
        assert (loss, accuracy) == pytest.approx((val_loss, val_accuracy), abs=1e-5)
        truth = -np.log(outputs[np.arange(48), HELD.y]).mean(), (outputs.argmax(-1) == HELD.y).mean()
        assert (loss, accuracy) == pytest.approx(truth, abs=1e-4)
    assert len(one.found) == 2


def test_labels_that_a_callback_evaluates_on_and_that_are_no_classes_are_named():
    with pytest.raises(PlanError, match=r"callback Evaluates failed in on_epoch_end \(.*class numbers from 0 to 2"):
        ours([Evaluates(HELD.x, HELD.y + 1)], epochs=1)


@pytest.mark.parametrize("wrong", [keras.callbacks.CallbackList([]), type("Duck", (), {"on_epoch_end": 1, "set_model": 1})()])
def test_what_is_no_callback_of_this_keras_is_refused_before_any_work(wrong, tmp_path):
    with pytest.raises(PlanError, match=r"which is no Callback of Keras 2\. Expected instances of subclasses"):
        compress("none.keras", "none.npz", out=tmp_path / "out", training=Training(callbacks=wrong))


def test_what_a_callback_says_itself_stays():
    error = PlanError("no more")
    with pytest.raises(PlanError) as caught:
        ours([Failing("on_epoch_end", error)], epochs=1)
    assert caught.value is error


def test_tensorboard_without_its_package_is_refused_before_any_work(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else found(name, *rest))
    board = keras.callbacks.TensorBoard(tmp_path)
    with pytest.raises(PlanError) as caught:
        compress("none.keras", "none.npz", out=tmp_path / "out", training=Training(callbacks=board))
    expected = "TensorBoard needs the package tensorboard, which is not installed. pip install tensorboard, or leave it out"
    assert expected in str(caught.value)
    assert str(caught.value).endswith("callbacks of Training.")
