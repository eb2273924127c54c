from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.device_files import DECODER
from keras_xaic.errors import DataError, ExportError
from keras_xaic.grids import load_kernels
from keras_xaic.settings import FileOptions
from keras_xaic.tflite import convert, decode, export, lookup, match_stored, measure_layers, micro_kit, unpack_download
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.flatbuffer import load
from keras_xaic.tflite.io_types import with_io
from keras_xaic.tflite.micro_kit import c_source, micro_readme, resolver_call
from tests.tflite.models import Small, inputs_of, run


class _Plan:
    activations, lookup = "int8", True

    def save(self, path) -> None:
        path.write_text(json.dumps({"schema": 1}))


def _files(directory) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


ALWAYS = {
    ".xaic",
    "model.tflite",
    "model.xaic",
    "model.keras",
    "grids.npz",
    "check/inputs.npz",
    "check/expected.npz",
    "check/layers.npz",
    "check/task.json",
    "check/edge_check.py",
    "check/xaic_metrics.py",
    "check/unpack_xaic.py",
    *(f"unpack/{name}" for name in DECODER),
}
MICRO = {"micro/model.tflite", "micro/model_data.h", "micro/model_data.cc", "micro/README.md"}


def test_the_bundle_is_complete_and_consistent(twins, tmp_path):
    small = Small(twins.small.model, twins.small.kernels, twins.small.storages, _Plan())
    calibration = inputs_of(small.model, 40)
    bundle = export(small, tmp_path / "out", calibration=calibration)
    assert _files(bundle.path) == ALWAYS | MICRO | {"plan.json"}
    content = bundle.model.read_bytes()
    assert content == build_tflite(small, calibration)
    assert unpack_download(bundle.download.read_bytes()) == content
    saved = load_kernels(bundle.grids)
    assert set(saved) == set(small.kernels)
    for key, entries in match_stored(content, keras.models.load_model(bundle.keras_model)).items():
        assert entries[0].storage == small.storages[key]
        np.testing.assert_array_equal(saved[key].integers, small.kernels[key].integers)
    with np.load(bundle.check / "inputs.npz") as inputs, np.load(bundle.check / "expected.npz") as expected:
        arrays = [inputs[f"x{i}"] for i in range(len(inputs.files))]
        for number, given in enumerate(run(with_io(build_tflite(small, calibration), "float32"), arrays)):
            keras_output = expected[f"keras{number}"]
            assert np.abs(given - keras_output).mean() < 0.05 * np.abs(keras_output).max()


def test_a_plain_keras_model_is_folded_and_stored_as_int8(tmp_path):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 1))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layers.Flatten()(layers.ReLU()(x))))
    bundle = export(
        model, tmp_path / "out", calibration=inputs_of(model, 20)[0], target="mobile", file=FileOptions(io="float32")
    )
    assert _files(bundle.path) == ALWAYS
    folded = keras.models.load_model(bundle.keras_model)
    assert [layer.storage for layer in measure_layers(bundle.model.read_bytes(), folded)] == ["int8", "int8"]
    samples = inputs_of(model, 8, seed=3)
    expected = model.predict(samples, verbose=0)
    assert np.abs(run(bundle.model.read_bytes(), samples)[0] - expected).mean() < 0.02 * np.abs(expected).max()


def test_the_micro_file_takes_int8_even_if_the_other_takes_floats(digits, tmp_path):
    bundle = export(
        digits.small,
        tmp_path / "out",
        calibration=inputs_of(digits.small.model, 40),
        file=FileOptions(io="float32"),
        target="micro",
    )
    samples = inputs_of(digits.small.model, 2)
    assert run(bundle.model.read_bytes(), samples)[0].dtype == np.float32
    assert "| input 0 | 1 x 8 x 8 x 1 | int8 |" in (bundle.micro / "README.md").read_text()


def test_layers_are_measured_by_key(twins):
    content = build_tflite(twins.small, inputs_of(twins.small.model, 40))
    layers_ = measure_layers(content, twins.small.model)
    assert [layer.key for layer in layers_] == list(twins.small.kernels)
    for layer in layers_:
        integers = twins.small.kernels[layer.key].integers.size
        assert layer.storage == twins.small.storages[layer.key]
        assert layer.weights == integers
        least = (integers + 1) // 2 if layer.storage == "int4" else integers
        assert least < layer.flash_bytes <= least + 24 * max(twins.small.kernels[layer.key].integers.shape)
    assert sum(layer.flash_bytes for layer in layers_) < len(content)


