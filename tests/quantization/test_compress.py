"""From a plan to the file: what `compress` returns lies on its grid, and what is written reads back the same."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.models import weighted_kernels
from keras_xaic.planning import with_grid
from keras_xaic.tflite import build_tflite, match_stored
from keras_xaic.tflite.decode import compress_for_micro
from keras_xaic.tflite.encoders import encode_lookup_table
from tests.plans import plan_for

CLASSES = 4


@pytest.fixture(scope="module")
def trained():
    """A model that knows its task, and the data."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(CLASSES, 8, 8, 2))
    y = rng.integers(0, CLASSES, 700)
    x = (patterns[y] + rng.normal(size=(700, 8, 8, 2)) * 1.2).astype(np.float32)
    inputs = keras.Input((8, 8, 2))
    z = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    z = layers.ReLU()(layers.BatchNormalization(name="norm")(z))
    z = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(z)
    z = layers.Conv2D(16, 3, strides=2, activation="relu", name="conv")(z)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(layers.Flatten()(z)))
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:500], y[:500], epochs=4, batch_size=32, verbose=0)
    norm = model.get_layer("norm")
    gamma, *others = norm.get_weights()
    norm.set_weights([gamma * np.where(np.arange(8) == 2, -1, 1), *others])  # a negative gain turns a channel's levels
    model.fit(x[:500], y[:500], epochs=2, batch_size=32, verbose=0)
    return model, Data(Samples(x[:500], y[:500]), Samples(x[500:], y[500:]))


def on_grid(model, grid, bits=4, sparsity=0.0):
    return with_grid(plan_for(model, bits, sparsity), grid)


def in_keras_layout(integers, kind, shape):
    """The way back from the file's layout, written out independently of the package."""
    axes = {"dense": (1, 0), "conv": (1, 2, 3, 0), "depthwise": (0, 1, 2, 3)}[kind]
    return integers.transpose(axes).reshape(shape)


def test_factors_that_are_not_all_positive_leave_kernels_on_their_grids(tmp_path):
    keras.utils.set_random_seed(0)
    start = keras.Input((6, 6, 2))
    x = layers.ReLU()(layers.Conv2D(4, 3)(start) * np.float32([1.5, -0.7, 0.0, 2.0]))
    model = keras.Model(start, layers.Dense(3)(layers.Flatten()(x)) * -1.5)
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 2)).astype(np.float32)
    small = xaic.apply(model, plan_for(model, 4, 0.0), Data(Samples(x)), training=xaic.Training(epochs=0))
    (tmp_path / "m.tflite").write_bytes(build_tflite(small, Samples(x)))
    found, wanted = edge.run_file(tmp_path / "m.tflite", x).outputs[0], small.model.predict(x, verbose=0)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_the_state_of_training_by_one_plan_is_nothing_to_another(trained, tmp_path):
    model, data = trained
    how = {"training": xaic.Training(epochs=1, batch_size=50)}
    alone = xaic.apply(model, plan_for(model, 3, 0.0), data, **how)
    for bits in (4, 3):
        small = xaic.apply(model, plan_for(model, bits, 0.0), data, **how, checkpoint=tmp_path)
    assert all(len(stage) for stage in small.history.values())
    for found, wanted in zip(small.model.get_weights(), alone.model.get_weights()):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("grid", "bits", "epochs"), [("codebook", 3, 1), ("ecq", 2, 0), pytest.param("ecqx", 3, 2, marks=pytest.mark.slow)]
)
def test_what_is_written_is_what_was_trained(trained, grid, bits, epochs, tmp_path):
    model, data = trained
    small = xaic.apply(model, on_grid(model, grid, bits), data, training=xaic.Training(epochs=epochs, batch_size=50))
    found = {kernel.key: kernel.value for kernel in weighted_kernels(small.model)}
    assert set(found) == set(small.kernels) == {"stem", "depthwise", "conv", "head"}
    for key, kernel in small.kernels.items():
        np.testing.assert_array_equal(found[key], kernel.values)
        assert (kernel.codebook is None) == (grid != "codebook")
        assert len(np.unique(kernel.integers)) <= (2**bits if key != "stem" else 2 ** (bits + 1))
    content = build_tflite(small, data.train.inputs(np.arange(64)))
    stored = match_stored(content, small.model)
    for key, (one,) in stored.items():
        kernel = small.kernels[key]
        widening = 1 if one.storage == "int4" or kernel.codebook is not None else 2 ** (8 - bits)
        integers = in_keras_layout(one.integers, one.kind, kernel.integers.shape)
        np.testing.assert_array_equal(integers, kernel.integers * widening)
    (tmp_path / "model.tflite").write_bytes(content)
    answers = edge.run_file(tmp_path / "model.tflite", data.test.x).outputs[0]
    keras_answers = small.model.predict(data.test.x, verbose=0)
    assert np.mean(answers.argmax(axis=1) == keras_answers.argmax(axis=1)) > 0.95
    if epochs:
        assert np.mean(answers.argmax(axis=1) == data.test.y) > 0.8


