"""Every kind of layer in every precision, on every interpreter: right, or refused with a reason. Never wrong."""

from __future__ import annotations

import functools
from typing import Union

import numpy as np
import pytest

from keras_xaic.edge import available_interpreters, run_file
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.build import Uncompressed
from tests.tflite.architectures import NAMES, architecture, random_inputs

PRECISIONS = {"int8": 0.1, "int16": 0.03, "weight-only": 0.03, "float32": 1e-4}
"""Largest mean deviation from Keras, in standard deviations of its outputs. Wrong values deviate by 0.2 to 1.2."""
FAST = ("act_selu", "gru", "conv_long_stride", "dead")
_BOTH, _ALL = ("tflite-runtime", "litert"), ("tflite-runtime", "litert", "tflm")
KNOWN_WRONG = {
    (name, precision, interpreter)
    for name, precision, interpreters in [
        ("conv_long_stride", "float32", ("tflite-runtime",)),
        ("conv_long_stride", "weight-only", ("tflite-runtime",)),
        ("act_mish", "int16", _BOTH),
        ("act_mish", "int8", ("litert",)),
        ("act_softplus", "int16", _BOTH),
        ("act_softplus", "int8", _BOTH),
        ("bidirectional_lstm", "int8", _ALL),
        ("group_normalization", "int8", _ALL),
        ("sum", "int16", _ALL),
        ("thresholded_relu", "int16", ("tflm",)),
        ("unlike_scales", "int8", _ALL),  # one step of int8 for values of very unlike size
    ]
    for interpreter in interpreters
}
"""Files that run and are wrong, by a fault of the converter or of an interpreter: the proof of a bundle has to refuse them."""


@functools.cache
def _case(name: str):
    model = architecture(name)
    samples = random_inputs(model, 32, 2)
    return model, random_inputs(model, 60, 1), samples, model.predict(samples, verbose=0)


@functools.cache
def _file(name: str, precision: str) -> Union[bytes, ExportError]:
    model, calibration, _, _ = _case(name)
    try:
        return build_tflite(Uncompressed(model), calibration, precision=precision)
    except ExportError as refusal:
        return refusal


def _outputs(path, samples, interpreter):
    try:
        return run_file(path, samples, interpreter=interpreter).outputs[0], ""
    except EdgeError as refusal:
        return None, str(refusal)


@pytest.mark.parametrize("interpreter", ["tflite-runtime", "litert", "tflm"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES])
def test_a_layer_is_right_or_refused(name, precision, interpreter, tmp_path):
    if interpreter not in available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    content = _file(name, precision)
    if isinstance(content, ExportError):
        assert "\n" not in str(content)
        assert len(str(content)) > 40
        return
    (tmp_path / "model.tflite").write_bytes(content)
    _, _, samples, expected = _case(name)
    given, refusal = _outputs(tmp_path / "model.tflite", samples, interpreter)
    if given is None:
        assert "damaged" not in refusal
        assert interpreter in refusal
        return
    deviation = np.abs(given.reshape(expected.shape) - expected).mean() / expected.std()
    is_right = deviation <= PRECISIONS[precision]
    assert is_right != ((name, precision, interpreter) in KNOWN_WRONG), f"deviates by {deviation:.3f}"


def test_int16_of_a_layer_that_is_dead_on_calibration_data_says_so():
    refusal = _file("dead", "int16")
    assert isinstance(refusal, ExportError)
    assert "gives 0, or nearly so, for all calibration data" in str(refusal)
