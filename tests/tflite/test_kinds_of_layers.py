"""Every kind of layer in every precision on every interpreter: right, or refused by converter, interpreter or proof by name."""

from __future__ import annotations

import functools
from typing import Union

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.edge import available_interpreters, measure_agreement, run_file
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.tflite import build_tflite, export
from keras_xaic.tflite.build import Uncompressed
from tests.tflite.architectures import NAMES, architecture, random_inputs

PRECISIONS = {"int8": 0.1, "int16": 0.03, "weight-only": 0.03, "float32": 1e-4}
"""Largest mean deviation from Keras, in standard deviations of its outputs, on samples whose values the file has room for: some
of those that set its ranges. Wrong values deviate by 0.2 to 1.2."""
FAST = {
    ("act_selu", "int16"),
    ("gru", "int8"),
    ("conv_long_stride", "float32"),
    ("depthwise_behind_groups", "int8"),
    ("dead", "int16"),
    ("dead", "weight-only"),
}
"""What has been wrong, each where it was."""


@functools.cache
def _case(name: str):
    model = architecture(name)
    calibration = random_inputs(model, 60, 1)
    samples = calibration[-32:]
    return model, calibration, samples, model.predict(samples, verbose=0)


@functools.cache
def _bundle(root, name: str, precision: str) -> Union[Bundle, ExportError]:
    model, calibration, _, _ = _case(name)
    try:
        return export(Uncompressed(model), root / f"{name}-{precision}", calibration=calibration, precision=precision, warn=str)
    except ExportError as refusal:
        return refusal


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


def _outputs(path, samples, interpreter):
    try:
        return run_file(path, samples, interpreter=interpreter).outputs[0], ""
    except EdgeError as refusal:
        return None, str(refusal)


def _combinations():
    """Integer precisions are the slow tests; float32 and weight-only files are seldom wrong."""
    for name in NAMES:
        for precision in PRECISIONS:
            slow = pytest.mark.slow if precision in ("int8", "int16") else pytest.mark.exhaustive
            yield pytest.param(name, precision, marks=() if (name, precision) in FAST else slow)


@pytest.mark.parametrize("interpreter", ["tflite-runtime", "litert", "tflm"])
@pytest.mark.parametrize(("name", "precision"), _combinations())
def test_a_layer_is_right_or_refused(name, precision, interpreter, root):
    if interpreter not in available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    bundle = _bundle(root, name, precision)
    if isinstance(bundle, ExportError):
        assert "\n" not in str(bundle)
        assert len(str(bundle)) > 40
        return
    micro = bundle.micro / "model.tflite"
    path = micro if interpreter == "tflm" and micro.is_file() else bundle.model
    model, _, samples, expected = _case(name)
    given, refusal = _outputs(path, samples, interpreter)
    if given is None:
        assert "damaged" not in refusal
        assert interpreter in refusal
        return
    deviation = np.abs(given.reshape(expected.shape) - expected).mean() / expected.std()
    agreement = measure_agreement(bundle, interpreter, path)
    if deviation <= PRECISIONS[precision]:
        agreement.require("model.tflite")
        return
    assert agreement.first_deviating_layer in [layer.name for layer in model.layers]
    with pytest.raises(EdgeError, match=f"disagrees with the Keras model.*'{agreement.first_deviating_layer}'"):
        agreement.require("model.tflite")


@pytest.mark.parametrize("interpreter", ["tflite-runtime", "litert", "tflm"])
def test_a_layer_that_is_dead_on_calibration_data_may_wake_up_in_int16(interpreter, tmp_path):
    if interpreter not in available_interpreters():
        pytest.skip(f"{interpreter} is not installed")
    keras.utils.set_random_seed(7)
    Constant, inputs = keras.initializers.Constant, keras.Input((6, 6, 3))
    dead = layers.Conv2D(3, 1, activation="relu", kernel_initializer="ones", bias_initializer=Constant(-2.9))(inputs)
    x = layers.Concatenate()(
        [layers.MaxPooling2D(1)(layers.Conv2D(3, 1, kernel_initializer=Constant(-0.3), bias_initializer="ones")(dead)), inputs]
    )
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
    random = np.random.default_rng(0)
    calibration = random.uniform(-1.0, 1.0, (60, 6, 6, 3)).astype(np.float32)
    samples = random.uniform(0.95, 1.0, (8, 6, 6, 3)).astype(np.float32)
    samples[4:] *= 2.5  # beyond what calibration data has: clipped at the input
    content = build_tflite(Uncompressed(model), calibration, precision="int16")
    (tmp_path / "model.tflite").write_bytes(content)
    expected = model.predict(np.clip(samples, -1.0, 1.0), verbose=0)
    (given,) = run_file(tmp_path / "model.tflite", samples.astype(np.float32), interpreter=interpreter).outputs
    assert np.abs(given - expected).max() < 0.01 * np.abs(expected).max()
