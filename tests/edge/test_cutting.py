"""Data that are louder than those that a file was calibrated with."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Parts, Samples
from keras_xaic.edge.cutting import said_of_cut
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.io_types import with_io

X = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
SIZES = np.array([100.0, 1.0, 1.0, 0.01], np.float32)


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    where = tmp_path_factory.mktemp("files")
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    front = keras.Sequential([keras.Input((4,)), layers.Normalization(mean=np.zeros(4), variance=SIZES**2), layers.Dense(3)])
    codes = build_tflite(plain, X[:200])
    return {
        "codes": written(where / "codes.tflite", codes),
        "values": written(where / "values.tflite", with_io(codes, "float32")),
        "bytes": written(where / "bytes.tflite", with_io(codes, "uint8")),
        "front": written(where / "front.tflite", build_tflite(front, X[:200] * SIZES)),
        "float": written(where / "float.tflite", build_tflite(plain, X[:200], precision="float32")),
    }


@pytest.mark.parametrize("name", ["codes", "values", "bytes", "front", "float"])
def test_louder_samples_are_told_and_others_are_not(files, name):
    x = X * SIZES if name == "front" else X
    assert said_of_cut(files[name], Samples(x)) is None
    louder = x[200:].copy()
    louder[::4] *= 5  # a quarter of them
    said = said_of_cut(files[name], Samples(louder))
    if name == "float":
        assert said is None
        return
    assert said is not None
    share = int(said.partition("%")[0])
    assert 15 <= share <= 25
    assert f"{louder.max():.4g}" in said


def test_one_column_of_a_scaled_table_is_told(files):
    x = X[200:] * SIZES
    x[:, 3] *= 50  # still small beside the others
    assert said_of_cut(files["front"], Samples(x)) is not None


def test_the_input_is_named_where_there_are_several(tmp_path):
    inputs = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([layers.Dense(3)(one) for one in inputs])))
    path = written(tmp_path / "model.tflite", build_tflite(model, [X[:200], X[:200]]))
    assert said_of_cut(path, Samples(Parts([X, X], ["left", "right"]))) is None
    said = said_of_cut(path, Samples(Parts([X, 5 * X], ["left", "right"])))
    assert said is not None
    assert "right" in said
    assert "left" not in said
