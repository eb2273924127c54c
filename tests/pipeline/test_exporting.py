"""A bundle that is exported again remembers how its model sees inputs, and can be written for phones."""

from __future__ import annotations

import subprocess
import sys

import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.edge import read_file
from keras_xaic.tflite import metadata_bytes
from tests.pipeline.images import CLASSES, write_images
from tests.programs import run_python


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("phone")
    write_images(place / "images", 8)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(3, activation="softmax"))
    model.save(place / "model.keras")
    options = xaic.DataOptions(scale=1 / 255)
    xaic.export(place / "model.keras", place / "small", calibration=place / "images", target="mobile", options=options)
    return place


@pytest.mark.slow
def test_the_scale_of_a_bundle_is_that_of_its_next_export(place):
    again = xaic.export(place / "small", place / "again", calibration=place / "images", target="mobile", prove=False)
    assert again.model.read_bytes() == (place / "small" / "model.tflite").read_bytes()
    assert again.class_names() == tuple(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_a_file_for_phones_says_its_metadata_and_gives_the_same_accuracy(place, io):
    command = ["-m", "keras_xaic.cli", "export", "small", "--data", "images", "--target", "mobile"]
    done = run_python([*command, "--io", io, "--metadata", "--out", io], place)
    assert done.returncode == 0, done.stderr
    content = (place / io / "model.tflite").read_bytes()
    assert f"{len(content):,} B, {metadata_bytes(content):,} B of it metadata" in " ".join(done.stdout.split())
    (given,), (made,) = read_file(place / io / "model.tflite").inputs, read_file(place / io / "model.tflite").outputs
    assert (given.dtype, made.dtype) == (io, io)
    if io == "uint8":  # pixels
        assert given.scales[0] == pytest.approx(1 / 255)
        assert given.zero_points[0] == 0
    plain, phone = (xaic.verify(place / name, place / "images").edge_accuracy for name in ("small", io))
    assert plain == pytest.approx(phone, abs=1 / 24)  # one sample
    checked = subprocess.run(
        [sys.executable, "check/edge_check.py"], cwd=place / io, capture_output=True, text=True, check=False
    )
    assert checked.stdout.splitlines()[-1] == "PASS", checked.stdout
