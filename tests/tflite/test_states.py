"""Recurrent layers that begin with the state of others: encoders and decoders."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.models.given import as_model
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.io_types import with_io
from tests.tflite.models import run

RNG = np.random.default_rng(0)
HEARD, SAID = (RNG.normal(size=(48, steps, 4)).astype(np.float32) for steps in (6, 5))
KINDS = {"lstm": (layers.LSTM, {}), "gru": (layers.GRU, {}), "simple": (layers.SimpleRNN, {})}
FRAMES = {"rows": (layers.ConvLSTM1D, {"kernel_size": 3, "padding": "same"})}


def make_model(kind):
    keras.utils.set_random_seed(3)
    layer, options = {**KINDS, **FRAMES}[kind]
    shape = (4, 2) if kind in FRAMES else (4,)
    heard, said = keras.Input((6, *shape), name="heard"), keras.Input((5, *shape), name="said")
    _, *state = layer(5, return_state=True, name="encoder", **options)(heard)
    z = layer(5, return_sequences=True, name="decoder", **options)(said, initial_state=state)
    return keras.Model([heard, said], layers.Dense(3, activation="softmax", name="head")(z))


@pytest.mark.parametrize("precision", ["float32", "int8", "float16"])
@pytest.mark.parametrize("kind", [*KINDS, *FRAMES])
def test_files_begin_with_the_state_that_is_given(kind, precision):
    model, arrays = make_model(kind), [HEARD, SAID]
    if kind in FRAMES:
        arrays = [np.stack([one, one[..., ::-1]], axis=-1) for one in arrays]
    content = with_io(
        build_tflite(model, xaic.Samples(xaic.data.Parts(arrays, ["heard", "said"])), precision=precision), "float32"
    )
    wanted = model.predict(arrays, verbose=0)
    given = np.concatenate([run(content, [one[place : place + 1] for one in arrays])[0] for place in range(48)])
    limit = {"float32": 1e-5, "int8": 0.1, "float16": 0.01}[precision]
    assert np.abs(given - wanted).mean() < limit * wanted.std()
    turned = model.predict([arrays[0][::-1], arrays[1]], verbose=0)
    assert np.abs(turned - wanted).mean() > limit * wanted.std(), "the state makes a difference"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_encoders_and_decoders_are_compressed(tmp_path, kind):
    model = make_model(kind)
    data = {"heard": HEARD, "said": SAID}, model.predict([HEARD, SAID], verbose=0).argmax(-1)
    report = xaic.compress(
        model,
        data,
        training=xaic.Training(epochs=1),
        device=xaic.Device(target="mobile", baselines=("int8",)),
        out=tmp_path / "out",
    )
    assert report.compressed.edge_metric > 0.8


WORDS = np.random.default_rng(1).integers(1, 9, (48, 6)).astype(np.int32)
WORDS[::2, 4:] = 0
ODD = {
    "other activation": layers.LSTM(5, activation="relu"),
    "other recurrent activation": layers.LSTM(5, recurrent_activation="hard_sigmoid"),
    "recurrent dropout": layers.LSTM(5, recurrent_dropout=0.2),
    "no bias": layers.LSTM(5, use_bias=False),
    "unlike directions": layers.Bidirectional(layers.LSTM(4), backward_layer=layers.GRU(3, go_backwards=True)),
    "masked both ways": layers.Bidirectional(layers.GRU(4, return_sequences=True)),
    "masked sum of both ways": layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="sum"),
}


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("kind", ODD)
def test_unusual_recurrent_layers(kind, precision):
    """The converter knows an LSTM of the usual settings only, and Keras gives zeros at wrong places where it unrolls."""
    keras.utils.set_random_seed(3)
    inputs, layer = keras.Input((6,), dtype="int32"), ODD[kind]
    drawn = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    z = layer.__class__.from_config(layer.get_config())(
        layers.Embedding(9, 4, drawn, mask_zero="masked" in kind, name="words")(inputs)
    )
    if "masked" in kind:
        z = layers.Bidirectional(layers.LSTM(4), name="second")(z)
    model = keras.Model(inputs, layers.Dense(3, name="head")(z))
    content = with_io(build_tflite(model, WORDS, precision=precision), "float32")
    given, wanted = (
        np.concatenate([run(content, [WORDS[place : place + 1]])[0] for place in range(48)]),
        model.predict(WORDS, verbose=0),
    )
    assert np.abs(given - wanted).mean() < {"float32": 1e-5, "int8": 0.15}[precision] * wanted.std()
    assert set(xaic.attribute(model, WORDS, target=1, allow_approximate=True).weights) >= {"head"}


def _one_sentence():
    """What reads one sentence of a document: embeddings, masks, a layer behind a recurrent one."""
    words = keras.Input((3,), dtype="int32")
    drawn = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    z = layers.Embedding(9, 4, drawn, mask_zero=True)(words)
    return keras.Model(words, layers.Dense(4, activation="tanh")(layers.SimpleRNN(3)(z)))


class Scaled(layers.Layer):
    """A layer of one's own, which Keras calls step by step where it knows the size of a batch."""

    def build(self, shape):
        self.gain = self.add_weight("gain", (shape[-1], 3))

    def call(self, x):
        return keras.activations.relu(x @ self.gain)


