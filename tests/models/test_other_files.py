"""What is given in place of a Keras file: named for what it is, with a way that this command can go."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.errors import ModelError
from keras_xaic.models import save_model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(4)
    return keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])


@pytest.fixture
def saved(model, tmp_path):
    return save_model(model, tmp_path / "net.keras")


def _written(place, kind, model, saved):
    """Writes one file or directory of another kind; returns its path."""
    if kind == "tflite":
        (place / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\x00" * 40)
    elif kind == "json":
        (place / "net.json").write_text(model.to_json())
    elif kind == "onnx":
        (place / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    elif kind == "pt":
        with zipfile.ZipFile(place / "net.pt", "w") as archive:
            archive.writestr("net/data.pkl", b"\x80\x02")
    elif kind == "pb":
        (place / "saved_model.pb").write_bytes(b"\x08\x01")
    elif kind == "index":
        (place / "net.index").write_bytes(b"\x00\x00")
    elif kind == "npz":
        np.savez(place / "net.npz", x_train=np.zeros((3, 4)))
    elif kind == "folder":
        saved.rename(place / saved.name)
    return {"pb": place / "saved_model.pb", "folder": place}.get(kind, place / f"net.{kind}")


@pytest.mark.parametrize(
    ("kind", "found", "advice"),
    [
        ("tflite", "a TensorFlow Lite file", "xaic slim"),
        ("json", "an architecture without weights", "architecture="),
        ("onnx", "ONNX", "Convert it to Keras"),
        ("pt", "PyTorch", "Convert it to Keras"),
        ("pb", "one file of a SavedModel", "Give its directory"),
        ("index", "a checkpoint of weights", "load_weights"),
        ("npz", "data or weights as arrays", "then the data"),
        ("folder", "a directory that holds net.keras", "Give the file"),
    ],
)
def test_it_is_named_with_a_way_out(model, saved, tmp_path, kind, found, advice):
    (tmp_path / "place").mkdir()
    with pytest.raises(ModelError) as caught:
        xaic.load_model(_written(tmp_path / "place", kind, model, saved))
    message = str(caught.value)
    assert found in message
    assert advice in message
    assert "\n" not in message


def test_a_directory_of_keras_3_is_read_like_its_archive(model, saved, tmp_path):
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path / "net")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(xaic.load_model(tmp_path / "net")(x), model(x))
    (tmp_path / "net" / "model.weights.h5").unlink()
    with pytest.raises(ModelError, match=r"has no model\.weights\.h5"):
        xaic.load_model(tmp_path / "net")


def test_what_keras_3_writes_unpacked_gives_its_outputs(tmp_path):
    keras3 = pytest.importorskip("keras")
    if not keras3.__version__.startswith("3"):
        pytest.skip("Keras 3 is not installed")
    keras3.utils.set_random_seed(5)
    made = keras3.Sequential([keras3.layers.Input((4,)), keras3.layers.Dense(3, activation="tanh"), keras3.layers.Dense(2)])
    keras3.saving.save_model(made, tmp_path / "net", zipped=False)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(xaic.load_model(tmp_path / "net")(x), np.asarray(made(x)), atol=1e-6)


def test_code_in_an_unpacked_model_is_refused_as_in_an_archive(tmp_path):
    boxed = keras.Sequential([layers.Input((2,)), layers.Lambda(lambda x: x + 1, name="own_code")])
    boxed.save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        archive.extractall(tmp_path / "net")
    assert "own_code" in json.dumps(json.loads((tmp_path / "net" / "config.json").read_text()))
    with pytest.raises(ModelError, match="own_code"):
        xaic.load_model(tmp_path / "net")
