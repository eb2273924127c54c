"""What a run depends on changes its fingerprint; how far it came does not."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Data, Samples
from keras_xaic.identity import digest_of, facts_of
from keras_xaic.metrics import Task
from keras_xaic.pipeline.workspace import run_fingerprint
from keras_xaic.settings import Training
from keras_xaic.training import Schedule, fit


class Every(keras.callbacks.Callback):
    """A user's callback."""

    def __init__(self, every=2, log=None):
        super().__init__()
        self.every, self.log, self.seen = every, log, 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen += 1
        if self.log is not None:
            self.log.append(epoch)


class Other(Every):
    """Another one, with the same settings."""


class Unsaved(keras.losses.Loss):
    """A loss of a user whose configuration Keras does not know."""

    def __init__(self, weight):
        super().__init__()
        self._weight = weight

    def get_config(self):
        raise NotImplementedError


class Weighted(keras.losses.Loss):
    """A loss of a user who left the configuration as it is."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def call(self, y, p):
        return keras.losses.categorical_crossentropy(y, p) * self.weights


def loss_that(does):
    """Returns a class of losses, of the same name whatever it does."""

    class Mine(keras.losses.Loss):
        def call(self, y, p):
            return does(y, p)

    return Mine


def edited(source):
    """Returns the function `mine` of a user's script."""
    names = {"__name__": "script", "keras": keras}
    exec(source, names)
    return names["mine"]


MINE = """
STRENGTH = {}
def helper(y, p):
    return {}
def mine(y, p):
    return STRENGTH * helper(y, p)
"""


def scaled(y, p, by=1.0):
    return keras.losses.categorical_crossentropy(y, p) * by


def made(by):
    return lambda y, p: scaled(y, p) * by


DIFFERENT = {
    "number": (1, 2),
    "numpy number": (np.float32(0.1), np.float32(0.2)),
    "text": ("a", "b"),
    "array": (np.zeros(3), np.ones(3)),
    "callback": (Every(), Other()),
    "callback's setting": (Every(1), Every(2)),
    "keras callback": (keras.callbacks.EarlyStopping(patience=1), keras.callbacks.EarlyStopping(patience=2)),
    "callback's function": (
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.2),
    ),
    "optimizer": (keras.optimizers.Adam(), keras.optimizers.SGD()),
    "learning rate": (keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-4)),
    "momentum": (keras.optimizers.SGD(momentum=0.5), keras.optimizers.SGD(momentum=0.9)),
    "schedule": tuple(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, steps)) for steps in (10, 20)),
    "loss": (keras.losses.Huber(), keras.losses.MeanSquaredError()),
    "loss's setting": (keras.losses.Huber(delta=1.0), keras.losses.Huber(delta=2.0)),
    "user's loss": (Unsaved(1.0), Unsaved(2.0)),
    "function": (scaled, made(1.0)),
    "captured": (made(1.0), made(2.0)),
    "captured array": (made(np.ones(3)), made(np.zeros(3))),
    "captured list": (made([1.0, 2.0]), made([1.0, 3.0])),
    "another captured": ([made(1.0), made(2.0)], [made(1.0), made(3.0)]),
    "user's loss that keeps Keras' configuration": (Weighted(1.0), Weighted(2.0)),
    "array of it": (Weighted(np.ones(3)), Weighted(np.zeros(3))),
    "code of it": (loss_that(lambda y, p: y - p)(), loss_that(lambda y, p: y + p)()),
    "class of it": (loss_that(lambda y, p: y - p), loss_that(lambda y, p: y + p)),
    "number in the module": (edited(MINE.format(1.0, "p")), edited(MINE.format(2.0, "p"))),
    "function in the module": (edited(MINE.format(1.0, "p")), edited(MINE.format(1.0, "y"))),
    "partial": (functools.partial(scaled, by=1.0), functools.partial(scaled, by=2.0)),
    "default": (Schedule(3), Schedule(3, batch_size=32)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_changes_a_result_changes_the_facts(name):
    one, other = (json.dumps(facts_of(value)) for value in DIFFERENT[name])
    assert one != other
    assert one == json.dumps(facts_of(DIFFERENT[name][0]))


def test_what_a_callback_counts_does_not_matter():
    log: list[int] = []
    used, fresh = Every(2, log), Every(2, [])
    for epoch in range(3):
        used.on_epoch_end(epoch)
    assert log == [0, 1, 2]
    assert facts_of(used) == facts_of(fresh)


def test_variables_that_callbacks_set_do_not_matter():
    strength = tf.Variable(1.0)
    one = json.dumps(facts_of([made(strength), Weighted(strength)]))
    strength.assign(2.0)
    assert json.dumps(facts_of([made(strength), Weighted(strength)])) == one


def test_objects_that_hold_themselves_end():
    one = Every()
    one.log = one
    assert json.dumps(facts_of(one))


def test_digests_follow_values_shape_and_type():
    x = np.zeros((4, 2))
    for other in (x.reshape(2, 4), x.astype(np.float32), x + 1):
        assert digest_of(other) != digest_of(x)
    assert digest_of(np.float32(1)) == digest_of(np.float32(1))


TASK = Task("classification", 3, "softmax")
SCHEDULE = Schedule(3, 1e-2, 16)


def data(seed=0, **how):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 48)
    return Samples(rng.normal(size=(48, 4)).astype(np.float32) + np.eye(3, 4)[y].astype(np.float32), y, **how)


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])


