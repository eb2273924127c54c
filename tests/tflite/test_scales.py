"""Integer files whose scales the converter gets wrong: of what is only copied, and of recurrent layers."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ExportError
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.io_types import with_io
from tests.tflite.models import run

X = np.random.default_rng(0).normal(size=(64, 4, 4)).astype(np.float32)
COPIES = {
    "reverse": lambda t: tf.reverse(t, [1]),
    "gather": lambda t: tf.gather(t, [2, 0, 3, 1], axis=1),
    "tile": lambda t: tf.tile(t[:, :2], [1, 2, 1]),
    "transpose": lambda t: tf.transpose(t, [0, 2, 1]),
    "slice": lambda t: t[:, ::-1],
    "where": lambda t: tf.where(t > 0.1, t, t[:, ::-1] * 0.5),
    "mirror": lambda t: tf.pad(t[:, :2], [[0, 0], [1, 1], [0, 0]], "SYMMETRIC"),
    "reshape": lambda t: tf.reshape(tf.reshape(t, [-1, 2, 8]), [-1, 4, 4]),
}
RECURRENT = {
    "both ways": [layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.Flatten()],
    "both ways, then LSTM": [layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.LSTM(5)],
    "both ways, then GRU": [layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.GRU(5)],
    "GRU, then LSTM": [layers.GRU(4, return_sequences=True), layers.LSTM(5)],
    "simple, then LSTM, then GRU": [
        layers.SimpleRNN(4, return_sequences=True),
        layers.LSTM(5, return_sequences=True),
        layers.GRU(3),
    ],
    "small cells": [layers.Rescaling(0.05), layers.LSTM(5)],
}
"""Layers -> what follows an input of (4, 4)."""


def deviation(model, precision, x=X):
    """Returns how far a file is from Keras, on average, as a share of the outputs' standard deviation."""
    content, expected = with_io(build_tflite(model, x, precision=precision), "float32"), model.predict(x, verbose=0)
    # One sample for each run: files of LSTM keep their state from one to the next.
    given = np.concatenate([run(content, [x[place : place + 1]])[0] for place in range(len(x))])
    return float(np.abs(given - expected).mean() / expected.std())


@pytest.mark.parametrize("kind", COPIES)
def test_values_that_are_copied_keep_their_scale(kind):
    """Beside what is much larger: a concatenation wants one scale of both, and interpreters do not rescale copies."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 4))
    small, large = (layers.Dense(4, name=name)(inputs) for name in ("small", "large"))
    joined = layers.Concatenate()([COPIES[kind](tf.tanh(small) * 0.3), tf.nn.relu(large)])
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(joined)))
    assert deviation(model, "int8") < 0.04


@pytest.mark.parametrize("value", [-1.0, -7.3, 0.0])
def test_the_value_that_a_mask_looks_for_is_found(value):
    """Integers are no such number but near one, and nothing was equal to it."""
    keras.utils.set_random_seed(6)
    x = X.copy()
    x[::2, 2:] = value
    model = keras.Sequential([keras.Input((4, 4)), layers.Masking(value), layers.GRU(5), layers.Dense(2, name="head")])
    assert deviation(model, "int8", x) < 0.1


OTHER_RANGES = {
    "pooled in two ways": lambda t: tf.concat([tf.reduce_max(t, 1), tf.reduce_mean(t, 1)], -1),
    "less the largest": lambda t: tf.reduce_logsumexp(t, -1),
    "quotient of copies": lambda t: tf.math.log((tf.sigmoid(t) + 0.1) / (1.2 - tf.sigmoid(t) - 0.1)),
    "diagonal": lambda t: tf.linalg.diag(t[:, 0]),
    "other diagonal": lambda t: tf.linalg.set_diag(t, t[:, 0] * 3.0),
    "scattered": lambda t: tf.transpose(tf.scatter_nd([[0], [2]], tf.transpose(t[:, :2], [1, 0, 2]), [4, 1, 4]), [1, 0, 2]),
}
"""What has a range, or a code for zero, that the converter or an interpreter takes for that of something else."""


@pytest.mark.parametrize("kind", OTHER_RANGES)
def test_values_have_their_own_range(kind):
    keras.utils.set_random_seed(7)
    inputs = keras.Input((4, 4), 1 if kind == "scattered" else None)
    values = layers.Dense(4, name="values")(inputs)
    model = keras.Model(inputs, OTHER_RANGES[kind](values))
    content = with_io(build_tflite(model, X, precision="int8"), "float32")
    wanted = np.concatenate([model(x[None]).numpy() for x in X])
    given = run(content, [X])[0].reshape(wanted.shape)
    assert np.sqrt(np.mean((given - wanted) ** 2)) / wanted.std() < 0.04


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_choice_between_values_of_int16_is_right_or_refused(factor):
    """The converter gives a choice the scale of its first values."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 4))
    values = layers.Dense(4, "tanh")(inputs)
    chosen = tf.where(values > 0, values, values * factor)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(chosen)))
    if factor < 1:
        assert deviation(model, "int16") < 0.01
    else:
        with pytest.raises(ExportError, match=r"'tf\.where.*int16 files cut some off"):
            deviation(model, "int16")


