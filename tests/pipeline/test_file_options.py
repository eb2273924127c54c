"""A file that is compressed for a program takes what that program gives, and its budget knows the bytes of that."""

from __future__ import annotations

import shlex
import subprocess
import sys

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import tflite
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.edge import read_file
from keras_xaic.errors import DataError, PlanError
from keras_xaic.pipeline import size_fitting
from keras_xaic.pipeline.activations import chosen_activations
from keras_xaic.pipeline.size_fitting import SizeFitter
from keras_xaic.planning import LayerPlan, Plan
from keras_xaic.recipes import RECIPES
from keras_xaic.report import read_front
from tests.pipeline.images import write_images
from tests.programs import run_python


@pytest.mark.parametrize(
    ("target", "file", "said"),
    [
        ("micro", xaic.FileOptions(io="uint8"), "io or metadata for the target micro"),
        ("micro", xaic.FileOptions(metadata=True), "io or metadata for the target micro"),
        ("mobile", xaic.FileOptions(int2=True), "int2 or without lookup"),
        ("mobile", xaic.FileOptions(lookup=False), "int2 or without lookup"),
        ("mobile", "uint8", "file is 'uint8'"),
    ],
)
def test_what_a_run_cannot_give_is_refused(target, file, said):
    with pytest.raises(PlanError, match=said):
        xaic.Device(target, file=file)


def test_codes_of_8_bits_are_refused_for_other_activations():
    device = xaic.Device("mobile", file=xaic.FileOptions(io="uint8"))
    assert chosen_activations(None, RECIPES["auto"], xaic.Budget(), device) == "int8"
    with pytest.raises(PlanError, match="uint8 inputs and outputs of a file with float32 activations"):
        chosen_activations(None, RECIPES["auto"].changed(activations="float32"), xaic.Budget(), device)


def test_plans_leave_room_for_what_finishes_the_file(monkeypatch):
    asked = []
    layer = LayerPlan(
        key="a", kind="dense", weights=100, bits=4, granularity="tensor", storage="int4", sparsity=0.0, flash_bytes=900
    )

    def plan(*_, flash_correction, **__):
        asked.append(flash_correction)
        return Plan(layers=[layer.model_copy(update={"sparsity": 0.1 * len(asked)})], predicted_flash_bytes=1_000)

    monkeypatch.setattr(size_fitting, "measure_damage", lambda *_, **__: "auto")
    monkeypatch.setattr(size_fitting, "plan", plan)
    monkeypatch.setattr(size_fitting, "apply", lambda model, one, *_, **__: one)
    monkeypatch.setattr(size_fitting.tflite, "build_tflite", lambda one, _: bytes(1_000))
    monkeypatch.setattr(size_fitting.tflite, "pack_download", lambda content: content)
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    data = Data(Samples(np.zeros((4, 2), np.float32)))
    made = SizeFitter(model, None, RECIPES["auto"], data, None, finish=lambda content: content + bytes(300))
    taken = made.fitting(xaic.Budget(flash=1_100))
    assert asked[:2] == [0, 300]
    assert taken.predicted_flash_bytes == 1_300


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("phone")
    write_images(place / "images", 12)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(32, activation="relu"))
    model.add(layers.Dense(3, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    x = np.stack([np.full((8, 8, 3), (45 + 80 * one) / 255, np.float32) for one in range(3)])
    model.fit(x, np.arange(3), epochs=60, verbose=0)
    model.save(place / "model.keras")
    return place


def compress(place, out, *options):
    command = ["-m", "keras_xaic.cli", "compress", "model.keras", "--data", "images", "--scale", "0.00392157"]
    command += ["--target", "mobile", "--epochs", "0", "--baselines", "", "--out", out, *options]
    return run_python(command, place)


@pytest.mark.slow
def test_a_budget_that_was_met_stays_met_with_types_and_metadata(place):
    io, out = "uint8", "named"
    plain = compress(place, "plain", "--flash", "6kB", "--max-drop", "100")
    assert plain.returncode == 0, plain.stderr
    limit = (place / "plain" / "model.tflite").stat().st_size  # not one byte to spare
    done = compress(place, out, "--flash", str(limit), "--max-drop", "100", "--io", io, "--metadata")
    assert done.returncode == 0, done.stderr
    content = (place / out / "model.tflite").read_bytes()
    report = xaic.Report.load(place / out)
    assert len(content) == report.compressed.flash_bytes <= limit
    assert report.compressed.metadata_bytes == tflite.metadata_bytes(content) > 200
    assert 100 < report.compressed.io_bytes < 1_500
    assert report.rounds[0].predicted_flash_bytes == pytest.approx(len(content), rel=size_fitting.TOLERANCE)
    facts = read_file(place / out / "model.tflite")
    assert {one.dtype for one in (*facts.inputs, *facts.outputs)} == {io}
    page = (place / out / "report.html").read_text(encoding="utf-8")
    assert f"{report.compressed.metadata_bytes:,} B" in page
    assert f"{report.compressed.io_bytes:,} B" in page
    checked = subprocess.run(
        [sys.executable, "check/edge_check.py"], cwd=place / out, capture_output=True, text=True, check=False
    )
    assert checked.stdout.splitlines()[-1] == "PASS", checked.stdout


@pytest.mark.slow
def test_models_of_a_search_take_what_was_asked_for_and_so_do_their_commands(place):
    given = ["model.keras", "--data", "images", "--scale", "0.00392157", "--target", "mobile", "--epochs", "0"]
    command = ["-m", "keras_xaic.cli", "search", *given, "--out", "front", "--trials", "1"]
    done = run_python([*command, "--io", "uint8", "--metadata"], place)
    assert done.returncode == 0, done.stderr
    content = (place / "front" / "trials" / "0" / "model.tflite").read_bytes()
    assert {one.dtype for one in read_file(place / "front" / "trials" / "0" / "model.tflite").inputs} == {"uint8"}
    assert tflite.metadata_bytes(content) > 200
    (point,) = read_front(place / "front" / "front.json").points
    assert "--io uint8 --metadata" in point.command
    again = ["-m", "keras_xaic.cli", *shlex.split(point.command)[1:]]
    again[again.index("--out") + 1] = "again"
    assert run_python(again, place).returncode in (0, 3)
    assert (place / "again" / "model.tflite").read_bytes() == content


@pytest.mark.slow
def test_images_that_are_normalized_already_are_refused_before_any_work(place):
    model = keras.models.load_model(place / "model.keras")
    x = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
    device = xaic.Device("mobile", file=xaic.FileOptions(metadata=True))
    with pytest.raises(DataError, match="metadata must say how pixels become them"):
        xaic.compress(model, x, out=place / "refused", device=device, training=xaic.Training(epochs=0))