IN_STEPS = {
    "lstm": lambda: (keras.Input((3, 4, 5)), layers.LSTM(4)),
    "model": lambda: (keras.Input((2, 3), dtype="int32"), _one_sentence()),
    "frames": lambda: (keras.Input((2, 3, 4, 4, 1)), layers.ConvLSTM2D(2, 2)),
    "own": lambda: (keras.Input((3, 4, 5)), Scaled()),
}


@pytest.mark.parametrize("kind", IN_STEPS)
def test_recurrent_layers_in_time_distributed_ones(kind):
    """The converter crashed on their loops."""
    keras.utils.set_random_seed(3)
    inputs, inside = IN_STEPS[kind]()
    z = layers.TimeDistributed(inside, name="each")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(z)))
    random = np.random.default_rng(0)
    x = random.integers(0, 9, (32, 2, 3)) if kind == "model" else random.normal(size=(32, *inputs.shape[1:]))
    x = x.astype(inputs.dtype.as_numpy_dtype)
    content = with_io(build_tflite(model, x, precision="int8"), "float32")
    given = np.concatenate([run(content, [x[place : place + 1]])[0] for place in range(32)])
    wanted = model.predict(x, verbose=0)
    assert np.abs(given - wanted).mean() < 0.1 * wanted.std()


class OwnCell(layers.Layer):
    """A cell of one's own, which nobody registered."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1] + self.units, self.units))
        self.built = True

    def call(self, x, states):
        state = keras.activations.tanh(tf.concat([x, states[0]], -1) @ self.kernel)
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class OwnGRU(layers.GRU):
    """A subclass that nobody registered."""


HOLDING_OWN = {
    "cell": lambda: layers.RNN(OwnCell(4)),
    "cells in both directions": lambda: layers.Bidirectional(layers.RNN([OwnCell(4), layers.GRUCell(3)])),
    "a subclass in both directions": lambda: layers.Bidirectional(OwnGRU(4)),
}


@pytest.mark.parametrize("kind", HOLDING_OWN)
def test_classes_that_nobody_registered_inside_layers_of_keras(kind):
    """They were looked up by name where layers are made again, which ended in a traceback."""
    keras.utils.set_random_seed(3)
    with keras.utils.custom_object_scope({"OwnCell": OwnCell, "OwnGRU": OwnGRU}):  # Keras itself needs it in Bidirectional
        inner = HOLDING_OWN[kind]()
    model = keras.Sequential([keras.Input((5, 4)), inner, layers.Dense(3, name="head")])
    x = np.random.default_rng(0).normal(size=(32, 5, 4)).astype(np.float32)
    content = with_io(build_tflite(as_model(model), x, precision="int8"), "float32")
    given = np.concatenate([run(content, [x[place : place + 1]])[0] for place in range(32)])
    wanted = model.predict(x, verbose=0)
    assert np.abs(given - wanted).mean() < 0.1 * wanted.std()
