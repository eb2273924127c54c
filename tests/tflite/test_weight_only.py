"""Grids among float32 activations: INT8 weights that the file itself widens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Samples
from keras_xaic.edge import available_interpreters, judge, run_file, verify
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models import canonicalize
from keras_xaic.tflite import (
    build_tflite,
    compress_for_micro,
    export,
    match_stored,
    measure_layers,
    pack_download,
    unpack_download,
)
from keras_xaic.tflite.flatbuffer import load, operators
from tests.tflite.models import Small, digits_cnn, inputs_of, litert_since, odd_layers, on_grids

RUNTIMES = ("tflite-runtime", "litert", "builtin-ref")
DISTANCE = 2e-6
"""Largest difference from Keras, as a share of the largest output: float32 sums in another order."""


@dataclass(frozen=True)
class Planned:
    activations: str = "float32"
    lookup: bool = True

    def save(self, path) -> None:
        path.write_text("{}")


def normalised() -> keras.Model:
    """Residual, BatchNorm behind every kind of kernel, dilation and stride, folded as compression does."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((9, 9, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1, name="depth")(x))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", dilation_rate=2, name="wide")(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, strides=2, activation="relu", name="last")(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(10, name="hidden")(x)))
    model = keras.Model(inputs, layers.Dense(4, name="head")(x))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return canonicalize(model).model


def _keras(model, samples) -> list[np.ndarray]:
    outputs = model.predict(samples, verbose=0)
    return outputs if isinstance(outputs, list) else [outputs]


def _build(small) -> bytes:
    return build_tflite(small, inputs_of(small.model, 4), precision="weight-only")


def _require_same(content: bytes, model, interpreter: str, folder) -> None:
    if interpreter not in available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    path, samples = folder / "model.tflite", inputs_of(model, 12)
    path.write_bytes(content)
    for given, wanted in zip(run_file(path, samples, interpreter=interpreter).outputs, _keras(model, samples)):
        assert np.abs(given - wanted).max() <= DISTANCE * np.abs(wanted).max()


@pytest.fixture(
    scope="module",
    params=[(digits_cnn, 2, False), (digits_cnn, 5, True), (odd_layers, 4, False), (normalised, 8, False)],
    ids=lambda one: f"{one[0].__name__}-{one[1]}{'-whole' if one[2] else ''}",
)
def written(request) -> tuple[Small, bytes]:
    make, bits, per_tensor = request.param
    small = on_grids(make(), bits=bits, storage="int8", per_tensor=per_tensor)
    return small, _build(small)


@pytest.mark.parametrize("interpreter", RUNTIMES)
def test_a_file_computes_what_keras_computes(written, interpreter, tmp_path):
    small, content = written
    _require_same(content, small.model, interpreter, tmp_path)


