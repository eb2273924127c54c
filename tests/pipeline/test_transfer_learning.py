"""Frozen layers, as transfer learning has them: on grids and pruned as planned, their values moved only if the user says so."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.models import weighted_kernels
from keras_xaic.models.frozen import thawed
from keras_xaic.models.operations import Operations
from keras_xaic.models.surgery import remove_channels
from keras_xaic.planning import LayerPlan, Plan
from keras_xaic.recipes import RECIPES

FEW = xaic.Device("mobile", baselines=())


def make_model(freeze):
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1))
    z = layers.Conv2D(12, 3, padding="same", use_bias=False, name="first")(image)
    z = layers.ReLU()(layers.BatchNormalization(name="norm")(z))
    z = layers.MaxPooling2D()(layers.Conv2D(16, 3, padding="same", activation="relu", name="second")(z))
    base = keras.Model(image, layers.Flatten()(z), name="base")
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(base(inputs)))
    {"base": base, "all": model, "first": base.get_layer("first"), "none": layers.ReLU()}[freeze].trainable = False
    return model


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    patterns, y = rng.normal(size=(4, 8, 8, 1)), rng.integers(0, 4, 300)
    x = (patterns[y] + rng.normal(size=(300, 8, 8, 1))).astype(np.float32)
    return (x[:200], y[:200]), (x[200:], y[200:])


def make_plan(model, sparsity=0.0, grid="uniform", bits=4):
    common = {"granularity": "channel", "storage": "int8", "bits": bits, "sparsity": sparsity, "grid": grid}
    kernels = weighted_kernels(model)
    return Plan(layers=[LayerPlan(key=one.key, kind=one.kind, weights=one.size, **common) for one in kernels])


def weights_of(model):
    return {f"{op.path}/{w.name.split('/')[-1]}": w.numpy() for op in Operations(model) for w in op.layer.weights}


@pytest.mark.parametrize(
    ("grid", "freeze"),
    [("uniform", "base"), ("uniform", "all"), ("codebook", "first"), pytest.param("ecqx", "base", marks=pytest.mark.slow)],
)
def test_training_leaves_frozen_layers_as_they_are(data, freeze, grid):
    model = make_model(freeze)
    before = weights_of(model)
    small = xaic.apply(model, make_plan(model, grid=grid), data, training=xaic.Training(epochs=2))
    after = weights_of(small.trainable)
    assert set(after) == set(before)
    frozen = {"base": "base/", "first": "base/first/", "all": ""}[freeze]
    same = {name: np.array_equal(value, after[name]) for name, value in before.items()}
    assert all(same[name] for name in same if name.startswith(frozen)), same
    if freeze != "all" and grid != "ecqx":  # there no epoch may be better than none
        assert not any(same[name] for name in same if not name.startswith(frozen)), same
    for key, kernel in small.kernels.items():  # they are on their grids nevertheless
        assert len(np.unique(kernel.integers)) <= 16, key
    np.testing.assert_array_equal(weights_of(model)["base/norm/moving_mean:0"], before["base/norm/moving_mean:0"])


def test_frozen_layers_are_rounded_so_that_their_outputs_change_least(data):
    model = make_model("base")
    plan, wanted, errors = make_plan(model, bits=3), model.get_layer("base").predict(data[0][0], verbose=0), []
    for how in (xaic.Training(epochs=1, distillation=0), xaic.Training(epochs=0, rounding="nearest")):
        small = xaic.apply(model, plan, data, training=how).model
        found = keras.Model(small.input, small.get_layer("head").input).predict(data[0][0], verbose=0)
        errors.append(np.square(found - wanted).mean())
    assert errors[0] < 0.8 * errors[1]


def test_frozen_layers_get_their_zeros(data):
    model = make_model("base")
    before = weights_of(model)
    small = xaic.apply(model, make_plan(model, sparsity=0.5), data, training=xaic.Training(epochs=4))
    after = weights_of(small.trainable)
    assert {"prune", "quantize"} == set(small.history)
    for name in ("base/first/kernel:0", "base/second/kernel:0"):
        kept = after[name] != 0
        assert abs(kept.mean() - 0.5) < 0.02
        np.testing.assert_array_equal(after[name][kept], before[name][kept])
    assert not np.array_equal(after["head/kernel:0"], before["head/kernel:0"])


def test_train_frozen_trains_them_too(data):
    model = make_model("base")
    before = weights_of(model)
    how = xaic.Training(epochs=2, train_frozen=True)
    after = weights_of(xaic.apply(model, make_plan(model), data, training=how).trainable)
    assert not any(np.array_equal(value, after[name]) for name, value in before.items())
    np.testing.assert_array_equal(weights_of(model)["base/first/kernel:0"], before["base/first/kernel:0"])
    assert not model.get_layer("base").trainable, "the user's model stays frozen"


def test_a_layer_that_is_free_in_a_frozen_model_is_frozen():
    model = make_model("base")
    model.get_layer("base").get_layer("second").trainable = True  # Keras does not train it either
    assert [w.name for w in model.trainable_weights] == ["head/kernel:0", "head/bias:0"]
    flat = remove_channels(model, {})
    assert [w.name.split("/")[-2] for w in flat.trainable_weights] == ["head", "head"]
    assert len(thawed(model).trainable_weights) == 7


def check(model, data, out, recipe, freeze):
    training = xaic.Training(epochs=2)
    report = xaic.compress(model, data, out=out, recipe=recipe, training=training, device=FEW, budget=xaic.Budget("14kB"))
    said = [one for one in report.warnings if "frozen" in one]
    assert len(said) == 1
    for part in ("base/first", "train_frozen", "2,860 of 2,860" if freeze == "all" else "1,836 of 2,860"):
        assert part in said[0]
    assert report.compressed.flash_bytes <= 14_000 or recipe in ("int8", "magnitude", "cluster")
    assert not xaic.Bundle(out).unverified.exists()
    return report


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["base", "all"])
def test_a_frozen_base_with_a_new_head_from_object_and_file(data, tmp_path, freeze):
    model = make_model(freeze)
    model.save(tmp_path / "model.keras")
    check(model, data, tmp_path / "object", "deeplift-mixed", freeze)
    check(tmp_path / "model.keras", data, tmp_path / "file", "deeplift-mixed", freeze)
    assert (tmp_path / "object/model.tflite").read_bytes() == (tmp_path / "file/model.tflite").read_bytes()


def trained(data):
    model = make_model("base")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*data[0], epochs=5, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_takes_a_frozen_base(data, tmp_path, recipe):
    check(trained(data), data, tmp_path / "out", recipe, "base")


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_takes_a_frozen_base_from_a_file_as_it_does_an_object(data, tmp_path, recipe):
    model = trained(data)
    model.save(tmp_path / "model.keras")
    check(model, data, tmp_path / "object", recipe, "base")
    check(tmp_path / "model.keras", data, tmp_path / "file", recipe, "base")
    assert (tmp_path / "object/model.tflite").read_bytes() == (tmp_path / "file/model.tflite").read_bytes()
