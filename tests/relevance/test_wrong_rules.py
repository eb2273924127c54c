"""Rules validate themselves, names have neighbours, and no relevance that is not finite leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_xaic import Samples
from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app
from keras_xaic.errors import DataError, ModelError, PlanError, XaicError, XaicWarning
from keras_xaic.recipes import RECIPES, Recipe, get_recipe
from keras_xaic.relevance import RULE_NAMES, AlphaBeta, Attribution, Epsilon, Gamma, ZBox, attribute
from keras_xaic.relevance.methods import check_rule
from keras_xaic.relevance.reduce import Sums
from keras_xaic.relevance.rules import RULES

WRONG = {
    "lrp.alpha_1_beta_0:2,0": "takes none",
    "lrp.alpha_2_beta_1:3,2": "takes none",
    "lrp.z_plus:1": "takes none",
    "lrp.z:0.1": "takes none",
    "lrp.flat:1": "takes none",
    "lrp.w_square:0": "takes none",
    "lrp.epsilon:-1": "epsilon -1.*Bach",
    "lrp.epsilon:nan": "epsilon nan",
    "lrp.epsilon:inf": "epsilon inf",
    "lrp.epsilon:1e39": r"epsilon 1e\+39",
    "lrp.epsilon:0.1,0.2": "2 parameters",
    "lrp.epsilon:": "no numbers",
    "lrp.epsilon:small": "no numbers",
    "lrp.gamma:-0.25": "gamma -0.25.*Montavon",
    "lrp.gamma:0.25,-1": "epsilon -1",
    "lrp.gamma:1,2,3": "3 parameters",
    "lrp.z_box:1,-1": "1.0 to -1.0.*Montavon",
    "lrp.z_box:1,1": "1.0 to 1.0",
    "lrp.z_box:0,nan": "high nan",
    "lrp.z_box:0,1,2": "3 parameters",
    "lrp.epsilon_plus:0.1": "takes none",
    "deeplift.rescale:0": "takes none",
    "taylor:2": "takes none",
    "magnitude:1": "takes none",
    "lrp.epsilonn": "Expected 'lrp.epsilon'",
    "deeplift.recale": "Expected 'deeplift.rescale'",
    "integrated_gradient": "Expected 'integrated_gradients'",
}
WRONG_ENTRIES = [
    ({}, "no entries"),
    ({"*": "lrp.epsilom"}, "'lrp.epsilon'"),
    ({"*": "lrp.epsilon_plus"}, "for single layers"),
    ({"*": "taylor"}, "for single layers"),
    ({"first": "lrp.z_box:1,0", "*": "lrp.z"}, "1.0 to 0.0"),
    ({"*": 3}, "a rule is 3"),
]


@pytest.mark.parametrize(("rule", "words"), [*WRONG.items(), *WRONG_ENTRIES], ids=str)
def test_a_wrong_rule_is_refused_by_rules_and_recipes_alike(rule, words, tmp_path):
    with pytest.raises(ModelError, match=words):
        check_rule(rule)
    if all(isinstance(one, str) for one in rule.values()) if isinstance(rule, dict) else True:
        for entry in ("rule", "filter_rule"):
            with pytest.raises(PlanError, match=f"{entry}.*{words}"):
                RECIPES["auto"].changed(**{entry: rule})
            path = tmp_path / "mine.json"
            path.write_text(json.dumps({"name": "mine", "rule": "taylor", entry: rule}))
            with pytest.raises(PlanError, match=f"mine.json: {entry}.*{words}"):
                get_recipe(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AlphaBeta(2.0, 0.0),
        lambda: AlphaBeta(0.5, -0.5),
        lambda: AlphaBeta(float("nan"), 0.0),
        lambda: Epsilon(-1e-9),
        lambda: Epsilon(True),
        lambda: Epsilon("0.1"),  # type: ignore[arg-type]
        lambda: Epsilon(10**400),
        lambda: Gamma(-1.0),
        lambda: ZBox((0.0, 2.0), (1.0, 2.0)),
        lambda: ZBox((0.0, 0.0), (1.0, 1.0, 1.0)),
        lambda: ZBox(()),
        lambda: ZBox(0.0, (1.0, float("inf"))),
    ],
)
def test_rules_made_in_python_refuse_the_same(make):
    with pytest.raises(ModelError, match=r"rule lrp\."):
        make()


def test_wrong_parameters_of_every_rule_are_tried():
    assert set(RULES) <= {rule.split(":")[0] for rule in WRONG if isinstance(rule, str)}


def test_what_makes_sense_is_taken():
    assert AlphaBeta(3, 2) == AlphaBeta(3.0, 2.0)
    assert ZBox([0, 1], np.array([1, 2])) == ZBox((0.0, 1.0), (1.0, 2.0))  # type: ignore[arg-type]
    for rule in (*RULE_NAMES, "lrp.epsilon:0", "lrp.gamma:0.5,0.01", "lrp.z_box:-1", {"first": ZBox(-1.0), "*": "lrp.z"}):
        check_rule(rule)
    assert Recipe(name="mine", rule={"conv": "lrp.gamma:0.1", "*": "lrp.epsilon"}).changed() is not None
    assert [name for name, rule in RULES.items() if rule.parameters()] == ["lrp.epsilon", "lrp.gamma", "lrp.z_box"]


def net(scale=1.0):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="relu", name="one"),
            layers.Dense(4, activation="relu", name="two"),
            layers.Dense(3, activation="softmax", name="out"),
        ]
    )
    for layer in model.layers:
        layer.kernel.assign(np.abs(layer.kernel.numpy()) * scale)
    return model


X = np.random.default_rng(0).uniform(0.1, 1, (5, 6)).astype(np.float32)
Y = np.array([0, 1, 2, 1, 0])
MISUSE = {
    "reduce": ({"reduce": "means"}, "'mean'"),
    "reduce of another type": ({"reduce": ["mean"]}, "reduce"),
    "start": ({"start": "logits"}, "'logit'"),
    "target": ({"target": "predict"}, "'predicted'"),
    "target between classes": ({"target": 1.5}, "target is 1.5"),
    "target array": ({"target": np.zeros(5)}, "target"),
    "engine": ({"engine": "natives"}, "'native'"),
    "reference": ({"rule": "deeplift.rescale", "reference": "means"}, "'mean'"),
    "reference that the rule does not use": ({"reference": "zero"}, "'zeros'"),
    "reference of NaN": ({"rule": "deeplift.rescale", "reference": np.full(6, np.nan)}, "reference.*NaN"),
    "complex reference": ({"rule": "integrated_gradients", "reference": np.zeros(6, complex)}, "reference.*complex"),
    "bounds of other channels": ({"rule": {"*": ZBox((-9.0,) * 4, 9.0)}}, "4 bounds.*6"),
    "reduce of magnitude": ({"rule": "magnitude", "reduce": "means"}, "'mean'"),
    "start of magnitude": ({"rule": "magnitude", "start": "two"}, "start"),
    "complex": ({"x": X.astype(complex)}, "complex"),
    "text": ({"x": X.astype(str)}, "dtype"),
    "objects": ({"x": X.astype(object)}, "dtype"),
    "ragged": ({"x": [[[1.0], [1.0, 2.0]]]}, "x"),
    "NaN": ({"x": np.where(X > 0.5, np.nan, X)}, "NaN"),
    "beyond float32": ({"x": X.astype(float) * 1e39}, "float32"),
    "whole numbers beyond float32": ({"x": np.full((5, 6), 2**24 + 2)}, "float32"),
    "beyond float32 once scaled": ({"x": Samples(X * 1e30, Y, scale=1e10), "y": None}, "float32"),
    "scale": ({"x": Samples(X, Y, scale=0.0), "y": None}, "scale"),
    "targets of samples": ({"x": Samples(X, np.array([0, 1, np.nan, 1, 0])), "y": None}, "NaN"),
    "NaN targets": ({"y": np.array([0, 1, np.nan, 1, 0])}, "NaN"),
    "text targets": ({"y": np.array(list("abcde"))}, "dtype"),
    "one target": ({"y": 1}, "entries"),
    "classes": ({"y": Y + 2}, "class 3"),
    "classes between": ({"y": Y + 0.5}, "do not fit|no labels"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_what_cannot_be_attributed_is_one_clear_error(name):
    change, words = MISUSE[name]
    how = {"x": X, "y": Y, **change}
    with pytest.raises(XaicError, match=words) as caught:
        attribute(net(), how.pop("x"), how.pop("y"), **how)
    assert "\n" not in str(caught.value)


def test_an_entry_of_a_composite_that_no_layer_fits_is_said():
    with pytest.warns(XaicWarning, match="'tow'"):
        Attribution(net(), rule={"tow": "lrp.flat", "dense": "lrp.z", "*": "lrp.epsilon"})


@pytest.mark.parametrize("rule", ["lrp.z", "lrp.w_square", "lrp.z_plus", "deeplift.rescale", "taylor", "integrated_gradients"])
def test_values_beyond_float32_are_an_error_that_names_the_layer(rule):
    model = net()
    model.get_layer("two").kernel.assign(np.full((5, 4), 1e30))
    with pytest.raises(ModelError, match=r"layer 'two'.*Check the weights"):
        attribute(model, X * 1e10, Y, rule=rule)
    with pytest.raises(ModelError, match="layer 'two'"):
        Attribution(model, rule=rule).input_relevance(X * 1e10, Y)


def test_relevance_that_is_not_finite_names_rule_and_layer_and_what_to_do():
    model = net()
    model.get_layer("two").kernel.assign(np.full((5, 4), 1e20))  # its square is beyond float32
    words = r"gives relevance that is not finite, first at layer 'two'.*rule='lrp\.z_plus'"
    for reduce in ("sum", "rms"):
        with pytest.raises(ModelError, match=rf"lrp\.w_square {words}"):
            attribute(model, X, Y, rule="lrp.w_square", reduce=reduce)
    with pytest.raises(ModelError, match=r"lrp\.w_square gives relevance that is not finite"):
        Attribution(model, rule="lrp.w_square").input_relevance(X, Y)
    attribute(model, X, Y, rule="lrp.z_plus")


def test_magnitude_of_nan_weights_is_refused():
    model = net()
    model.get_layer("one").kernel.assign(np.full((6, 5), np.nan))
    with pytest.raises(ModelError, match="'one'"):
        attribute(model, X, rule="magnitude")


def test_the_command_says_the_same(tmp_path):
    model = net()
    model.get_layer("two").kernel.assign(np.full((5, 4), 1e30))
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", x_train=X * 1e10, y_train=Y)
    how = ["explain", str(tmp_path / "m.keras"), "--data", str(tmp_path / "d.npz"), "--out", str(tmp_path / "why")]
    for more, words in (([], "layer 'two'"), (["--rule", "lrp.epsilon:-1"], "epsilon -1"), (["--start", "ones"], "'one'")):
        ran = CliRunner().invoke(app, [*how, *more])
        assert ran.exit_code == 2, ran.output
        assert words in ran.output
        assert "Traceback" not in ran.output


def test_labels_are_read_through_the_task_that_samples_carry():
    from keras_xaic.data import Data
    from keras_xaic.tasks import Head, infer, with_task

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="out")])
    y = np.eye(3, dtype=np.float32)[Y]
    values = infer(Head((3,), "linear"), Data(Samples(X, y)), task="regression")
    classes = infer(Head((3,), "linear"), Data(Samples(X, y)), task="classification")
    found = {
        task.kind: attribute(model, with_task(Data(Samples(X, y)), task).train, reduce="sum", start="logit").filters["out"]
        for task in (values, classes)
    }
    logits = model.predict(X, verbose=0)
    np.testing.assert_allclose(found["regression"], logits.sum(0), rtol=1e-4)
    np.testing.assert_allclose(found["classification"], (logits * y).sum(0), rtol=1e-4)
    with pytest.raises(DataError, match="no labels"):
        attribute(model, with_task(Data(Samples(X)), classes).train)


def test_sums_beyond_float32_are_refused():
    sums = Sums("sum")
    for _ in range(3):
        sums.add({"weights/one": np.full(3, 2e38)}, 1)
    with pytest.raises(ModelError, match="exceeds float32"):
        sums.result()