def _in_keras_layout(stored: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The way back from the file's layout, written out independently of the package."""
    axes = {"conv": (1, 2, 3, 0), "depthwise": (0, 1, 2, 3), "conv_transpose": (1, 2, 0, 3), "dense": (1, 0)}[kind]
    return stored.transpose(axes).reshape(shape)


def test_the_written_integers_and_steps_are_the_planned_ones(written):
    small, content = written
    stored = match_stored(content, small.model)
    assert set(stored) == set(small.kernels)
    for key, entries in stored.items():
        kernel = small.kernels[key]
        for entry in entries:
            assert entry.storage == "int8"
            np.testing.assert_array_equal(_in_keras_layout(entry.integers, entry.kind, kernel.integers.shape), kernel.integers)
            np.testing.assert_array_equal(_in_keras_layout(entry.values, entry.kind, kernel.integers.shape), kernel.values)
    assert {one.key: one.storage for one in measure_layers(content, small.model)} == dict.fromkeys(small.kernels, "int8")
    assert unpack_download(pack_download(content)) == content
    # A layer that is called twice is stored once.
    assert len(stored.get("twice", [0, 0])) == 2
    assert sum(one.kind == "DEQUANTIZE" for one in operators(load(content))) == len(small.kernels)


def test_codebooks_keep_their_levels(tmp_path):
    small = on_grids(digits_cnn(), storage="int8")
    levels = np.array([-100, -7, 0, 3, 90], np.int8)
    random = np.random.default_rng(0)
    first = small.kernels["first"]
    kernel = QuantizedKernel(random.choice(levels, first.integers.shape), first.scale / 20, 3, levels)
    small.model.get_layer("first").kernel.assign(kernel.values)
    content = _build(replace(small, kernels={**small.kernels, "first": kernel}))
    assert set(np.unique(match_stored(content, small.model)["first"][0].integers)) == set(levels)
    _require_same(content, small.model, judge(), tmp_path)


def test_kernels_without_a_grid_get_8_bits_and_float_layers_stay(tmp_path):
    model = normalised()
    content = build_tflite(model, inputs_of(model, 4), precision="weight-only", float_layers=["head"])
    stored = {key: entries[0] for key, entries in match_stored(content, model).items()}
    assert {key for key, one in stored.items() if one.storage == "float32"} == {"head"}
    assert all(np.abs(one.integers).max() == 127 for key, one in stored.items() if key != "head")
    (tmp_path / "model.tflite").write_bytes(content)
    samples = inputs_of(model, 12)
    (given,), (wanted,) = run_file(tmp_path / "model.tflite", samples).outputs, _keras(model, samples)
    assert np.abs(given - wanted).mean() <= 0.01 * np.abs(wanted).max()


def test_the_plan_says_what_a_file_computes_with():
    small = on_grids(digits_cnn(), storage="int8")
    planned = replace(small, plan=Planned())
    assert build_tflite(planned, inputs_of(small.model, 4)) == _build(small)
    assert build_tflite(planned, inputs_of(small.model, 4), precision="int8") != _build(small)


def _rounded_inputs(x: np.ndarray, kernel: QuantizedKernel, bias: np.ndarray, interpreter: str) -> np.ndarray:
    """A dense layer that rounds every sample to 8 bits by its own range, as "dynamic range" quantization does.

    TFLite's own kernels take the largest magnitude for 127 steps. XNNPACK, which LiteRT has for even numbers of inputs, takes
    the whole range, 0 included, for 255.
    """
    if interpreter == "litert" and x.shape[1] % 2 == 0:
        step = (x.max(axis=1, keepdims=True, initial=0.0) - x.min(axis=1, keepdims=True, initial=0.0)) / 255
    else:
        step = np.abs(x).max(axis=1, keepdims=True) / 127
    return (np.rint(x / step) @ kernel.integers.astype(np.float64)) * step * float(kernel.scale.item()) + bias


SHAPES = [(2, (40, 33)), (4, (40, 33)), (4, (64, 8)), (4, (98, 9)), (3, (80, 12)), (4, (18, 8)), (4, (47, 24))]
"""Bits and (inputs, units): with blocks of 32 inputs and without, whole and not; odd ones and few take another way."""


@pytest.mark.parametrize("interpreter", ["tflite-runtime", "litert"])
@pytest.mark.parametrize(
    ("bits", "shape"), [one if one in SHAPES[2:4] else pytest.param(*one, marks=pytest.mark.slow) for one in SHAPES]
)
def test_packed_dense_layers_round_their_input_and_nothing_else(bits, shape, interpreter, tmp_path):
    if interpreter not in available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    if interpreter == "litert" and not litert_since(2, 3):
        pytest.skip("LiteRT 2.1 rounds inputs in another way")
    keras.utils.set_random_seed(0)
    inputs, units = shape
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(units, bias_initializer="random_normal", name="dense")])
    small = replace(on_grids(model, bits=bits, storage="int4", per_tensor=True), plan=Planned())
    samples = inputs_of(model, 12)
    content = build_tflite(small, samples)
    assert {one.key: one.storage for one in measure_layers(content, small.model)} == {"dense": "int4"}
    assert len(content) < len(build_tflite(replace(small, storages={"dense": "int8"}), samples)) - inputs * units // 2 + 100
    np.testing.assert_array_equal(match_stored(content, small.model)["dense"][0].values.T, small.kernels["dense"].values)
    (tmp_path / "model.tflite").write_bytes(content)
    given = run_file(tmp_path / "model.tflite", samples[0], interpreter=interpreter).outputs[0]
    wanted = _rounded_inputs(samples[0], small.kernels["dense"], small.model.get_layer("dense").bias.numpy(), interpreter)
    assert np.abs(given - wanted).max() <= DISTANCE * np.abs(wanted).max()


