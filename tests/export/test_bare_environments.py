"""The kit in environments with nothing but numpy and one interpreter, as on a device."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers

pytestmark = pytest.mark.slow


def _environment(where: pathlib.Path, *packages: str) -> pathlib.Path:
    subprocess.run([sys.executable, "-m", "venv", str(where)], check=True)
    python = where / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True, check=False)
    if done.returncode != 0 and "ERROR: No matching" not in done.stderr and "ERROR" in done.stderr:
        pytest.skip(f"no packages to install: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((10, 10, 1))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.Flatten()(x)))
    calibration = np.random.default_rng(0).normal(size=(60, 10, 10, 1)).astype(np.float32)
    return xaic.export(model, tmp_path_factory.mktemp("bare") / "out", calibration=calibration)


@pytest.mark.parametrize("packages", [("numpy<2", "tflite-runtime"), ("numpy", "ai-edge-litert")], ids=lambda p: p[1])
def test_the_kit_needs_numpy_and_one_interpreter(packages, bundle, tmp_path):
    python = _environment(tmp_path / "venv", *packages)
    there = subprocess.run([python, "-c", "import tensorflow"], capture_output=True, check=False, cwd=tmp_path)
    assert there.returncode != 0
    unpack = [python, bundle.check / "unpack_xaic.py", bundle.download, tmp_path / "model.tflite"]
    subprocess.run(unpack, check=True, cwd=tmp_path)
    assert (tmp_path / "model.tflite").read_bytes() == bundle.model.read_bytes()
    command = [python, bundle.check / "edge_check.py", "--model", tmp_path / "model.tflite"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASS"
    for word in ("latency", "memory", "are the same", packages[1].replace("ai-edge-", "")):
        assert word in done.stdout
