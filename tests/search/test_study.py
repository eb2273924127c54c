from __future__ import annotations

import json

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.searching import search
from keras_xaic.settings import Training

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (np.eye(12)[y * 4] + rng.normal(size=(300, 12)) * 0.3).astype(np.float32)
    model = keras.Sequential([keras.Input((12,)), layers.Dense(32, activation="relu"), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=10, verbose=0)
    model.save(folder / "m.keras")
    np.savez(folder / "d.npz", x_train=x, y_train=y)
    return folder


def test_a_search_finds_a_front_and_continues(place, tmp_path):
    first = search(place / "m.keras", place / "d.npz", tmp_path / "out", trials=2, training=Training(epochs=0))
    assert len(first) == 2
    again = search(place / "m.keras", place / "d.npz", tmp_path / "out", trials=3, training=Training(epochs=0))
    assert len(again) == 3
    assert {one.trial for one in first} < {one.trial for one in again}
    front = [one for one in again if one.best]
    assert front
    for one in again:
        beaten = any(
            other.flash_bytes <= one.flash_bytes
            and other.held_back_accuracy >= one.held_back_accuracy
            and (other.flash_bytes, other.held_back_accuracy) != (one.flash_bytes, one.held_back_accuracy)
            for other in again
        )
        assert one.best != beaten
        assert (tmp_path / "out" / "trials" / str(one.trial) / "model.tflite").stat().st_size == one.flash_bytes
    assert len(json.loads((tmp_path / "out" / "pareto.json").read_text())) == 3
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 5000