def test_packed_dense_layers_stand_among_widened_convolutions(tmp_path):
    whole = on_grids(digits_cnn(), bits=4, storage="int8", per_tensor=True)
    kinds = {key: one[0].kind for key, one in match_stored(_build(whole), whole.model).items()}
    storages = {key: "int4" if kind == "dense" else "int8" for key, kind in kinds.items()}
    packed = replace(whole, storages=storages, plan=Planned())
    content = build_tflite(packed, inputs_of(packed.model, 4))
    assert {one.key: one.storage for one in measure_layers(content, packed.model)} == storages
    assert unpack_download(pack_download(content)) == content
    assert build_tflite(replace(packed, plan=None), inputs_of(packed.model, 4), precision="weight-only") == _build(whole)
    (tmp_path / "model.tflite").write_bytes(content)
    samples = inputs_of(packed.model, 12)
    (given,), (wanted,) = run_file(tmp_path / "model.tflite", samples).outputs, _keras(packed.model, samples)
    assert 0 < np.abs(given - wanted).max() <= 0.02 * np.abs(wanted).max()


def test_kernels_that_are_not_safe_to_pack_stay_bytes(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((94,)), layers.Dense(24, name="dense")])
    small = replace(on_grids(model, bits=4, storage="int4", per_tensor=True), plan=Planned())
    content = build_tflite(small, inputs_of(model, 12))
    assert {one.key: one.storage for one in measure_layers(content, small.model)} == {"dense": "int8"}
    _require_same(content, small.model, judge(), tmp_path)


def test_a_convolution_is_not_packed():
    whole = on_grids(digits_cnn(), bits=4, storage="int4", per_tensor=True)
    with pytest.raises(ExportError, match="4-bit conv kernel with one step per tensor behind float32 activations"):
        build_tflite(replace(whole, plan=Planned()), inputs_of(whole.model, 4))


@pytest.fixture(scope="module")
def small() -> Small:
    return replace(on_grids(digits_cnn(), storage="int8"), plan=Planned())


def test_the_target_micro_is_refused_before_any_work(small, tmp_path):
    with pytest.raises(ExportError, match="weight-only for TensorFlow Lite Micro, which miscomputes such files"):
        export(small, tmp_path / "out", calibration=inputs_of(small.model, 4), target="micro")
    assert not (tmp_path / "out").exists()


def test_both_targets_come_down_to_mobile(small, tmp_path):
    bundle = export(small, tmp_path / "out", calibration=inputs_of(small.model, 4))
    assert bundle.model.read_bytes() == _build(small)
    assert not bundle.micro.exists()
    verified = verify(bundle, Samples(inputs_of(small.model, 4)[0]), interpreters="all", latency_runs=0)
    assert judge() in verified.runs
    assert "tflm" not in verified.runs
    assert verified.error is None


def test_micro_neither_compresses_nor_runs_such_files(small, tmp_path):
    content = _build(small)
    with pytest.raises(ExportError, match="a DEQUANTIZE widens"):
        compress_for_micro(content)
    (tmp_path / "model.tflite").write_bytes(content)
    if "tflm" in available_interpreters():
        with pytest.raises(EdgeError, match="which tflm computes wrongly"):
            run_file(tmp_path / "model.tflite", inputs_of(small.model, 2), interpreter="tflm")
