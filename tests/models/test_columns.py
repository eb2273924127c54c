"""Columns of unlike units: a model that does not normalize them gets a layer that does, and computes the same."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Parts, Samples
from keras_xaic.errors import XaicWarning
from keras_xaic.models.columns import evened
from keras_xaic.models.front import front_of
from keras_xaic.models.operations import Operations
from keras_xaic.tflite.build import build_tflite

SIZES, CENTERS = np.array([150.0, 5.0, 1.0, 1.0, 0.05]), np.array([150.0, 1005.0, 0.0, 0.0, 0.0])
NORMALIZED = np.random.default_rng(0).uniform(-1, 1, (300, 6, 5)).astype(np.float32)
SEQUENCES = (NORMALIZED * SIZES + CENTERS).astype(np.float32)
VALUES = xaic.DataOptions(task="regression")
TABLE = SEQUENCES[:, 0]


def fed(*behind, shape=(5,), offset=True):
    """A model for which all columns matter alike, in whatever units: its first weights are those of normalized columns."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *behind, layers.Dense(2)])
    layer = next(one for one in model.layers if one.weights)
    kernel, *others = layer.get_weights()
    times = kernel.shape[-2] // 5
    scaled = kernel / np.tile(SIZES, times)[:, None]
    if offset:
        added = (scaled * np.tile(CENTERS, times)[:, None]).sum(axis=tuple(range(kernel.ndim - 1)))
        others[-1] = others[-1] - (added if others[-1].ndim == 1 else np.stack([added, 0 * added]))
    layer.set_weights([scaled.astype(np.float32), *others])
    return model


READERS = {
    "dense": (TABLE, lambda: fed(layers.Dense(16, "relu"))),
    "flattened": (SEQUENCES, lambda: fed(layers.Flatten(), layers.Dense(16, "relu"), shape=(6, 5))),
    "convolution": (SEQUENCES, lambda: fed(layers.Conv1D(8, 3, activation="relu"), layers.Flatten(), shape=(6, 5))),
    "lstm": (SEQUENCES, lambda: fed(layers.LSTM(8), shape=(6, 5))),
    "gru": (SEQUENCES, lambda: fed(layers.GRU(8), shape=(6, 5))),
    "rnn": (SEQUENCES, lambda: fed(layers.SimpleRNN(8), shape=(6, 5))),
}


@pytest.mark.parametrize("name", READERS)
def test_the_layers_behind_take_up_what_the_new_one_does(name):
    x, make = READERS[name]
    model = make()
    before = [one.copy() for one in model.get_weights()]
    made = evened(model, Samples(x), Samples(x[:64]))
    assert len(made.said) == 1
    assert made.left == ()
    assert [type(one) for one in made.model.layers].count(layers.Normalization) == 1
    expected = model.predict(x, verbose=0)
    assert np.abs(made.model.predict(x, verbose=0) - expected).max() < 1e-3 * expected.std()
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights()))
    assert evened(made.model, Samples(x), Samples(x[:64])).model is made.model


def test_padding_stays_what_it_was():
    x = SEQUENCES - CENTERS.astype(np.float32)
    model = fed(layers.Conv1D(8, 3, padding="same", activation="relu"), layers.Flatten(), shape=(6, 5), offset=False)
    made = evened(model, Samples(x), Samples(x[:64]))
    assert made.said
    assert np.abs(made.model.predict(x, verbose=0) - model.predict(x, verbose=0)).max() < 1e-3
    assert evened(READERS["convolution"][1](), Samples(SEQUENCES), Samples(SEQUENCES)).said


def test_a_file_of_8_bits_is_right(tmp_path):
    x, model = TABLE.copy(), READERS["dense"][1]()
    x[:, 4] = 7.0  # never changes; its weights are as they were drawn
    kernel, bias = model.layers[0].get_weights()
    kernel[4] *= SIZES[4]
    model.layers[0].set_weights([kernel, bias - 7.0 * kernel[4]])
    expected = model.predict(x, verbose=0)
    off = []
    for one in (model, evened(model, Samples(x), Samples(x[:64])).model):
        (tmp_path / "model.tflite").write_bytes(build_tflite(one, x))
        given = edge.run_file(tmp_path / "model.tflite", x).outputs[0].reshape(expected.shape)
        off.append(np.sqrt(np.mean((given - expected) ** 2)) / expected.std())
    assert off[0] > 0.3
    assert off[1] < 0.03


def test_one_column_far_from_0_is_moved():
    x = (1000.0 + np.sin(np.arange(64) * 0.2 + np.arange(80)[:, None]))[..., None].astype(np.float32)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((64, 1)), layers.Conv1D(8, 5, activation="relu"), layers.Flatten(), layers.Dense(2)])
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel, bias - 1000.0 * kernel.sum(axis=(0, 1))])
    made = evened(model, Samples(x), Samples(x)).model
    assert len(front_of(Operations(made), "input:0").operations) == 1
    expected = model.predict(x, verbose=0)
    assert np.abs(made.predict(x, verbose=0) - expected).max() < 1e-2 * expected.std()


def test_columns_that_hardly_matter_are_left_alone():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (64, 8, 8)) * np.array([1e-3, *np.ones(6), 0.0])  # hardly anything at the edges
    model = keras.Sequential([keras.Input((8, 8)), layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(3)])
    made = evened(model, Samples(images), Samples(images))
    assert made.model is model
    assert (made.said, made.left) == ((), ())
    flags = np.concatenate([rng.normal(size=(64, 4)) * 3, rng.integers(0, 2, (64, 4))], axis=1)
    table = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), layers.Dense(3)])
    assert evened(table, Samples(flags), Samples(flags)).model is table


def test_an_input_that_cannot_have_it_is_named():
    inputs = keras.Input((5,), name="table"), keras.Input((2,), name="other")
    first = fed(layers.Dense(16, "relu")).layers[0]
    hidden = layers.Concatenate()([first(inputs[0] * 1.0), layers.Dense(4)(inputs[1])])
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    samples = Samples(Parts([TABLE, TABLE[:, 2:4]], ["table", "other"]))
    made = evened(model, samples, samples)
    assert made.model is model
    assert len(made.left) == 1
    assert "input 'table'" in made.left[0]
    assert "Normalization" in made.left[0]


def test_weights_that_training_would_bring_back_into_bounds_are_left_alone():
    made = evened(fed(layers.Dense(16, "relu", kernel_constraint="max_norm")), Samples(TABLE), Samples(TABLE))
    assert made.said == ()
    assert len(made.left) == 1


def test_export_scales_columns_where_the_file_may_take_float32_values(tmp_path):
    x, model = TABLE, READERS["dense"][1]()
    with pytest.warns(XaicWarning, match="So the file takes float32"):
        bundle = xaic.export(model, tmp_path / "free", calibration=x, target="mobile", options=VALUES)
    expected = model.predict(x, verbose=0)
    given = edge.run_file(bundle.model, x).outputs[0].reshape(expected.shape)
    assert np.sqrt(np.mean((given - expected) ** 2)) < 0.03 * expected.std()
    codes = xaic.FileOptions(io="int8")
    with pytest.warns(XaicWarning, match="With io of float32"):
        xaic.export(model, tmp_path / "codes", calibration=x, target="mobile", file=codes, prove=False, options=VALUES)
