"""Models from the Model Optimization toolkit that still wear its wrappers."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
import tensorflow_model_optimization as tfmot

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.models.losses import carried_loss
from keras_xaic.models.wrapped import unwrapped
from keras_xaic.pipeline.inputs import load

X, Y = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32), np.arange(64) % 4
WRAP = {
    "pruned": lambda model: tfmot.sparsity.keras.prune_low_magnitude(
        model, tfmot.sparsity.keras.ConstantSparsity(0.5, 1, -1, 1)
    ),
    "clustered": lambda model: tfmot.clustering.keras.cluster_weights(model, number_of_clusters=4),
    "trained on grids": tfmot.quantization.keras.quantize_model,
}


def make_model():
    inputs = keras.Input((8, 8, 1))
    z = layers.Conv2D(6, 3, use_bias=False, name="first")(inputs)
    z = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(z))
    z = layers.Flatten(name="flat")(layers.Conv2D(4, 3, activation="relu", name="second")(z))
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(z))


@pytest.fixture(scope="module", params=list(WRAP))
def wrapped(request):
    keras.utils.set_random_seed(1)
    model = WRAP[request.param](make_model())
    model.compile("adam", "sparse_categorical_crossentropy")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()] if request.param == "pruned" else []
    model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    return request.param, model


def test_wrappers_come_off(wrapped):
    kind, model = wrapped
    before = [variable.numpy() for variable in model.variables]
    plain = load(model, xaic.DataOptions())
    assert [layer.name for layer in plain.layers][1:] == ["first", "norm", "relu", "second", "flat", "head"]
    gap = np.abs(plain.predict(X, verbose=0) - model.predict(X, verbose=0)).max()
    assert gap < 0.05 if kind == "trained on grids" else gap < 1e-6
    kernel = plain.get_layer("first").kernel.numpy()
    if kind == "pruned":
        assert (kernel == 0).mean() == 0.5
    if kind == "clustered":
        assert len(np.unique(kernel)) <= 4
    assert all(np.array_equal(old, new.numpy()) for old, new in zip(before, model.variables)), "the user's model is untouched"
    assert xaic.attribute(plain, X, Y).weights["first"].shape == kernel.shape
    assert unwrapped(plain) is plain


@pytest.mark.parametrize("form", ["model.h5", "model.keras", "model"])
def test_wrappers_come_off_in_files(wrapped, tmp_path, form):
    kind, model = wrapped
    model.save(tmp_path / form, **({} if "." in form else {"save_format": "tf"}))
    if (kind, form) == ("trained on grids", "model.keras"):  # Keras itself does not read those
        with pytest.raises(
            xaic.ModelError, match=r"wrappers for training \(Quantize.*Save it as \.h5, or give the model itself"
        ):
            xaic.load_model(tmp_path / form)
        return
    plain, wanted = xaic.load_model(tmp_path / form), unwrapped(model)
    assert [layer.name for layer in plain.layers][1:] == ["first", "norm", "relu", "second", "flat", "head"]
    np.testing.assert_allclose(plain.predict(X, verbose=0), wanted.predict(X, verbose=0), atol=1e-6)


def test_files_with_wrappers_are_checked_like_others(tmp_path):
    """What is inside a wrapper, too: code is refused, and classes that nobody knows."""
    inputs = keras.Input((4,))
    model = WRAP["pruned"](keras.Model(inputs, layers.Dense(2, name="head")(inputs)))
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        inner = config["config"]["layers"][1]["config"]["layer"]
        for kind, said in (("Lambda", "holds Python code"), ("Stranger", "custom class 'Stranger'")):
            inner["class_name"] = kind
            file.attrs["model_config"] = json.dumps(config)
            file.flush()
            shutil.copy(tmp_path / "model.h5", tmp_path / "changed.h5")
            with pytest.raises(xaic.ModelError, match=said):
                xaic.load_model(tmp_path / "changed.h5")


@pytest.mark.parametrize("change", [{"pruning_schedule": 3}, {"pruning_schedule": {"class_name": "Other", "config": {}}}])
def test_wrappers_that_cannot_be_rebuilt_are_one_line(tmp_path, change):
    inputs = keras.Input((4,))
    WRAP["pruned"](keras.Model(inputs, layers.Dense(2, name="head")(inputs))).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"].update(change)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(xaic.ModelError, match=r"PruneLowMagnitude.*strip_pruning"):
        xaic.load_model(tmp_path / "model.h5")


def test_layers_that_hold_layers_stay_beside_wrappers():
    """A bidirectional or time-distributed layer has a layer inside it, too, and is no wrapper for training."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5, 6, 1))
    z = layers.TimeDistributed(layers.Dense(4), name="each")(layers.Reshape((5, 6), name="flat")(inputs))
    z = layers.Bidirectional(layers.GRU(3), name="both")(z)
    model = keras.Model(inputs, keras.layers.SpectralNormalization(layers.Dense(2), name="normalized")(z))
    plain, x = unwrapped(model), np.random.default_rng(1).normal(size=(4, 5, 6, 1)).astype(np.float32)
    assert [type(layer).__name__ for layer in plain.layers[2:]] == ["TimeDistributed", "Bidirectional", "Dense"]
    np.testing.assert_allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_layers_in_models_are_named_by_their_path_and_data_preparation_keeps_its_statistics():
    keras.utils.set_random_seed(1)
    inside = keras.Input((8, 8, 1))
    inner = keras.Model(inside, keras.layers.SpectralNormalization(layers.Conv2D(3, 3), name="conv")(inside), name="inner")
    inputs, mean = {"image": keras.Input((8, 8, 1), name="image")}, layers.Normalization(axis=None, name="norm")
    mean.adapt(3 * X + 5)
    model = keras.Model(inputs, {"classes": layers.Dense(2, name="head")(layers.Flatten()(inner(mean(inputs["image"]))))})
    plain = unwrapped(model)
    assert "inner/conv" in [layer.name for layer in plain.layers]
    assert list(plain.input) == ["image"]
    wanted, found = (one.predict({"image": 3 * X + 5}, verbose=0)["classes"] for one in (model, plain))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", WRAP)
def test_the_loss_of_the_model_is_known_afterwards(kind, tmp_path):
    inputs = keras.Input((4,))
    model = WRAP[kind](keras.Model(inputs, layers.Dense(2, name="head")(inputs)))
    model.compile("adam", "mae")
    assert carried_loss(unwrapped(model)) == "mean_absolute_error"
    model.save(tmp_path / "model.h5")
    assert carried_loss(xaic.load_model(tmp_path / "model.h5")) == "mean_absolute_error"
