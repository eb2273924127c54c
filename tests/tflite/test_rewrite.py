from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.tflite.convert import float_twin, int8_twin
from keras_xaic.tflite.flatbuffer import constant, load, operators
from keras_xaic.tflite.io_types import with_io
from keras_xaic.tflite.reading import match_stored, read_grids
from tests.tflite.models import Small, as_int8, inputs_of, on_grids, run, with_grids


def _in_keras_layout(integers: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The way back from the file's layout, written out independently of the package."""
    if kind == "dense":
        return integers.T
    axes = {"conv": (1, 2, 3, 0), "depthwise": (0, 1, 2, 3), "conv_transpose": (1, 2, 0, 3)}[kind]
    return integers.transpose(axes).reshape(shape)


def _build(model, **grid) -> tuple[Small, bytes]:
    small = on_grids(model, **grid)
    twins = with_io(int8_twin(small.model, inputs_of(small.model, 40)), "float32"), float_twin(small.model)
    return small, with_grids(*twins, small.kernels, small.storages)


@pytest.mark.parametrize("storage", ["int4", "int8"])
def test_the_written_integers_are_the_planned_ones(twins, storage):
    small = twins.small
    storages = {key: "int8" if planned == "int8" else storage for key, planned in small.storages.items()}
    stored = match_stored(with_grids(twins.int8, twins.float32, small.kernels, storages), small.model)
    assert set(stored) == set(small.kernels)
    for key, entries in stored.items():
        kernel = small.kernels[key]
        for entry in entries:
            widening = 1 if storages[key] == "int4" else 16
            assert entry.storage == storages[key]
            integers = _in_keras_layout(entry.integers, entry.kind, kernel.integers.shape)
            np.testing.assert_array_equal(integers, kernel.integers * widening)
            values = _in_keras_layout(entry.values, entry.kind, kernel.integers.shape)
            np.testing.assert_array_equal(values, kernel.values)
    assert len(stored.get("twice", [0, 0])) == 2


def test_int4_outputs_equal_the_same_integers_in_int8(twins):
    small = twins.small
    content = with_grids(twins.int8, twins.float32, small.kernels, small.storages)
    samples = inputs_of(small.model, 16)
    assert len(as_int8(content)) > len(content), "something is packed"
    for packed, bytewise in zip(run(content, samples), run(as_int8(content), samples)):
        np.testing.assert_array_equal(packed, bytewise)


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7, 8])
def test_every_bit_width_agrees_with_keras(bits):
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layers.Flatten()(x)))
    small = on_grids(model, bits=bits, storage="int4" if bits <= 4 else "int8")
    twins = with_io(int8_twin(model, inputs_of(model, 60)), "float32"), float_twin(model)
    content = with_grids(*twins, small.kernels, small.storages)
    samples = inputs_of(model, 16)
    expected = model.predict(samples, verbose=0)
    (given,) = run(content, samples)
    assert np.abs(given - expected).mean() < 0.02 * np.abs(expected).max()


def test_biases_follow_the_new_steps(digits):
    content = with_grids(digits.int8, digits.float32, digits.small.kernels, digits.small.storages)
    model = load(content)
    dense = [operator for operator in operators(model) if operator.kind == "FULLY_CONNECTED"]
    assert len(dense) == 2
    for operator, layer in zip(dense, ("hidden", "head")):
        data, weights, bias = operator.input(0), operator.input(1), operator.input(2)
        expected = digits.small.model.get_layer(layer).bias.numpy()
        step = float(data.quantization.scale[0]) * float(weights.quantization.scale[0])
        np.testing.assert_allclose(bias.quantization.scale, step, rtol=1e-6)
        np.testing.assert_allclose(constant(model, bias) * step, expected, atol=0.51 * step)


def test_operator_versions(digits):
    model = load(with_grids(digits.int8, digits.float32, digits.small.kernels, digits.small.storages))
    versions = {operator.kind: model.operatorCodes[operator.record.opcodeIndex].version for operator in operators(model)}
    assert (versions["CONV_2D"], versions["DEPTHWISE_CONV_2D"], versions["FULLY_CONNECTED"]) == (7, 7, 10)


def test_layers_without_a_grid_stay_as_the_converter_wrote_them(digits):
    kernels = {key: digits.small.kernels[key] for key in ("inner", "hidden")}
    content = with_grids(digits.int8, digits.float32, kernels, digits.small.storages)
    before, after = read_grids(digits.int8), read_grids(content)
    changed = [a.storage == "int4" for a in after]
    assert sum(changed) == 2
    for b, a, is_new in zip(before, after, changed):
        if not is_new:
            np.testing.assert_array_equal(a.integers, b.integers)
            np.testing.assert_array_equal(a.bias, b.bias)


def test_per_channel_dense_in_int8():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(6, activation="relu", name="a"), layers.Dense(4, name="b")])
    small = on_grids(model, bits=8, storage="int8")
    random = np.random.default_rng(0)
    kernel = QuantizedKernel(
        small.kernels["a"].integers, (small.kernels["a"].scale * 4.0 ** random.uniform(-1, 1, (1, 6))).astype(np.float32), 8
    )
    model.get_layer("a").kernel.assign(kernel.values)
    kernels = {**small.kernels, "a": kernel}
    twins = with_io(int8_twin(model, inputs_of(model, 60)), "float32"), float_twin(model)
    content = with_grids(*twins, kernels, small.storages)
    assert read_grids(content)[0].scale.shape == (6, 1)
    samples = inputs_of(model, 40)
    expected = model.predict(samples, verbose=0)
    mean_error = [np.abs(run(one, samples)[0] - expected).mean() for one in (content, twins[0])]
    assert mean_error[0] < 0.02 * np.abs(expected).max()


