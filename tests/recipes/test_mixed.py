"""The mixed-precision recipes, from a model to their plan, without training."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.planning import Budget, Plan
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance import Relevance


@pytest.fixture(scope="module")
def case():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,))
    x = layers.Dense(40, activation="relu", name="first")(inputs)
    x = layers.Dense(24, activation="relu", name="second")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 10)).astype(np.float32)
    y = (x @ rng.normal(size=(10, 3))).argmax(axis=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=5, verbose=0)
    return model, {"x_train": x, "y_train": y, "x_test": x[:50], "y_test": y[:50]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplift-mixed", "lrp-mixed"])
def test_recipe(case, name, tmp_path):
    model, data = case
    xaic.compress(
        model,
        data,
        recipe=name,
        out=tmp_path / "out",
        budget=Budget(max_drop=100.0),  # as published: nothing is eased
        training=xaic.Training(epochs=0),
        device=xaic.Device(baselines=(), target="mobile"),
        options=xaic.DataOptions(calibration=64),
    )
    made, relevance = Plan.load(tmp_path / "out" / "plan.json"), Relevance.load(tmp_path / "out" / "relevance.npz")
    assert relevance.rule.startswith(RECIPES[name].rule)
    assert made.mean_bits <= 4.0
    assert not made.remove
    for layer in made.layers:
        rejected = float(np.mean(relevance.weights[layer.key] <= 0)) if name == "lrp-mixed" else 0.0
        assert layer.sparsity == pytest.approx(rejected, abs=0.02)
    assert made.score == RECIPES[name].score


def test_a_budget_of_bytes_replaces_the_recipes_own_mean_bits():
    recipe = RECIPES["deeplift-mixed"]
    assert recipe.aim(Budget()).mean_bits == 4.0
    assert recipe.aim(Budget(flash="48kB")).mean_bits is None
    assert recipe.aim(Budget(mean_bits=3.0)).mean_bits == 3.0
