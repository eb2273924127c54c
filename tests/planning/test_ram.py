"""The predicted arena against the one that TensorFlow Lite Micro was measured to need."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.compression import apply
from keras_xaic.edge import available_interpreters, predict_arena, read_file
from keras_xaic.models import channel_groups, macs, remove_channels
from keras_xaic.planning import Budget, FilterPlan, Plan, PlanOptions, plan
from keras_xaic.planning.filters import FilterCost
from keras_xaic.planning.ram import ModelArena, predict_ram
from keras_xaic.relevance import attribute
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.decode import compress_for_micro
from keras_xaic.tflm_memory import Buffer, activations, place_buffers

needs_tflm = pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")
CLOSE = 0.005
"""Relative error: 0 with the version that the sizes of structures were measured on, a few bytes with others."""


def chain():
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(layers.Conv2D(16, 3, strides=2, activation="relu", name="second")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(layers.Flatten()(x)))


def residual():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(24, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(12, 3, padding="same", name="back")(y)]))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x))


def depthwise():
    inputs = keras.Input((20, 20, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.AveragePooling2D()(layers.Conv2D(32, 1, activation="relu", name="pointwise")(x))
    return keras.Model(inputs, layers.Dense(8, name="head")(layers.Flatten()(x)))


def dense():
    inputs = keras.Input((100,))
    x = layers.Dense(64, activation="relu", name="first")(inputs)
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.Dense(32, activation="relu", name="second")(x)))


def branches():
    inputs = keras.Input((12, 12, 4))
    x = layers.Concatenate()([layers.Conv2D(8, 3, padding="same")(inputs), layers.Conv2D(6, 1, activation="relu6")(inputs)])
    x = layers.UpSampling2D()(layers.Conv2D(8, 3, activation="sigmoid")(x))
    return keras.Model(inputs, layers.Conv2D(3, 3)(layers.ZeroPadding2D()(x)))


def separable():
    inputs = keras.Input((16, 16, 4))
    x = layers.SeparableConv2D(24, 3, padding="same", activation="swish", name="separable")(inputs)
    x = layers.LeakyReLU()(layers.Conv2D(12, 3, strides=2, name="conv")(x))
    return keras.Model(inputs, layers.Conv2DTranspose(6, 3, strides=2, name="up")(x))


def sequence():
    inputs = keras.Input((40, 6))
    x = layers.Conv1D(16, 5, activation="relu", name="first")(inputs)
    x = layers.Conv1D(16, 3, activation="elu", name="second")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(x)))


def made(make):
    """A model with weights and biases that the converter cannot leave away, and inputs for it."""
    keras.utils.set_random_seed(0)
    model, rng = make(), np.random.default_rng(1)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.normal(size=variable.shape) * 0.1)
    return model, rng.normal(size=(32, *model.input_shape[1:])).astype(np.float32)


def written(content, where):
    path = where / "model.tflite"
    path.write_bytes(content)
    return path


FAST = [chain, residual, depthwise, dense]
SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in (branches, separable, sequence)]


@needs_tflm
@pytest.mark.parametrize("make", FAST + SLOW)
def test_int8_files_need_what_was_predicted(make, tmp_path):
    model, x = made(make)
    path = written(build_tflite(model, x), tmp_path)
    measured, predicted = edge.measure_arena(path), predict_arena(read_file(path))
    assert predicted.head == measured.head  # the greedy plan, byte by byte
    assert predicted.minimum == pytest.approx(measured.minimum, rel=CLOSE)
    assert predict_ram(model, []) == pytest.approx(measured.minimum, rel=CLOSE)


@needs_tflm
@pytest.mark.parametrize("make", [residual, dense, *(pytest.param(one, marks=pytest.mark.slow) for one in (chain, depthwise))])
def test_int4_weights_are_unpacked_into_the_arena(make, tmp_path):
    model, x = made(make)
    if make in (dense, depthwise):
        model.compile(loss="mse")  # a linear output without targets says nothing about its task
    relevance = attribute(model, x, target="all")
    small = apply(
        model,
        plan(model, relevance, Budget(), PlanOptions(bits=(4,), packed=True)),
        x,
        relevance=relevance,
        training=xaic.Training(epochs=0),
        calibration=16,
    )
    path = written(build_tflite(small, x), tmp_path)
    measured = edge.measure_arena(path)
    assert predict_arena(read_file(path)).minimum == pytest.approx(measured.minimum, rel=CLOSE)
    assert small.plan.predicted_ram_bytes == pytest.approx(measured.minimum, rel=CLOSE)
    assert small.plan.predicted_ram_bytes > 1.1 * predict_ram(model, [])  # a model that ignores storage cannot pass


@needs_tflm
def test_decoded_weights_live_in_the_arena(tmp_path):
    model, x = made(chain)
    rng = np.random.default_rng(2)
    for kernel in (weight for weight in model.trainable_variables if len(weight.shape) > 1):
        kernel.assign(rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], kernel.shape))
    compressed = compress_for_micro(build_tflite(model, x))
    assert compressed.encodings
    path = written(compressed.content, tmp_path)
    measured, predicted = edge.measure_arena(path), predict_arena(read_file(path))
    assert predicted.head == measured.head > predict_arena(read_file(written(build_tflite(model, x), tmp_path))).head
    assert predicted.minimum == pytest.approx(measured.minimum, rel=0.02)


@needs_tflm
@pytest.mark.slow
@pytest.mark.parametrize("make", [residual, separable])
def test_int16_activations_take_twice_as_much(make, tmp_path):
    model, x = made(make)
    path = written(build_tflite(model, x, precision="int16"), tmp_path)
    measured = edge.measure_arena(path)
    assert predict_arena(read_file(path)).minimum == pytest.approx(measured.minimum, rel=CLOSE)
    assert predict_ram(model, [], "int16") == pytest.approx(measured.minimum, rel=CLOSE)


@pytest.mark.parametrize("make", [chain, residual, depthwise, dense, branches, separable, sequence])
def test_a_model_with_channels_gone_needs_what_the_masks_say(make):
    model, _ = made(make)
    groups, rng = channel_groups(model), np.random.default_rng(3)
    arena = ModelArena(groups)
    whole = arena({}, {})
    for share in (0.3, 0.7):
        keep = {group.name: rng.random(group.size) > share for group in groups.removable}
        for mask in keep.values():
            mask[0] = True
        assert predict_ram(remove_channels(model, keep), []) == arena(keep, {})
        assert make is dense or arena(keep, {}) < whole  # planning itself needs most of all in the dense model


@pytest.mark.parametrize("make", [chain, residual, depthwise, branches])
def test_fewer_channels_never_need_more(make):
    model, _ = made(make)
    groups, rng = channel_groups(model), np.random.default_rng(4)
    arena, keep = ModelArena(groups), {group.name: np.ones(group.size, bool) for group in channel_groups(model).removable}
    needs = [arena(keep, {})]
    while any(mask.sum() > 1 for mask in keep.values()):
        name = rng.choice([name for name, mask in keep.items() if mask.sum() > 1])
        keep[name][rng.choice(np.flatnonzero(keep[name]))] = False
        needs.append(arena(keep, {}))
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] < needs[0]


def test_buffers_share_bytes_where_their_times_do_not_meet():
    assert place_buffers([]) == 0
    assert place_buffers([Buffer(64, 0, 1), Buffer(64, 2, 3)]) == 64
    assert place_buffers([Buffer(64, 0, 1), Buffer(64, 1, 3)]) == 128
    # The largest lies at 0, what lives with it above; the third finds the gap that the first leaves when it is gone.
    assert place_buffers([Buffer(32, 0, 2), Buffer(96, 0, 1), Buffer(80, 2, 4)]) == 128


def test_no_plan_is_smaller_than_what_lives_at_one_time():
    rng = np.random.default_rng(5)
    for _ in range(50):
        spans = np.sort(rng.integers(0, 12, (20, 2)), axis=1)
        buffers = [Buffer(16 * int(size), int(a), int(b)) for size, (a, b) in zip(rng.integers(1, 40, 20), spans)]
        peak = max(sum(one.size for one in buffers if one.first <= now <= one.last) for now in range(12))
        assert peak <= place_buffers(buffers) <= sum(one.size for one in buffers)


def test_a_residual_input_lives_until_it_is_added():
    model, _ = made(residual)
    graph = ModelArena(channel_groups(model)).graph({}, {})
    names = [operator.name for operator in graph.operators]
    assert names == ["CONV_2D", "CONV_2D", "CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert Buffer(16 * 16 * 12, 1, 4) in activations(graph)


@needs_tflm
@pytest.mark.parametrize("bits", [pytest.param((), marks=pytest.mark.slow), (4, 8)])
def test_a_ram_budget_takes_filters_until_the_file_fits(bits, tmp_path):
    model, x = made(residual)
    relevance = attribute(model, x, target="predicted")
    whole = plan(model, relevance, Budget(), PlanOptions(bits=bits))
    limit = round(0.6 * whole.predicted_ram_bytes)
    chosen = plan(model, relevance, Budget(ram=limit), PlanOptions(bits=bits))
    assert chosen.remove
    assert 0.85 * limit < chosen.predicted_ram_bytes <= limit
    small = apply(model, chosen, x, relevance=relevance, training=xaic.Training(epochs=0), calibration=16)
    path = written(build_tflite(small, x), tmp_path)
    assert edge.measure_arena(path).minimum <= limit
    assert edge.measure_arena(path).minimum == pytest.approx(chosen.predicted_ram_bytes, rel=CLOSE)


def test_a_ram_budget_that_holds_changes_nothing_and_one_beyond_all_means_gives_the_smallest():
    model, x = made(residual)
    relevance = attribute(model, x, target="predicted")
    free = plan(model, relevance, Budget())
    roomy = plan(model, relevance, Budget(ram=free.predicted_ram_bytes))
    assert roomy.layers == free.layers
    assert not roomy.remove
    whole = plan(model, relevance, Budget(ram=1000), PlanOptions(filters=False))
    assert whole.layers == free.layers  # neither fewer bits nor zeros make an arena smaller
    least = plan(model, relevance, Budget(ram=1000))
    assert 1000 < least.predicted_ram_bytes < 0.6 * free.predicted_ram_bytes


def test_a_ram_limit_is_met_in_steps():
    model, x = made(residual)
    relevance = attribute(model, x, target="predicted")
    limit = round(0.6 * predict_ram(model, []))
    chosen = plan(model, relevance, Budget(ram=limit), PlanOptions(steps=3))
    assert chosen.filters is not None
    assert chosen.filters.limits == {"ram_bytes": limit}
    small = apply(model, chosen, x, relevance=relevance, training=xaic.Training(epochs=0), calibration=16)
    assert predict_ram(small.model, small.plan.layers) <= limit
    assert small.plan.predicted_ram_bytes == predict_ram(small.model, small.plan.layers)


def test_ram_and_multiply_accumulates_hold_together():
    model, x = made(residual)
    groups = channel_groups(model)
    limits = FilterPlan(macs=sum(macs(model).values()) // 2, ram_bytes=round(0.8 * predict_ram(model, [])))
    assert FilterCost(groups, limits, {})({}) == pytest.approx(2.0, rel=0.01)
    small = apply(model, Plan(filters=limits), x, training=xaic.Training(epochs=0), calibration=16).model
    assert sum(macs(small).values()) <= limits.macs
    assert predict_ram(small, []) <= limits.ram_bytes