ANOTHER = {
    "the same": {},
    "learning rate": {"schedule": replace(SCHEDULE, learning_rate=1e-3)},
    "batch size": {"schedule": replace(SCHEDULE, batch_size=8)},
    "distillation": {"schedule": replace(SCHEDULE, distillation=0.2)},
    "patience": {"schedule": replace(SCHEDULE, patience=9)},
    "seed": {"schedule": replace(SCHEDULE, seed=1)},
    "optimizer": {"schedule": replace(SCHEDULE, optimizer="sgd")},
    "optimizer's setting": {"schedule": replace(SCHEDULE, optimizer=keras.optimizers.Adam(1e-3))},
    "loss": {"schedule": replace(SCHEDULE, loss="mean_squared_error")},
    "callbacks": {"callbacks": [Every(1)]},
    "scale": {"train": data(scale=2.0)},
    "offset": {"train": data(offset=1.0)},
    "task": {"task": Task("classification", 3, "softmax", "auc")},
    "samples": {"train": data(5)},
    "held back": {"held_back": data(6)},
    "teacher": {"teacher": np.full((48, 3), 1 / 3, np.float32)},
    "time that is left": {"schedule": replace(SCHEDULE, minutes=3.0)},
}


@pytest.mark.parametrize(
    "name", [n if n in ("the same", "samples", "loss") else pytest.param(n, marks=pytest.mark.slow) for n in ANOTHER]
)
def test_training_that_is_taken_up_again_with_other_settings_starts_over(name, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, total, note):
        if done > 2 * SCHEDULE.steps_per_epoch(48):
            raise Stop

    def train(progress=lambda done, total, note: None, **change):
        trained: list[int] = []
        how = {"train": data(), "held_back": data(1), "task": TASK, "schedule": SCHEDULE, **change}
        order = [how.pop(key) for key in ("train", "held_back", "task", "schedule")]
        note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: trained.append(epoch))
        how["callbacks"] = [note, *how.get("callbacks", [])]
        with contextlib.suppress(Stop):
            fit(model(), *order, checkpoint=tmp_path, progress=progress, **how)
        return trained

    assert train(stop) == [0, 1]
    continues = name in ("the same", "time that is left")
    assert train(**ANOTHER[name]) == ([2] if continues else [0, 1, 2])


OTHER_SETTINGS = {
    "epochs": 3,
    "minutes": 2.0,
    "seed": 7,
    "batch_size": 8,
    "learning_rate": 0.1,
    "optimizer": "sgd",
    "loss": "mean_squared_error",
    "distillation": 0.5,
    "explanation_loss": 0.5,
    "patience": 2,
    "train_frozen": True,
    "class_weight": {0: 2.0},
    "callbacks": (Every(3),),
    "refresh": 5,
    "rounding": "nearest",
    "activation_ranges": "learned",
    "strategy": "mirrored",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Training)])
def test_every_setting_of_training_is_part_of_a_runs_fingerprint(name):
    asked, net = Data(data()), model()
    one = run_fingerprint(net, asked, [Training()])
    assert one == run_fingerprint(net, asked, [Training()])
    assert one != run_fingerprint(net, asked, [replace(Training(), **{name: OTHER_SETTINGS[name]})])


def test_the_code_of_a_users_layers_and_the_names_of_classes_are_part_of_it():
    def net(does, activation):
        class Mine(layers.Layer):
            def call(self, x):
                return does(x)

        keras.utils.set_random_seed(0)
        parts = [keras.Input((4,), name="x"), Mine(name="mine"), layers.Dense(3, activation=activation, name="head")]
        return keras.Sequential(parts, name="net")

    def first(x):
        return keras.activations.softmax(x)

    def second(x):
        return keras.activations.softmax(2.0 * x)

    second.__name__ = second.__qualname__ = "first"
    named = [Data(data(), classes=names) for names in ("abc", "abd")]
    doubled, tripled = lambda x: 2.0 * x, lambda x: 3.0 * x
    runs = [(net(doubled, first), named[0]), (net(tripled, first), named[0]), (net(doubled, second), named[0])]
    found = [run_fingerprint(*one, []) for one in (*runs, (net(doubled, first), named[1]))]
    assert len(set(found)) == len(found)
    assert run_fingerprint(net(doubled, first), named[0], []) == found[0]


def test_samples_scale_offset_and_task_are_part_of_it():
    net = model()
    found = [Data(data()), Data(data(scale=2.0)), Data(data(offset=1.0)), Data(data(task=TASK)), Data(data(3))]
    assert len({run_fingerprint(net, one, []) for one in found}) == len(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, "<U3", object])
def test_one_label_or_pixel_that_was_corrected_is_other_data_however_large_the_set_is(dtype, monkeypatch):
    monkeypatch.setattr("keras_xaic.identity.PIECE", 100_000)
    array = np.full((5_003, 7), 1).astype(dtype)
    corrected = array.copy()
    corrected[4_567, 3] = 2
    digest = digest_of(array)
    assert digest_of(corrected) != digest
    assert digest_of(array.copy()) == digest == digest_of(np.asfortranarray(array))
    monkeypatch.setattr("keras_xaic.identity.PIECE", 1 << 24)
    assert digest_of(array) == digest
