"""Values of unlike size side by side in one output: their layers are found, and what is lost of the small ones is seen."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge, tflite
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.data import Parts, Samples
from keras_xaic.edge.agreement import LIMIT, _columns
from keras_xaic.metrics import Task
from keras_xaic.models.unlike import unlike_heads
from keras_xaic.output_tasks import Tasks
from keras_xaic.pipeline.activations import wider_activations
from keras_xaic.pipeline.judging import Judge, column_drops
from keras_xaic.planning import Budget
from keras_xaic.recipes import RECIPES

SIZES = np.array([1000.0, 1.0, 0.01])
VALUES = Task("regression", 3, "linear", "mse")
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def scaled(sizes, several=False):
    """A model whose three values have these sizes, made by one layer or by three."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="relu", name="hidden")(inputs)
    names = [f"head{number}" for number in range(3)] if several else ["head"]
    heads = [layers.Dense(3 // len(names), name=name)(hidden) for name in names]
    model = keras.Model(inputs, layers.Concatenate()(heads) if several else heads[0])
    for number, name in enumerate(names):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * (sizes[number] if several else sizes), bias])
    return model


def test_layers_that_make_values_of_unlike_size_are_found():
    model, joined, alike = scaled(SIZES), scaled(SIZES, several=True), scaled(np.ones(3))
    assert unlike_heads(model, model.predict(X, verbose=0), VALUES) == ("head",)
    assert unlike_heads(joined, joined.predict(X, verbose=0), VALUES) == ("head0", "head1", "head2")
    assert unlike_heads(alike, alike.predict(X, verbose=0), VALUES) == ()
    assert unlike_heads(model, model.predict(X, verbose=0), Task("classification", 3, "linear", "accuracy")) == ()


def test_a_value_that_is_lost_counts_though_the_mean_over_all_does_not_show_it():
    truth = np.random.default_rng(1).normal(size=(500, 3)) * SIZES
    ruined = truth.copy()
    ruined[:, 2] = 0.0
    assert np.mean((ruined - truth) ** 2) < 1e-9 * np.mean(truth**2)
    ((lost, name, counts),) = column_drops(VALUES, ruined, truth, truth)
    assert counts
    assert lost == pytest.approx(100.0, rel=0.02)
    assert name == "value 2 of the output"
    assert column_drops(VALUES, truth, truth, truth)[0][0] == 0.0
    assert column_drops(Task("classification", 3, "softmax", "accuracy"), ruined, truth, truth.argmax(-1)) == []


def test_of_several_outputs_each_is_looked_at_by_name():
    truth = np.random.default_rng(1).normal(size=(500, 3)) * SIZES
    tasks = Tasks((VALUES, VALUES), ("speed", "place"), (1.0, 1.0))
    wrong = truth * [1.0, 0.0, 1.0]
    given, own = (Parts([truth, one], ["speed", "place"]) for one in (wrong, truth))
    first, second = column_drops(tasks, given, own, own)
    assert first[0] == 0.0
    assert second[1] == "value 1 of output 'place'"
    assert second[0] > 90.0


def widening(wide):
    """A model with so many values of ever smaller sizes, whose last layer has most of its weights."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(wide, name="head")(layers.Dense(16, activation="relu", name="hidden")(inputs)))
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * np.geomspace(1000.0, 0.01, wide), bias])
    return model


@pytest.mark.parametrize(("wide", "each"), [(32, True), (33, False)])
def test_each_of_few_values_counts_and_of_many_the_mean(wide, each):
    model = widening(wide)
    task, given = Task("regression", wide, "linear", "mse"), model.predict(X, verbose=0)
    assert (unlike_heads(model, given, task) == ("head",)) is each
    rounded = np.round(given / 8.0) * 8.0
    (found,) = column_drops(task, rounded, given, given)
    assert found.counts is each
    assert found.lost > 90.0, "what is lost is said all the same"
    truth = given + np.random.default_rng(3).normal(size=given.shape) * 0.3 * given.std(axis=0)
    assert (Judge(Samples(X, truth), task, given)._drop(rounded, truth) > 80.0) is each


@pytest.mark.slow
def test_many_values_of_unlike_size_leave_the_filters_alone_and_the_report_warns(tmp_path):
    model = widening(300)
    data = {"x_train": X, "y_train": model.predict(X, verbose=0), "x_test": X, "y_test": model.predict(X, verbose=0)}
    training, device = xaic.Training(epochs=0), xaic.Device(baselines=())
    report = xaic.compress(model, data, out=tmp_path / "out", budget=Budget(flash=9_000), training=training, device=device)
    assert report.compressed.flash_bytes <= 9_000, "in float32 its last layer takes 19,200"
    assert not xaic.Plan.load(Bundle(tmp_path / "out").plan).remove
    assert any("of its variance, which mse over all values hardly shows" in one for one in report.warnings)


def test_the_check_of_a_file_looks_at_each_value():
    truth = np.random.default_rng(1).normal(size=(100, 3)) * SIZES
    given = np.round(truth / 8.0) * 8.0  # one scale for all
    found = _columns("output 0", given, truth)
    assert [one.value <= LIMIT for one in found] == [True, False, False]
    assert found[2].name == "value 2 of output 0"


def test_float_layers_and_int16_activations_do_not_go_together_so_those_are_not_tried():
    recipe = RECIPES["auto"]
    assert wider_activations(recipe, Budget(), xaic.Device()) == ("int16", "float32")
    assert wider_activations(recipe.changed(float_layers=["head"]), Budget(), xaic.Device()) == ("float32",)


@pytest.mark.parametrize("several", [False, True])
def test_the_layers_at_the_end_of_a_file_may_stay_float_and_so_does_what_joins_them(tmp_path, several):
    model = scaled(SIZES, several)
    expected = model.predict(X, verbose=0)
    heads = unlike_heads(model, expected, VALUES)
    (tmp_path / "model.tflite").write_bytes(tflite.build_tflite(model, X, float_layers=heads))
    given = edge.run_file(tmp_path / "model.tflite", X).outputs[0]
    assert (np.abs(given - expected).mean(0) < 0.05 * expected.std(0)).all()
    assert edge.read_file(tmp_path / "model.tflite").outputs[0].dtype == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_small_values_survive_beside_large_ones(tmp_path, several):
    model = scaled(SIZES, several)
    x = np.random.default_rng(2).normal(size=(400, 4)).astype(np.float32)
    data = {"x_train": x[:300], "y_train": model.predict(x[:300], verbose=0), "x_test": x[300:]}
    data["y_test"] = model.predict(data["x_test"], verbose=0)
    training, device = xaic.Training(epochs=0), xaic.Device(baselines=())
    report = xaic.compress(model, data, out=tmp_path / "out", budget=Budget(max_drop=2.0), training=training, device=device)
    kit = np.load(Bundle(tmp_path / "out").check / "expected.npz")
    deviation = np.abs(kit["y0"] - kit["keras0"]).mean(0) / kit["keras0"].std(0)
    assert (deviation < 0.2).all(), deviation
    assert any("Layers that stay in float32: head" in one for one in report.warnings)
