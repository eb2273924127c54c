"""What is handed over is looked at before any work: no input lies where the result goes, and every name pattern fits."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.errors import DataError, ExportError, PlanError
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.settings import Device


def test_a_bundle_is_not_exported_into_itself(tmp_path):
    bundle = Bundle(tmp_path / "small")
    bundle.path.mkdir()
    bundle.keras_model.write_text("mine")
    with pytest.raises(ExportError, match=r"the input .*small lies in .*small, which is written"):
        xaic.export(bundle, bundle.path, calibration=tmp_path / "data.npz", overwrite=True)
    assert bundle.keras_model.read_text() == "mine"


@pytest.mark.parametrize("kind", ["recipe", "baseline"])
@pytest.mark.parametrize("form", [str, lambda path: path], ids=["text", "path"])
def test_files_of_recipes_are_inputs(tmp_path, kind, form):
    file = tmp_path / "small" / "mine.json"
    file.parent.mkdir()
    RECIPES["int8"].save(file)
    given = {"recipe": form(file)} if kind == "recipe" else {"device": Device(baselines=str(file))}
    with pytest.raises(ExportError, match=r"mine\.json lies in .*small, which is written"):
        xaic.compress(tmp_path / "m.h5", tmp_path / "d.npz", out=tmp_path / "small", overwrite=True, **given)


@pytest.mark.parametrize("entry", ["protect", "float_layers"])
def test_a_plan_says_which_names_fit_nothing(entry):
    body, head = layers.Dense(4, "relu", name="body"), layers.Dense(3, "softmax", name="head")
    model = keras.Sequential([keras.Input((8,)), body, head])
    with pytest.raises(PlanError, match=r"no layer matches 'bodi'\. Expected 'body'"):
        xaic.plan(model, magnitude(model), recipe=RECIPES["auto"].changed(**{entry: ("bodi",)}))


@pytest.mark.parametrize("own", [False, True])
def test_an_area_under_a_curve_needs_both_classes_in_validation_data(tmp_path, own):
    x, y = np.zeros((40, 8), np.float32), np.arange(40) % 2
    data = {"x_train": x, "y_train": y, "x_val": x[:4], "y_val": y[::2][:4]} if own else (x, (np.arange(40) == 0).astype(int))
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1, "sigmoid")])
    with pytest.raises(DataError, match=r"validation data \(4 samples\): auc: all targets are of one class") as caught:
        xaic.compress(model, data, out=tmp_path / "out", options=xaic.DataOptions(metric=keras.metrics.AUC))
    assert ("Give x_val and y_val" in str(caught.value)) is not own
    assert not (tmp_path / "out").exists()


def test_weights_of_classes_that_do_not_fit_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_xaic.pipeline.compressing.Job", None)
    inputs = keras.Input((8,))
    ends = [layers.Dense(3, "softmax", name=name)(inputs) for name in ("one", "two")]
    x, y = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32), np.arange(60) % 3
    weights = xaic.Training(epochs=1, class_weight={0: 1.0, 1: 2.0})
    with pytest.raises(PlanError, match="class_weight is given, and the samples have no classes"):
        xaic.compress(keras.Model(inputs, ends), (x, {"one": y, "two": y}), out=tmp_path / "out", training=weights)
    with pytest.raises(PlanError, match="class_weight has no weight of class 2"):
        xaic.compress(keras.Model(inputs, ends[0]), (x, y), out=tmp_path / "out", training=weights)
    assert not list(tmp_path.iterdir())
