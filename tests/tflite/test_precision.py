"""Files that compute with int16, float16 or float32, wholly or in single layers."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.edge import available_interpreters, run_file
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.tflite import build_tflite, export, match_stored
from keras_xaic.tflite.flatbuffer import TensorType, load, operators
from tests.tflite.models import Small, digits_cnn, inputs_of, odd_layers, on_grids

RUNTIMES = ("tflite-runtime", "litert", "tflm")


def _outputs(content: bytes, samples, interpreter: str, tmp_path) -> list[np.ndarray]:
    if interpreter not in available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return run_file(path, samples, interpreter=interpreter).outputs


def _keras(model, samples) -> list[np.ndarray]:
    outputs = model.predict(samples, verbose=0)
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.mark.parametrize("interpreter", RUNTIMES)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 1e-3), ("dynamic-range", 0.02), ("int16", 1e-3), ("int8", 0.05)]
)
def test_every_precision_agrees_with_keras_or_is_refused(precision, tolerance, interpreter, tmp_path, digits):
    samples = inputs_of(digits.small.model, 12)
    content = build_tflite(digits.small, inputs_of(digits.small.model, 40), precision=precision)
    expected = _keras(digits.small.model, samples)
    if interpreter == "tflm" and precision == "float16":
        with pytest.raises(EdgeError, match="refused"):
            _outputs(content, samples, interpreter, tmp_path)
        return
    for given, wanted in zip(_outputs(content, samples, interpreter, tmp_path), expected):
        assert np.abs(given - wanted).mean() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("bits", [3, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (4, 6, 8))])
@pytest.mark.parametrize("make", [digits_cnn, odd_layers])
def test_grids_behind_int16_activations_are_exact(bits, make, tmp_path):
    small = on_grids(make(), bits=bits, storage="int8")
    samples = [array / 3 for array in inputs_of(small.model, 12)]
    content = build_tflite(small, inputs_of(small.model, 200), precision="int16")
    found = match_stored(content, small.model)
    assert set(found) == set(small.kernels)
    for key, entries in found.items():
        assert entries[0].storage == "int8"
        kernel = small.kernels[key]
        stored = entries[0].integers.astype(np.int64).ravel()
        np.testing.assert_array_equal(np.sort(stored), np.sort(kernel.integers.astype(np.int64).ravel() << (8 - bits)))
    for interpreter in set(RUNTIMES) & set(available_interpreters()):
        for given, wanted in zip(_outputs(content, samples, interpreter, tmp_path), _keras(small.model, samples)):
            assert np.abs(given - wanted).mean() <= 2e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("interpreter", RUNTIMES)
@pytest.mark.parametrize("name", ["first", "depth", pytest.param("hidden", marks=pytest.mark.slow)])
def test_a_layer_can_stay_float_in_an_int8_file(name, interpreter, tmp_path, digits):
    storages = {**digits.small.storages, name: "float32"}
    small = Small(digits.small.model, digits.small.kernels, storages)
    content = build_tflite(small, inputs_of(small.model, 40))
    stored = match_stored(content, small.model)
    assert {key: entries[0].storage for key, entries in stored.items()} == storages
    np.testing.assert_allclose(np.sort(stored[name][0].values.ravel()), np.sort(small.kernels[name].values.ravel()), atol=1e-6)
    types = [(one.input(0).type, one.output().type) for one in operators(load(content))]
    assert types[0][0] == (TensorType.FLOAT32 if name == "first" else TensorType.INT8)
    assert types[-1][1] == TensorType.INT8
    samples = inputs_of(small.model, 12)
    (given,), (wanted,) = _outputs(content, samples, interpreter, tmp_path), _keras(small.model, samples)
    assert np.abs(given - wanted).mean() <= 0.05 * np.abs(wanted).max()


def test_what_micro_does_not_run_is_refused_before_any_work(tmp_path, digits):
    calibration = inputs_of(digits.small.model, 8)
    for precision in ("float16", "dynamic-range", "weight-only"):
        with pytest.raises(ExportError, match="TensorFlow Lite Micro"):
            export(digits.small, tmp_path / "out", calibration=calibration, precision=precision, target="micro")
    assert not (tmp_path / "out").exists()


def test_what_micro_does_not_run_is_left_out_of_both_and_told(tmp_path, digits):
    told = []
    bundle = export(
        digits.small, tmp_path / "out", calibration=inputs_of(digits.small.model, 8), precision="float16", warn=told.append
    )
    assert bundle.model.is_file()
    assert not bundle.micro.exists()
    assert len(told) == 1
    assert "micro/ was not written: TensorFlow Lite Micro refuses weights in float16" in told[0]


def test_float_layers_that_do_not_exist_are_named(digits):
    with pytest.raises(ExportError, match="no layer 'nothing'"):
        build_tflite(digits.small, inputs_of(digits.small.model, 8), float_layers=["nothing"])


@pytest.mark.parametrize("precision", ["int16", "float32"])
def test_bundles_of_other_precisions(precision, tmp_path, digits):
    bundle = export(digits.small, tmp_path / "out", calibration=inputs_of(digits.small.model, 20), precision=precision)
    samples = inputs_of(digits.small.model, 4)
    for path in (bundle.model, bundle.micro / "model.tflite"):
        assert run_file(path, samples, interpreter="builtin-ref").outputs[0].shape == (4, 4)
