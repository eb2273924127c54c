from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.tflite import build_tflite, measure_layers, pack_download, read_grids, unpack_download
from keras_xaic.tflite.flatbuffer import load, pack
from keras_xaic.tflite.int2 import with_int2
from tests.tflite.models import Small, inputs_of


def _model(bits: int = 2) -> Small:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((256,))
    x = layers.Dense(64, activation="relu", name="wide")(x)
    x = layers.Dense(30, activation="relu", name="narrow")(x)
    model = keras.Model(inputs, layers.Dense(4, name="head")(x))
    random, kernels, limit = np.random.default_rng(0), {}, 2 ** (bits - 1) - 1
    for layer in model.layers[1:]:
        integers = random.integers(-limit, limit + 1, layer.kernel.shape).astype(np.int8)
        scale = np.full((1, 1), 1.0 / np.sqrt(len(integers)) / limit, np.float32)
        kernels[layer.name] = QuantizedKernel(integers, scale, bits)
        layer.set_weights([kernels[layer.name].values, random.normal(0, 0.1, layer.units)])
    return Small(model, kernels, dict.fromkeys(kernels, "int4"))


@pytest.fixture(scope="module")
def files() -> tuple[Small, bytes, bytes, bytes]:
    """The model, its file with INT4, with INT2, and with weights that are looked up."""
    small = _model()
    samples = inputs_of(small.model, 20)
    plain = build_tflite(small, samples, lookup=False)
    return small, plain, pack(with_int2(load(plain))), build_tflite(small, samples)


def _run(content, tmp_path, interpreter):
    path = tmp_path / "one.tflite"
    path.write_bytes(content)
    x = np.random.default_rng(0).integers(-128, 128, (16, 256)).astype(np.int8)
    found = edge.run_file(path, x, interpreter=interpreter, latency_runs=100)
    return found.outputs[0], edge.race({"one": path}, interpreter=interpreter, runs=100)["one"]


@pytest.mark.slow
def test_litert_computes_the_same_bits_with_its_fast_kernels(files, tmp_path):
    if "litert" not in edge.available_interpreters():
        pytest.skip("litert is not installed")
    (expected, _), (given, (fast, delegation)) = (_run(one, tmp_path, "litert") for one in files[1:3])
    np.testing.assert_array_equal(given, expected)
    assert len(np.unique(given)) > 20
    assert (delegation.share, delegation.refused) == (1.0, None)
    _, (slow, _) = _run(files[3], tmp_path, "litert")
    assert fast.least < slow.least / 3


@pytest.mark.parametrize("interpreter", ["tflite-runtime", "tflm"])
def test_others_refuse_the_file(files, tmp_path, interpreter):
    if interpreter not in edge.available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    with pytest.raises(EdgeError, match="refused"):
        _run(files[2], tmp_path, interpreter)


def test_two_bits_a_weight_where_litert_delegates_them(files):
    small, plain, content, looked_up = files
    storages = ["int2", "int2", "int4"]  # 30 inputs of the last are no multiple of four
    assert [one.storage for one in read_grids(content)] == storages
    assert [one.storage for one in measure_layers(content, small.model)] == storages
    for before, after in zip(read_grids(plain), read_grids(content)):
        np.testing.assert_array_equal(before.values, after.values)
        assert after.weight_bytes == before.weight_bytes // (2 if after.storage == "int2" else 1)
    assert len(looked_up) < len(content) < len(looked_up) + 12 * (64 + 30)  # a scale and a zero point for every unit
    assert len(content) < len(plain) - 3000
    assert [one.storage for one in read_grids(plain)] == ["int4"] * 3  # the file it is made from is not changed


def test_the_download_codes_weights_one_by_one(files):
    *_, content, looked_up = files
    assert unpack_download(pack_download(content)) == content
    assert len(pack_download(content)) < len(pack_download(looked_up)) + 50


def test_weights_of_more_values_stay_as_they_are():
    small = _model(bits=3)
    plain = build_tflite(small, inputs_of(small.model, 20), lookup=False)
    assert pack(with_int2(load(plain))) == pack(load(plain))


def test_export_says_where_int2_cannot_be_had(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    with pytest.raises(ExportError, match="int2 with the target both"):
        xaic.export(model, tmp_path / "a", calibration=x, file=xaic.FileOptions(int2=True))
    if edge.judge() == "litert":
        return
    with pytest.raises(ExportError, match="does not know INT2"):
        xaic.export(model, tmp_path / "b", calibration=x, target="mobile", file=xaic.FileOptions(int2=True))


def test_export_writes_what_litert_runs(files, tmp_path):
    small = files[0]
    how = {"calibration": inputs_of(small.model, 20)[0], "target": "mobile", "file": xaic.FileOptions(int2=True)}
    how["options"] = xaic.DataOptions(task="regression")
    made = xaic.export(_compressed(small), tmp_path / "out", prove=edge.judge() == "litert", **how)
    assert [one.storage for one in read_grids(made.model.read_bytes())] == ["int2", "int2", "int4"]


def _compressed(small: Small) -> xaic.CompressedModel:
    layer = {"kind": "dense", "bits": 2, "granularity": "tensor", "storage": "int4"}
    sizes = {key: int(kernel.integers.size) for key, kernel in small.kernels.items()}
    plan = xaic.Plan(layers=[{"key": key, "weights": size, **layer} for key, size in sizes.items()])
    return xaic.CompressedModel(small.model, small.kernels, plan, {})
