from __future__ import annotations

import numpy as np

from keras_xaic._keras import keras, layers
from keras_xaic.data import Samples
from keras_xaic.models import statistics
from keras_xaic.models.statistics import remeasure_batchnorm


def test_statistics_are_those_of_each_batchnorms_input_in_inference_mode():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization(name="a")(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.Dropout(0.5)(layers.ReLU()(x))
    y = layers.BatchNormalization(name="b")(layers.Conv2D(4, 1)(x))
    x = layers.Flatten()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(3)(layers.BatchNormalization(name="c")(layers.Dense(5)(x))))
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(150, 6, 6, 2)).astype(np.float32)
    remeasure_batchnorm(model, Samples(x), batch_size=64)
    for name in "abc":
        layer = model.get_layer(name)
        seen = keras.Model(inputs, layer.input)(x, training=False).numpy()
        over = tuple(range(seen.ndim - 1))
        np.testing.assert_allclose(layer.moving_mean, seen.mean(over), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, seen.var(over), rtol=1e-3, atol=1e-4)


def test_shared_batchnorm_and_models_without_any_stay_as_they_are():
    inputs = keras.Input((4,))
    shared = layers.BatchNormalization()
    model = keras.Model(inputs, shared(layers.Dense(4)(shared(inputs))))
    before = model.get_weights()
    remeasure_batchnorm(model, Samples(np.full((8, 4), 5.0, np.float32)))
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_data_that_lies_class_by_class_is_seen_as_a_whole(monkeypatch):
    monkeypatch.setattr(statistics, "MOST_SAMPLES", 64)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(1)(layers.BatchNormalization(name="norm")(inputs)))
    x = np.repeat(np.array([[0.0, 1.0], [10.0, 3.0]], np.float32), 500, axis=0)
    remeasure_batchnorm(model, Samples(x))
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, [5.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, [25.0, 1.0], atol=1e-5)
