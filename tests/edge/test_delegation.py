"""What LiteRT's delegate takes of a file: a property of storage, activation type and kind of layer that must not get lost."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.edge import available_interpreters, race, run_file
from keras_xaic.errors import EdgeError
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.planning import Plan, PlanOptions, plan
from keras_xaic.planning.latency import Times, Work, has_fast_code
from keras_xaic.planning.storages import legal_storages
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.tflite import build_tflite, int8_twin, pack_download, read_grids, slim
from keras_xaic.tflite.build import Uncompressed
from keras_xaic.tflite.flatbuffer import load, pack
from tests.tflite.models import litert_since

pytestmark = pytest.mark.skipif(not litert_since(2, 3), reason="LiteRT 2.3, which was measured, is not installed")

KINDS = {
    "conv": lambda: layers.Conv2D(32, 3, padding="same"),
    "conv_strided": lambda: layers.Conv2D(32, 3, strides=2, activation="relu"),
    "conv_1x1": lambda: layers.Conv2D(32, 1, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3),
    "conv_transpose": lambda: layers.Conv2DTranspose(32, 2, strides=2),
    "dense": lambda: layers.Dense(64, activation="relu"),
}
STORED = {"int8": (8, "int8"), "few bits in int8": (4, "int8"), "int4": (4, "int4"), "looked up": (2, "int4")}
REASONS = {"int4": "INT4 weights of a convolution", "looked up": "its weights are unpacked at every call"}


def net(kind, width=128):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((width,) if kind == "dense" else (8, 8, 16))
    return keras.Model(inputs, KINDS[kind]()(inputs))


def samples_for(model, count=40):
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


def written(kind, stored, precision="int8", activations="int8", width=128):
    """Returns the file of a layer whose kernel lies on a grid, stored as asked for."""
    model = net(kind, width)
    bits, storage = STORED[stored]
    (kernel,) = weighted_kernels(model)
    axes = () if kind == "dense" else kernel.channel_axes
    grid = quantize(kernel.value, bits, fit_scale(kernel.value, bits, axes))
    layer = model.layers[-1]
    layer.set_weights([grid.values.astype(np.float32), *layer.get_weights()[1:]])
    small = Uncompressed(model, {kernel.key: grid}, {kernel.key: storage}, Plan(activations=activations))
    return build_tflite(small, samples_for(model), precision=precision), model


def delegation(content, model, tmp_path, interpreter="litert"):
    (tmp_path / "model.tflite").write_bytes(content)
    return run_file(tmp_path / "model.tflite", samples_for(model, 2), interpreter=interpreter).delegation


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_delegated_of_integer_files(kind, stored, tmp_path):
    if kind == "conv_transpose" and STORED[stored][1] == "int4":
        pytest.skip("this combination has no exact storage")
    if stored == "looked up" and kind in ("conv_1x1", "depthwise"):
        pytest.skip("a table would be larger than the kernel")
    content, model = written(kind, stored)
    found = delegation(content, model, tmp_path)
    (work,) = Times(model).works().values()
    assert found.share == has_fast_code(work, "lookup" if stored == "looked up" else STORED[stored][1]), "plans know"
    if stored == "looked up" or (stored == "int4" and kind != "dense"):
        assert found.share == 0.0
        assert REASONS[stored] in found.refused
    else:
        assert found.share == 1.0
        assert found.refused is None


@pytest.mark.parametrize("stored", ["int8", "int4"])
@pytest.mark.parametrize("width", [127, 126])
def test_dense_kernels_of_four_bits_are_delegated_with_an_even_number_of_inputs(width, stored, tmp_path):
    content, model = written("dense", stored, width=width)
    found = delegation(content, model, tmp_path)
    fast = has_fast_code(Work("dense", [((width, 64), 1)]), stored)
    assert fast is (stored == "int8" or width == 126)
    assert found.share == (1.0 if fast else 0.0)
    assert fast or "INT4 weights of an odd number of inputs" in found.refused


@pytest.mark.parametrize("stored", ["few bits in int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("precision", "activations"), [("weight-only", "float32"), ("int16", "int16")])
def test_what_is_delegated_of_few_bits_with_other_activations(kind, stored, precision, activations, tmp_path):
    bits, storage = STORED[stored]
    if storage not in legal_storages(kind.partition("_1x1")[0].replace("_strided", ""), bits, kind == "dense", activations):
        pytest.skip("this combination has no exact storage")
    content, model = written(kind, stored, precision, activations)
    assert read_grids(content)[0].storage == storage
    assert delegation(content, model, tmp_path).share == (1.0 if activations == "float32" else 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "weight-only", "int16"])
def test_what_is_delegated_with_other_activations(kind, precision, tmp_path):
    model = net(kind)
    found = delegation(build_tflite(model, samples_for(model), precision=precision), model, tmp_path)
    assert found.share == (0.0 if precision == "int16" else 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_slimming_keeps_what_the_delegate_needs(kind, tmp_path):
    model = net(kind)
    plain = int8_twin(model, samples_for(model))
    assert delegation(slim(plain), model, tmp_path).share == 1.0
    for_micro = slim(plain, micro=True)
    assert len(for_micro) <= len(slim(plain))
    if kind.startswith(("conv_strided", "depthwise")):
        found = delegation(for_micro, model, tmp_path)
        assert found.share == 0.0
        assert "its bias has no scales" in found.refused


def test_tflite_runtimes_delegate_is_for_float32(tmp_path):
    if "tflite-runtime" not in available_interpreters():
        pytest.skip("tflite-runtime is not installed")
    content, model = written("conv", "int8")
    found = delegation(content, model, tmp_path, "tflite-runtime")
    assert found.share == 0.0
    assert "float32 values only" in found.refused
    assert (
        delegation(build_tflite(model, samples_for(model), precision="float32"), model, tmp_path, "tflite-runtime").share == 1.0
    )


def test_multiply_adds_are_those_of_the_layers(tmp_path):
    for kind, macs in {
        "conv": 8 * 8 * 32 * 9 * 16,
        "conv_strided": 3 * 3 * 32 * 9 * 16,
        "depthwise": 6 * 6 * 16 * 9,
        "conv_transpose": 8 * 8 * 16 * 2 * 2 * 32,
        "dense": 128 * 64,
    }.items():
        content, model = written(kind, "int8")
        assert delegation(content, model, tmp_path).macs == macs


def test_files_are_timed_in_turn(tmp_path):
    paths = {}
    for stored in ("int8", "looked up"):
        paths[stored] = tmp_path / f"{stored}.tflite"
        paths[stored].write_bytes(written("conv", stored)[0])
    raced = race(paths, interpreter="litert", runs=20)
    assert raced["int8"][0].median > 0
    assert raced["int8"][1].share == 1.0
    assert raced["looked up"][1].share == 0.0


def test_a_file_that_is_refused_in_a_race_is_the_one_that_is_named(tmp_path):
    right, wrong = tmp_path / "right.tflite", tmp_path / "wrong.tflite"
    right.write_bytes(written("dense", "int8")[0])
    model = load(right.read_bytes())
    model.operatorCodes[0].version = 99
    wrong.write_bytes(pack(model))
    with pytest.raises(EdgeError, match=r"refused wrong\.tflite"):
        race({"a": right, "b": wrong}, interpreter="litert", runs=2)


def test_a_download_limit_alone_leaves_every_layer_to_the_fast_kernels(tmp_path):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(24, 3, activation="relu")(layers.Conv2D(16, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(32, activation="relu")(layers.Flatten()(x))))
    samples, relevance = samples_for(model), magnitude(model)
    made = plan(model, relevance, xaic.Budget(download=8_000), PlanOptions(bits=(2, 3, 4)))
    assert made.mean_bits <= 4
    small = xaic.apply(model, made, {"x_train": samples}, relevance=relevance, training=xaic.Training(epochs=0))
    content = build_tflite(small, samples)
    assert delegation(content, model, tmp_path).share == 1.0
    assert len(pack_download(content)) < 9_000