@pytest.mark.parametrize("precision", ["int8", "float16"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_one_behind_the_other(kind, precision):
    keras.utils.set_random_seed(6)
    parts = [type(layer).from_config(layer.get_config()) for layer in RECURRENT[kind]]
    model = keras.Sequential([keras.Input((4, 4)), *parts, layers.Dense(2, name="head")])
    assert deviation(model, precision) < (0.05 if precision == "int8" else 0.005)


FILLED = {
    "one-hot": lambda t: tf.one_hot(tf.argmax(t, -1), 6),
    "along another axis": lambda t: tf.one_hot(tf.argmax(t, -1), 6, axis=1),
    "other values": lambda t: tf.one_hot(tf.argmax(t, -1), 6, on_value=3.0, off_value=-1.0),
    "encoded": lambda t: layers.CategoryEncoding(6, "multi_hot")(tf.argmax(t, -1)),
}


@pytest.mark.parametrize("kind", FILLED)
def test_constants_that_results_are_filled_with_have_their_scale(kind):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(FILLED[kind](layers.Dense(4)(inputs)))))
    assert deviation(model, "int8") < 0.04


NOTHING = {
    "difference": lambda t: t - 1.0000001 * t,
    "squared difference": lambda t: tf.math.squared_difference(t, 1.0000001 * t),
    "sum": lambda t: t + -1.0000001 * t,
    "normalization of one value": layers.LayerNormalization(),
}


@pytest.mark.parametrize(
    ("kind", "precision"), [*((kind, "int8") for kind in NOTHING), ("difference", "int16"), ("sum", "int16")]
)
def test_results_of_hardly_any_range_do_not_end_the_interpreter(kind, precision):
    """Kernels of sums and differences give up where the scale of the result is too fine for that of their inputs."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 4))
    hidden = layers.Dense(1 if "one" in kind else 4, name="hidden")(inputs)
    joined = layers.Concatenate()([NOTHING[kind](hidden), layers.Dense(4, name="beside")(inputs)])
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(joined)))
    assert deviation(model, precision) < 0.06


@pytest.mark.parametrize("cell", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_results_of_weights_of_hardly_any_range_do_not_end_the_delegate(cell):
    """Padding that is in every sequence leaves the state at 0, and XNNPACK refuses files with weights that give 0 only."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    keras.utils.set_random_seed(5)
    words = np.random.default_rng(1).integers(1, 9, (48, 6))
    words[:, 5] = 0
    inputs = keras.Input((6,), dtype="int32")
    drawn = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    z = layers.Embedding(9, 4, drawn, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Bidirectional(cell(8, return_sequences=True))(z)))
    content = with_io(build_tflite(model, words), "float32")
    litert.Interpreter(model_content=content).allocate_tensors()
    wanted = model.predict(words, verbose=0)
    given = np.concatenate([run(content, [words[place : place + 1].astype(np.int32)])[0] for place in range(len(words))])
    assert np.abs(given - wanted).mean() < 0.1 * wanted.std()
