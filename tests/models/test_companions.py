"""What a model file does not hold itself: custom classes, the architecture of bare weights, sizes of free dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic import load_model
from keras_xaic._keras import keras, layers
from keras_xaic.data import as_data
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.pipeline.inputs import load
from keras_xaic.settings import DataOptions

CUSTOM = """
from keras_xaic._keras import layers

class TimesTwo(layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def cubed(x):
    return x * x * x
"""
ARCHITECTURE = """
from keras_xaic._keras import keras, layers

def build():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])

def fails():
    raise RuntimeError("no such thing")

number = 3
"""


def plain():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])


@pytest.fixture
def custom(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CUSTOM)
    scope = {"__name__": "__main__"}  # as in a notebook
    exec(CUSTOM, scope)
    start = keras.Input((4,))
    model = keras.Model(start, layers.Dense(2, activation=scope["cubed"])(scope["TimesTwo"]()(start)))
    model.save(tmp_path / "custom.keras")
    yield model, path, tmp_path / "custom.keras"
    for name in ("TimesTwo", "cubed"):
        keras.utils.get_custom_objects().pop(name, None)


def test_custom_classes_and_functions_come_from_a_file(custom):
    model, path, saved = custom
    with pytest.raises(ModelError, match="custom"):
        load_model(saved)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(load_model(saved, allow_unsafe=True, custom_objects=path)(x), model(x), atol=1e-6)


def test_a_file_of_custom_classes_is_not_run_without_leave(custom):
    _, path, saved = custom
    with pytest.raises(ModelError, match="allow_unsafe"):
        load_model(saved, custom_objects=path)


@pytest.mark.parametrize("name", ["bare.h5", "bare.weights.h5"])
@pytest.mark.parametrize("kind", ["json", "py"])
def test_bare_weights_are_filled_into_their_architecture(kind, name, tmp_path):
    model, path = plain(), tmp_path / name
    model.save_weights(path)
    (tmp_path / "model.json").write_text(model.to_json())
    (tmp_path / "model.py").write_text(ARCHITECTURE)
    how = {"json": str(tmp_path / "model.json"), "py": f"{tmp_path / 'model.py'}:build"}[kind]
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(load_model(path, architecture=how, allow_unsafe=kind == "py")(x), model(x), atol=1e-6)


def test_wrong_architectures_are_refused_in_one_line(tmp_path):
    plain().save_weights(tmp_path / "w.h5")
    other = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(2)])
    (tmp_path / "other.json").write_text(other.to_json())
    (tmp_path / "model.py").write_text(ARCHITECTURE)
    for how, said in (
        (None, "weights only"),
        (str(tmp_path / "other.json"), "are not those of the architecture"),
        (str(tmp_path / "none.json"), "FILE.py:FUNCTION"),
        (f"{tmp_path / 'model.py'}:none", "no function 'none'"),
        (f"{tmp_path / 'model.py'}:number", "no function 'number'"),
        (f"{tmp_path / 'model.py'}:fails", "no such thing"),
    ):
        with pytest.raises(ModelError, match=said) as raised:
            load_model(tmp_path / "w.h5", architecture=how, allow_unsafe=True)
        assert "\n" not in str(raised.value)


def test_free_dimensions_take_the_sizes_that_are_asked_for():
    free = keras.Sequential([keras.Input((None, 2)), layers.Conv1D(3, 2), layers.GlobalAveragePooling1D()])
    said = []
    model = load(free, DataOptions(input_shape="12, 2"), progress=lambda stage, *_: said.append(stage))
    assert model.input_shape == (None, 12, 2)
    assert "taken from input_shape" in said[0]
    data = as_data((np.zeros((8, 7, 2), np.float32), None))
    assert load(free, DataOptions(), data).input_shape == (None, 7, 2)
    for wrong in ("12", "12,3"):
        with pytest.raises(ModelError, match="input_shape"):
            load(free, DataOptions(input_shape=wrong))
    with pytest.raises(PlanError, match="128,128,3"):
        DataOptions(input_shape="wide")


def test_only_embeddings_read_whole_numbers():
    """Keras gives them float inputs, which integer files cannot take apart."""
    text = keras.Sequential([layers.Embedding(20, 4, input_length=6), layers.Flatten(), layers.Dense(2)])
    model = load(text, DataOptions())
    assert model.inputs[0].dtype == "int32"
    x = np.random.default_rng(0).integers(0, 20, (5, 6))
    np.testing.assert_allclose(model(x), text(x), atol=1e-6)


def test_a_saved_model_that_begins_with_an_adapted_normalization_keeps_its_columns(tmp_path):
    x = np.random.default_rng(0).normal(3, 2, (40, 6)).astype(np.float32)
    scale = layers.Normalization()
    scale.adapt(x)
    model = keras.Sequential([scale, layers.Dense(4, "relu"), layers.Dense(1)])
    model(x)
    model.save(tmp_path / "saved", save_format="tf")
    found = load_model(tmp_path / "saved")
    assert found.input_shape == (None, 6)
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


@pytest.mark.parametrize("name", ["whole.h5", "whole.keras"])
def test_an_architecture_beside_a_whole_model_is_not_passed_over(tmp_path, name):
    plain().save(tmp_path / name)
    (tmp_path / "other.json").write_text(keras.Sequential([keras.Input((4,)), layers.Dense(9)]).to_json())
    with pytest.raises(ModelError, match="is a whole model"):
        load_model(tmp_path / name, architecture=str(tmp_path / "other.json"))
