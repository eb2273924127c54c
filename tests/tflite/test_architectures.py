"""Random small architectures on random grids: what is written agrees with Keras on the interpreters, or is refused."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.edge import available_interpreters, run_file
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.models import canonicalize, weighted_kernels
from keras_xaic.planning.storages import legal_storages
from keras_xaic.tflite import build_tflite, compress_for_micro, match_stored, with_io
from keras_xaic.tflite.flatbuffer import load
from tests.tflite.models import Small, as_int8, inputs_of, run

FAST, ALL = 3, 40


def _random_model(random: np.random.Generator):
    def maybe_norm(x):
        if random.random() < 0.5:
            x = layers.BatchNormalization(
                beta_initializer=keras.initializers.RandomNormal(0, 0.2),
                gamma_initializer=keras.initializers.RandomUniform(0.5, 1.5),
                moving_mean_initializer=keras.initializers.RandomNormal(0, 0.2),
                moving_variance_initializer=keras.initializers.RandomUniform(0.5, 1.5),
            )(x)
        return [layers.ReLU(), layers.ReLU(6.0), layers.Activation("linear")][random.integers(3)](x)

    x = inputs = keras.Input((int(random.integers(6, 10)), int(random.integers(6, 10)), int(random.integers(1, 4))))
    for _ in range(int(random.integers(2, 5))):
        filters, bias = int(random.integers(2, 9)), bool(random.random() < 0.7)
        kind = random.choice(["conv", "point", "depthwise", "separable", "residual", "concat", "transpose", "pool"])
        if kind == "conv":
            x = maybe_norm(layers.Conv2D(filters, 3, padding=str(random.choice(["same", "valid"])), use_bias=bias)(x))
        elif kind == "point":
            x = maybe_norm(layers.Conv2D(filters, 1, use_bias=bias)(x))
        elif kind == "depthwise":
            x = maybe_norm(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(random.integers(1, 3)))(x))
        elif kind == "separable":
            x = maybe_norm(layers.SeparableConv2D(filters, 3, padding="same", use_bias=bias)(x))
        elif kind == "residual":
            x = layers.Add()([x, maybe_norm(layers.Conv2D(x.shape[-1], 3, padding="same")(x))])
        elif kind == "concat":
            x = layers.Concatenate()([x, maybe_norm(layers.Conv2D(filters, 3, padding="same")(x))])
        elif kind == "transpose":
            x = maybe_norm(layers.Conv2DTranspose(filters, 2, padding="same")(x))
        elif min(x.shape[1:3]) >= 4:
            x = [layers.MaxPooling2D(), layers.AveragePooling2D()][random.integers(2)](x)
    x = layers.GlobalAveragePooling2D()(x) if random.random() < 0.3 else layers.Flatten()(x)
    x = maybe_norm(layers.Dense(int(random.integers(3, 12)))(x))
    return keras.Model(inputs, layers.Dense(4, activation=random.choice(["softmax", "linear"]))(x))


def _compressed(seed: int) -> Small:
    """Draws until Keras' own outputs depend on the inputs: files of a dead network agree with anything."""
    for attempt in range(20):
        small = _drawn(seed + 1000 * attempt)
        outputs = small.model.predict(inputs_of(small.model, 16), verbose=0)
        if outputs.std(axis=0).max() > 0.05 * np.abs(outputs).max() > 0:
            return small
    raise AssertionError("20 dead networks in a row")


def _drawn(seed: int) -> Small:
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    model = canonicalize(_random_model(random)).model
    kernels, storages = {}, {}
    for kernel in weighted_kernels(model):
        if random.random() < 0.1:
            continue  # stays plain int8
        bits, per_tensor = int(random.integers(3, 9)), bool(random.random() < 0.5)
        weights = kernel.value * (random.random(kernel.shape) > random.choice([0.0, 0.6]))
        scale = fit_scale(weights, bits, () if per_tensor else kernel.channel_axes)
        kernels[kernel.key] = quantize(weights, bits, scale)
        kernel.variable.assign(kernels[kernel.key].values)
        storages[kernel.key] = str(random.choice(legal_storages(kernel.kind, bits, per_tensor)))
    return Small(model, kernels, storages)


@pytest.fixture
def litert(tmp_path):
    """Runs a file on LiteRT; on the one that judges where it is not installed."""

    def outputs(content: bytes, samples) -> list[np.ndarray]:
        if "litert" not in available_interpreters():
            return run(content, samples)
        (tmp_path / "model.tflite").write_bytes(content)
        return run_file(tmp_path / "model.tflite", samples, interpreter="litert").outputs

    return outputs


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=() if seed < FAST else pytest.mark.slow) for seed in range(ALL)])
def test_random_architectures(seed, litert):
    small = _compressed(seed)
    calibration, samples = inputs_of(small.model, 60), inputs_of(small.model, 16)
    expected = small.model.predict(samples, verbose=0)
    content = build_tflite(small, calibration)
    floating = with_io(content, "float32")
    (given,) = run(floating, samples)
    span = expected.max() - expected.min()
    assert np.abs(given - expected).mean() < 0.02 * span + 0.004  # activations have 8 bits
    (on_litert,) = litert(floating, samples)
    assert np.abs(on_litert - expected).mean() < 0.02 * span + 0.004
    np.testing.assert_array_equal(run(content, samples)[0], run(as_int8(content), samples)[0])
    stored = match_stored(content, small.model)
    assert {key: entries[0].storage for key, entries in stored.items() if key in small.kernels} == small.storages


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=() if seed < FAST else pytest.mark.slow) for seed in range(ALL)])
def test_random_architectures_under_tflite_micro(seed):
    tflm = pytest.importorskip("tflite_micro")

    def outputs(content: bytes) -> np.ndarray:
        interpreter = tflm.runtime.Interpreter.from_bytes(content, arena_size=1 << 21)
        record = load(content).subgraphs[0].tensors[load(content).subgraphs[0].inputs[0]].quantization
        found = []
        for sample in samples[0]:
            codes = np.clip(np.rint(sample / record.scale[0]) + record.zeroPoint[0], -128, 127).astype(np.int8)
            interpreter.set_input(codes[np.newaxis], 0)
            interpreter.invoke()
            found.append(interpreter.get_output(0).copy())
        return np.concatenate(found)

    small = _compressed(seed)
    samples = inputs_of(small.model, 12)
    content = build_tflite(small, inputs_of(small.model, 20))
    micro = compress_for_micro(content)
    assert len(micro.content) <= len(content)
    plain = outputs(content)
    np.testing.assert_array_equal(outputs(micro.content), plain)
    np.testing.assert_array_equal(outputs(as_int8(content)), plain)
    assert np.unique(plain, axis=0).shape[0] > 1  # the outputs do depend on the inputs
    other = run(content, samples)[0]
    assert np.abs(plain.astype(int) - other).mean() <= 2  # other kernels round differently
