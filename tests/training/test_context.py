"""What the stages of training share."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.training import predict
from keras_xaic.training.context import Context


@pytest.fixture
def parts():
    """A classifier behind a BatchNorm, and data that it gets all right when its statistics are those of the data."""
    x = np.random.default_rng(0).normal([7.0, 9.0], 2.0, (400, 2)).astype(np.float32)
    data = Data(Samples(x, (x[:, 0] + 2 > x[:, 1]).astype(np.int64)))
    model = keras.Sequential([keras.Input((2,)), layers.BatchNormalization(name="norm"), layers.Dense(2, name="head")])
    model.get_layer("head").set_weights([np.array([[-1.0, 1.0], [1.0, -1.0]]), np.zeros(2)])
    how = {"epochs": 0, "seed": 0, "calibration": 64, "callbacks": (), "checkpoint": None, "progress": lambda *a: None}
    return model, Context.of(model, data, **how)


def statistics(model):
    return model.get_layer("norm").moving_mean.numpy(), model.get_layer("norm").moving_variance.numpy()


def test_a_model_is_judged_with_statistics_of_its_own(parts):
    model, context = parts
    model.get_layer("norm").moving_mean.assign([7.0, -400.0])  # what training left behind: always the same answer
    assert context.judged(model) > 0.95
    mean, variance = statistics(model)
    np.testing.assert_allclose(mean, context.train.x.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(variance, context.train.x.var(axis=0), rtol=1e-3)


def test_statistics_that_are_better_stay(parts):
    model, context = parts
    model.get_layer("norm").set_weights([np.ones(2), np.zeros(2), np.zeros(2), np.ones(2)])
    model.get_layer("head").set_weights([np.array([[-1.0, 1.0], [1.0, -1.0]]), np.array([-2.0, 2.0])])
    before = statistics(model)
    assert context.judged(model) > 0.95
    for one, other in zip(statistics(model), before):
        np.testing.assert_array_equal(one, other)


def test_without_batchnorm_nothing_is_measured(parts, monkeypatch):
    _, context = parts
    plain = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    before = plain.get_weights()
    assert 0.0 <= context.judged(plain) <= 1.0
    for one, other in zip(plain.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_a_teacher_is_a_model_or_what_it_said(parts):
    model, context = parts
    data = Data(context.train)
    train, _ = data.split(seed=3)
    other = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    how = {"epochs": 1, "seed": 3, "calibration": 64, "callbacks": (), "checkpoint": None, "progress": lambda *a: None}
    asked = Context.of(model, data, teacher=other, **how).teacher.outputs
    np.testing.assert_array_equal(asked, predict(other, train))
    said = asked + 1.0
    np.testing.assert_array_equal(Context.of(model, data, teacher=said, **how).teacher.outputs, said)