def test_int4_of_a_per_channel_dense_kernel_is_refused_by_name(digits):
    kernel = digits.small.kernels["hidden"]
    steps = np.repeat(kernel.scale, 9, axis=1)
    steps[0, 3] *= np.float32(1 + 1e-4)
    kernels = {**digits.small.kernels, "hidden": dataclasses.replace(kernel, scale=steps)}
    with pytest.raises(ExportError, match=r"layer 'hidden'.*cannot be stored as int4"):
        with_grids(digits.int8, digits.float32, kernels, digits.small.storages)


def test_transposed_convolution_in_int4_is_refused_by_name(odd):
    with pytest.raises(ExportError, match=r"layer 'up'.*cannot be stored as int4"):
        with_grids(odd.int8, odd.float32, odd.small.kernels, {**odd.small.storages, "up": "int4"})


def test_too_many_bits_for_int4_are_refused(digits):
    kernels = {**digits.small.kernels, "inner": dataclasses.replace(digits.small.kernels["inner"], bits=5)}
    with pytest.raises(ExportError, match="layer 'inner': a 5-bit conv kernel"):
        with_grids(digits.int8, digits.float32, kernels, digits.small.storages)


def test_a_grid_that_the_model_does_not_hold_is_named(digits):
    kernel = digits.small.kernels["depth"]
    integers = kernel.integers.copy()
    integers.flat[5] += 1 if integers.flat[5] < 7 else -1
    kernels = {**digits.small.kernels, "depth": dataclasses.replace(kernel, integers=integers)}
    with pytest.raises(ExportError, match="'depth'"):
        with_grids(digits.int8, digits.float32, kernels, digits.small.storages)


def test_twins_of_two_models_are_refused(digits, odd):
    with pytest.raises(ExportError, match="same weight operators"):
        with_grids(digits.int8, odd.float32, digits.small.kernels, digits.small.storages)


def test_dead_channels_keep_their_bias():
    x = inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(4, 3, name="conv")(x)
    model = keras.Model(inputs, layers.Dense(4, name="dense")(layers.GlobalAveragePooling2D()(x)))
    small = on_grids(model)
    kernel = small.kernels["conv"]
    integers, scale = kernel.integers.copy(), kernel.scale.copy()
    integers[..., 1], scale[..., 1] = 0, 1e-12  # the bias would overflow 32 bits
    kernels = {**small.kernels, "conv": QuantizedKernel(integers, scale, 4)}
    model.get_layer("conv").set_weights([kernels["conv"].values, np.array([0.1, 3.0, -0.2, 0.0])])
    twins = with_io(int8_twin(model, inputs_of(model, 40)), "float32"), float_twin(model)
    content = with_grids(*twins, kernels, small.storages)
    samples = inputs_of(model, 8)
    expected = model.predict(samples, verbose=0)
    np.testing.assert_allclose(run(content, samples)[0], expected, atol=0.03 * np.abs(expected).max())


def test_a_live_channel_whose_bias_overflows_is_refused():
    inputs = keras.Input((5, 5, 2))
    model = keras.Model(inputs, layers.Conv2D(3, 3, name="conv")(inputs))
    small = on_grids(model)
    kernel = dataclasses.replace(small.kernels["conv"], scale=small.kernels["conv"].scale * np.float32(1e-9))
    model.get_layer("conv").set_weights([kernel.values, np.array([0.0, 0.0, 5.0])])
    twins = with_io(int8_twin(model, inputs_of(model, 40)), "float32"), float_twin(model)
    with pytest.raises(ExportError, match="layer 'conv': the bias 5 of channel 2"):
        with_grids(*twins, {"conv": kernel}, {"conv": "int4"})


def test_equal_kernels_are_told_apart_by_order():
    x = inputs = keras.Input((6,))
    for name in ("one", "two", "three"):
        x = layers.Dense(6, name=name)(x)
    model = keras.Model(inputs, x)
    small = on_grids(model)
    values = small.kernels["one"].values
    kernels = dict.fromkeys(("one", "two", "three"), small.kernels["one"])
    for name in kernels:
        model.get_layer(name).kernel.assign(values)
    content = with_grids(
        int8_twin(model, inputs_of(model, 20)), float_twin(model), kernels, {"one": "int4", "two": "int8", "three": "int4"}
    )
    assert [entry.storage for entry in read_grids(content)] == ["int4", "int8", "int4"]


def test_writing_is_deterministic(digits):
    once, again = (with_grids(digits.int8, digits.float32, digits.small.kernels, digits.small.storages) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("storage", ["int4", "int8"])
def test_a_constant_factor_that_the_converter_folds_into_a_layer_goes_into_its_steps(storage):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(4, name="dense")(layers.Flatten()(x)))
    small, content = _build(model, storage=storage)
    stored = read_grids(content)[0]
    integers = _in_keras_layout(stored.integers, stored.kind, (3, 3, 3, 6))
    np.testing.assert_array_equal(integers, small.kernels["conv"].integers * (1 if storage == "int4" else 16))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.float32)
    expected = small.model.predict(pixels, verbose=0)
    twin = with_io(int8_twin(small.model, pixels), "float32")
    (outputs,) = run(with_grids(twin, float_twin(small.model), small.kernels, small.storages), [pixels])
    assert np.abs(outputs - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.slow
def test_recurrent_layers_convert_and_stay_plain_int8():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 2))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layers.LSTM(4, name="lstm")(inputs)))
    _, content = _build(model)
    assert [stored.storage for stored in read_grids(content)][-1] == "int4"