def test_nothing_is_left_behind_when_export_fails(digits, tmp_path):
    storages = {**digits.small.storages, "hidden": "int2"}
    with pytest.raises(ExportError, match="'hidden'"):
        export(
            Small(digits.small.model, digits.small.kernels, storages),
            tmp_path / "out",
            calibration=inputs_of(digits.small.model),
        )
    assert list(tmp_path.iterdir()) == []


def test_an_output_directory_is_never_replaced(digits, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    calibration = inputs_of(digits.small.model)
    with pytest.raises(ExportError, match="not empty"):
        export(digits.small, tmp_path / "out", calibration=calibration)
    assert _files(tmp_path / "out") == {"notes.txt"}
    bundle = export(digits.small, tmp_path / "ours", calibration=calibration, target="mobile")
    with pytest.raises(ExportError, match="not empty"):
        export(digits.small, bundle.path, calibration=calibration)
    assert _files(bundle.path) == ALWAYS


def test_wrong_arguments(digits, tmp_path):
    with pytest.raises(ExportError, match="cannot be exported"):
        export(object(), tmp_path / "out", calibration=np.zeros((1, 8, 8, 1)))
    with pytest.raises(ExportError, match="target 'phone'"):
        export(digits.small, tmp_path / "out", calibration=inputs_of(digits.small.model), target="phone")
    with pytest.raises(DataError, match="has shape"):
        export(digits.small, tmp_path / "out", calibration=np.zeros((4, 9, 9, 1)))


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("SPACE_TO_BATCH_ND", "AddSpaceToBatchNd"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("CUMSUM", "AddCumSum"),
        ("PADV2", "AddPadV2"),
        ("SPLIT_V", "AddSplitV"),
        ("RELU6", "AddRelu6"),
        ("L2_NORMALIZATION", "AddL2Normalization"),
        ("RESIZE_NEAREST_NEIGHBOR", "AddResizeNearestNeighbor"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
        ("CUSTOM:TFLM_DECODE", "AddDecode"),
    ],
)
def test_resolver_calls_are_those_of_the_header(kind, call):
    assert resolver_call(kind) == call


def test_unknown_custom_operators_are_refused():
    with pytest.raises(ExportError, match="'FlexErf'"):
        resolver_call("CUSTOM:FlexErf")


def test_a_bundle_traces_the_model_once_and_reads_each_file_of_the_converter_once(digits, tmp_path, monkeypatch):
    calls = []
    for module, name in ((convert, "_traced"), (convert, "load"), (decode, "load"), (lookup, "load"), (micro_kit, "load")):
        original = getattr(module, name)
        counted = lambda *given, name=name, original=original: calls.append(name) or original(*given)  # noqa: E731
        monkeypatch.setattr(module, name, counted)
    bundle = export(digits.small, tmp_path / "out", calibration=inputs_of(digits.small.model, 40))
    assert (bundle.micro / "model.tflite").is_file()
    assert sorted(calls) == ["_traced", "load", "load"]  # the file and its float32 twin


def test_the_readme_states_operators_and_arena(digits):
    content = build_tflite(digits.small, inputs_of(digits.small.model, 40))
    text = micro_readme(len(content), load(content), arena_bytes=4321)
    assert "4,321 bytes of RAM" in text
    assert "arena[4321]" in text
    assert "MicroMutableOpResolver<5> resolver;" in text  # what is flattened for a dense layer needs none
    assert text.count("resolver.Add") == 5


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_c_source_compiles_without_warnings_and_holds_the_bytes(digits, tmp_path):
    from keras_xaic.tflite.micro_kit import write_micro

    content = build_tflite(digits.small, inputs_of(digits.small.model, 40))
    write_micro(tmp_path, content)
    (tmp_path / "main.cc").write_text(
        '#include <cstdint>\n#include <cstdio>\n#include "model_data.h"\n'
        "int main() {\n"
        "  if (reinterpret_cast<std::uintptr_t>(g_model_data) % 16 != 0) return 1;\n"
        "  return std::fwrite(g_model_data, 1, g_model_data_size, stdout) != g_model_data_size;\n}\n"
    )
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(["g++", *flags, "main.cc", "model_data.cc", "-o", "dump"], check=True, cwd=tmp_path)
    assert subprocess.run([tmp_path / "dump"], check=True, stdout=subprocess.PIPE).stdout == content


def test_c_source_rows():
    assert "    0x00, 0x01, 0xff,\n};" in c_source(bytes([0, 1, 255]))