@pytest.mark.parametrize("grid", ["codebook", "ecqx"])
def test_magnitude_goes_on_in_place_of_relevance_where_filters_are_gone(trained, grid):
    model, data = trained
    plan = on_grid(model, grid).model_copy(update={"remove": {"conv": [0, 1]}})
    relevance = xaic.attribute(model, data.train, rule="magnitude")
    small = xaic.apply(model, plan, data, relevance=relevance, training=xaic.Training(epochs=0))
    assert small.kernels["conv"].values.shape[-1] == 14


def test_tflite_micro_looks_a_codebook_up(trained):
    tflm = pytest.importorskip("tflite_micro")
    model, data = trained
    small = xaic.apply(model, on_grid(model, "codebook", 3), data, training=xaic.Training(epochs=0))
    content = build_tflite(small, data.train.inputs(np.arange(64)))
    for (one,) in match_stored(content, small.model).values():
        channels = one.scale.size if one.scale.size > 1 else None
        axis = None if channels is None else one.scale.shape.index(channels)
        table = encode_lookup_table(one.integers.astype(np.int8), axis)
        assert table is not None
        assert table.data.size <= one.integers.size * 3 / 8 + 1
    micro = compress_for_micro(content)
    assert set(micro.encodings.values()) <= {"lookup-table", "huffman"}  # the code is shorter where few levels are common
    assert len(micro.content) < len(content)
    codes = np.random.default_rng(0).integers(-128, 128, (4, 8, 8, 2)).astype(np.int8)
    answers = []
    for file in (content, micro.content):
        interpreter = tflm.runtime.Interpreter.from_bytes(file, arena_size=1 << 20)
        for code in codes:
            interpreter.set_input(code[None], 0)
            interpreter.invoke()
            answers.append(interpreter.get_output(0).copy())
    np.testing.assert_array_equal(answers[:4], answers[4:])


def test_ecq_reaches_the_planned_sparsity(trained):
    model, data = trained
    small = xaic.apply(model, on_grid(model, "ecq", 4, sparsity=0.6), data, training=xaic.Training(epochs=0))
    for key in ("stem", "conv", "head"):
        assert small.kernels[key].sparsity == pytest.approx(0.6, abs=0.01)
    assert "prune" not in small.history


@pytest.mark.slow
def test_ecqx_trains_to_the_planned_sparsity_and_is_repeatable(trained):
    model, data = trained
    plan = on_grid(model, "ecqx", 4, sparsity=0.6)
    runs = [xaic.apply(model, plan, data, training=xaic.Training(epochs=1, batch_size=100)) for _ in range(2)]
    for key, kernel in runs[0].kernels.items():
        if key != "depthwise":
            assert kernel.sparsity == pytest.approx(0.6, abs=0.01)
        np.testing.assert_array_equal(kernel.integers, runs[1].kernels[key].integers)
        np.testing.assert_array_equal(kernel.scale, runs[1].kernels[key].scale)


@pytest.mark.slow
def test_two_bits_train(trained):
    """The published step makes nearly all weights zero at 2 bits, and training cannot mend it."""
    model, data = trained
    small = xaic.apply(model, on_grid(model, "ecqx", 2), data, training=xaic.Training(epochs=4, batch_size=25))
    answers = small.model.predict(data.test.x, verbose=0).argmax(axis=1)
    assert np.mean(answers == data.test.y) > 0.9
    assert all(np.abs(kernel.integers).max() <= 1 for kernel in small.kernels.values())
    assert 0.2 < small.sparsity < 0.8
