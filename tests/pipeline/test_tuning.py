"""The rule whose order does least damage on validation data is the one that decides."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.models import infer_task
from keras_xaic.pipeline import job, tuning
from keras_xaic.pipeline.attributing import attribute_by, attribute_each, together
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.tuning import STEPS, Tuned, search_rules
from keras_xaic.pipeline.workspace import Shared, Workspace
from keras_xaic.progress import silent
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.relevance.tried import Tried

INPUTS, CLASSES = 20, 2


@pytest.fixture(scope="module")
def net():
    """A net whose inputs matter the less the higher their number: the true order of its first weights is known."""
    random = np.random.default_rng(0)
    weights = np.outer(2.0 ** -np.arange(INPUTS), np.ones(8)) * random.choice([-1, 1], (INPUTS, 1))
    body, head = layers.Dense(8, name="body"), layers.Dense(CLASSES, "softmax", name="head")
    model = keras.Sequential([keras.Input((INPUTS,)), body, head])
    body.set_weights([weights.astype(np.float32), np.zeros(8, np.float32)])
    head.set_weights([np.array([[1, -1]] * 8, np.float32), np.zeros(CLASSES, np.float32)])
    x = random.normal(size=(600, INPUTS)).astype(np.float32)
    return model, Data(Samples(x, (x @ weights[:, 0] < 0).astype(int)))


GOOD = np.arange(INPUTS, 0, -1.0)
ORDERS = {"good": GOOD, "bad": GOOD[::-1], "half": np.roll(GOOD, 6)}


def told(orders, monkeypatch):
    """Has rules say what the test says, of the first layer's weights."""

    def attribute(model, x, y=None, *, rule, reduce, **_):
        if rule not in orders:
            raise ModelError(f"no {rule}", "")
        scores = np.repeat(np.asarray(orders[rule], np.float32)[:, None], 8, axis=1)
        filters = {"body": np.ones(8, np.float32), "head": np.ones(2, np.float32)}
        return Relevance({"body": scores, "head": np.full((8, 2), 50.0, np.float32)}, filters, {}, rule=rule, reduce=reduce)

    monkeypatch.setattr(tuning, "attribute", attribute)


def searched(net, monkeypatch, orders, **how):
    model, data = net
    told(orders, monkeypatch)
    return search_rules(model, data, infer_task(model, data), score="relevance", **how)


def test_the_best_order_of_a_net_is_found(net, monkeypatch):
    orders = {tuning.USUAL: ORDERS["bad"], "lrp.gamma": ORDERS["half"], "taylor": ORDERS["good"], "magnitude": ORDERS["good"]}
    found = searched(net, monkeypatch, orders)
    assert found.best("weights") == ("taylor", "mean_abs")
    by_rule = {one.rule: one for one in found.tried if one.use == "weights" and one.reduce == "mean_abs"}
    assert by_rule["magnitude"].control
    assert not by_rule["magnitude"].chosen
    assert by_rule["taylor"].area < by_rule[tuning.USUAL].area
    assert found.entries["rule"] == "taylor"
    assert found.best("filters") == found.best("bits") == (tuning.USUAL, "mean_abs")


def test_damage_is_what_a_person_would_measure_without_test_data(net, monkeypatch):
    model, data = net
    before = model.get_weights()
    unseen = Samples(np.full((9, INPUTS), np.nan, np.float32), np.zeros(9, int))
    found = searched((model, Data(data.train, unseen)), monkeypatch, {tuning.USUAL: ORDERS["bad"]})
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)
    (row,) = [one for one in found.tried if one.use == "weights" and one.reduce == "mean_abs"]
    _, held_back = data.split()
    weights = [np.array(one) for one in model.get_weights()]
    count = INPUTS * 8 + 16
    before = float((model.predict(held_back.x, verbose=0).argmax(1) == held_back.y).mean())
    for step, lost in zip(STEPS["weights"], row.damage):
        gone = int(step * (count - 1)) // 8 + 1  # whole inputs, the last in the order: weights of one have equal scores
        changed = weights[0].copy()
        changed[np.argsort(ORDERS["bad"], kind="stable")[:gone]] = 0
        small = keras.models.clone_model(model)
        small.set_weights([changed, *weights[1:]])
        after = float((small.predict(held_back.x, verbose=0).argmax(1) == held_back.y).mean())
        assert lost == pytest.approx(100 * (before - after), abs=1e-4)
    assert len(set(row.damage)) > 1


@pytest.mark.slow
def test_a_hopeless_order_is_given_up_and_an_equal_one_changes_nothing(net, monkeypatch):
    orders = {tuning.USUAL: ORDERS["good"], "lrp.gamma": ORDERS["bad"], "taylor": ORDERS["good"]}
    found = searched(net, monkeypatch, orders)
    assert found.best("weights") == (tuning.USUAL, "mean_abs")
    rows = {one.rule: one for one in found.tried if one.use == "weights" and one.reduce == "mean_abs"}
    assert rows["lrp.gamma"].area is None
    assert None in rows["lrp.gamma"].damage
    assert rows["lrp.gamma"].damage[-1] is not None
    assert rows["taylor"].area == rows[tuning.USUAL].area


@pytest.mark.slow
def test_a_rule_that_takes_no_model_is_left_out_and_the_usual_one_must(net, monkeypatch):
    found = searched(net, monkeypatch, {tuning.USUAL: ORDERS["good"]}, also=["lrp.z_plus"])
    assert {one.rule for one in found.tried} == {tuning.USUAL}
    with pytest.raises(ModelError, match=r"no lrp\.epsilon"):
        searched(net, monkeypatch, {"taylor": ORDERS["good"]})


def test_trials_of_a_search_look_for_rules_once(tmp_path, monkeypatch):
    tried, searches = Tried("weights", "lrp.gamma", "mean_abs", (0.3, 0.5), (1.0, 2.0), 1.5, chosen=True), []
    monkeypatch.setattr(job, "search_rules", lambda *_, **how: searches.append(how) or Tuned((tried,)))
    shared = Shared(tmp_path / "shared")
    for seed, flash, count in ((0, 1000, 1), (0, 2000, 1), (1, 2000, 2)):
        recipe, training = RECIPES["auto"].changed(rule="auto"), xaic.Training(seed=seed)
        run = RunSettings(recipe, xaic.Budget(flash=flash), training, xaic.Device(), xaic.DataOptions())
        place = tmp_path / f"{seed} {flash}"
        place.mkdir()
        trial = SimpleNamespace(model=None, data=None, task=None, settings=run, work=Workspace(place, silent, shared=shared))
        job.Job._find_rules(trial)
        assert trial.settings.recipe.rule == "lrp.gamma"
        assert len(searches) == count


def test_what_was_found_is_kept(tmp_path):
    tried = Tried("weights", "composite(dense=lrp.gamma, *=lrp.epsilon)", "mean", (0.3, 0.5), (None, 2.0), None, False, True)
    Tuned((tried,)).save(tmp_path / "rules.json")
    assert Tuned.load(tmp_path / "rules.json").tried == (tried,)
    scores = {"a": np.ones((2, 3), np.float32)}
    later = {"tried": (tried,), "rounding": scores, "bits_rule": "lrp.z"}
    whole = Relevance(scores, {"a": np.ones(3, np.float32)}, {"a": 1.0}, rule="taylor", **later)
    whole.save(tmp_path / "relevance.npz")
    assert Relevance.load(tmp_path) == whole
    plain = Relevance(scores, {"a": np.ones(3, np.float32)}, {"a": 1.0}, rule="taylor")
    plain.save(tmp_path / "plain.npz")
    with np.load(tmp_path / "plain.npz") as kept:  # as they were before there was anything to search for
        assert "tried" not in kept
        assert set(json.loads(str(kept["facts"]))["order"]) == {"weights", "filters", "layers", "biases"}


@pytest.mark.slow
def test_scores_of_three_rules_go_into_one_relevance(net):
    model, data = net
    entries = {"filter_rule": "taylor", "filter_reduce": "mean", "bits_rule": "lrp.z_plus"}
    task, recipe = infer_task(model, data), RECIPES["auto"].changed(**entries)
    whole = attribute_by(recipe, model, data.train, task)
    alone = {rule: attribute(model, data.train, rule=rule) for rule in ("lrp.epsilon", "lrp.z_plus")}
    np.testing.assert_array_equal(whole.weights["body"], alone["lrp.epsilon"].weights["body"])
    np.testing.assert_array_equal(whole.of_rounding["body"], alone["lrp.z_plus"].weights["body"])
    signed = attribute(model, data.train, rule="taylor", reduce="mean")
    np.testing.assert_array_equal(whole.filters["body"], signed.filters["body"])
    assert whole.rule == "lrp.epsilon"
    assert {name: getattr(whole, name) for name in entries} == entries
    first = alone["lrp.epsilon"]
    assert together(first, first, first) == first


def test_a_rule_that_is_best_for_two_uses_is_computed_once():
    asked = []

    def by(rule, reduce):
        asked.append((rule, reduce))
        scores = {"a": np.full((2, 3), len(asked), np.float32)}
        return Relevance(scores, {"a": scores["a"][0]}, {"a": 1.0}, rule=rule, reduce=reduce)

    mixed = {"first": "lrp.z_box", "*": "lrp.epsilon"}
    whole = attribute_each(by, ("taylor", "mean"), (mixed, "mean_abs"), (dict(mixed), "mean_abs"))
    assert asked == [("taylor", "mean"), (mixed, "mean_abs")]
    assert (whole.rule, whole.weights["a"][0, 0], whole.filters["a"][0], whole.of_rounding["a"][0, 0]) == ("taylor", 1, 2, 2)


def test_a_composite_is_taken_by_its_name_in_results(net):
    model, data = net
    parts = {"low": "lrp.gamma", "*": "lrp.epsilon:0.25"}
    made = attribute(model, data.train.take(slice(8)), rule=parts)
    again = attribute(model, data.train.take(slice(8)), rule=made.rule)
    assert made.rule == again.rule == "composite(low=lrp.gamma, *=lrp.epsilon:0.25)"
    np.testing.assert_array_equal(made.weights["body"], again.weights["body"])
    everywhere = attribute(model, data.train.take(slice(8)), rule="lrp.epsilon:0.25")
    assert not np.allclose(made.weights["body"], everywhere.weights["body"])  # the first of two layers is the low third
    np.testing.assert_allclose(made.weights["head"], everywhere.weights["head"], rtol=1e-5)


def test_rule_auto_says_where_it_works(net):
    model, data = net
    with pytest.raises(ModelError, match=r"rule 'auto' where there is no data to judge.*xaic explain --rule auto"):
        attribute(model, data.train, rule="auto")
    with pytest.raises(PlanError, match="rule 'auto'"):
        RECIPES["auto"].changed(filter_rule="auto")
    assert RECIPES["auto"].changed(rule="auto").rule == "auto"


@pytest.fixture
def few(monkeypatch):
    """A search of two rules."""
    monkeypatch.setattr(tuning, "EVERYWHERE", ("taylor",))
    monkeypatch.setattr(tuning, "IN_PARTS", ("lrp.epsilon",))


@pytest.mark.slow
def test_explain_keeps_what_each_rule_did(net, few, tmp_path):
    model, data = net
    how = xaic.settings.AttributionOptions(rule="auto", pictures=1)
    found = xaic.explain(model, data, tmp_path / "why", attribution=how)
    kept = Relevance.load(tmp_path / "why")
    assert kept == found.relevance
    assert {one.rule for one in kept.tried} == {"lrp.epsilon", "magnitude", "taylor"}
    assert kept.rule == next(one.rule for one in kept.tried if one.use == "weights" and one.chosen)
    assert len(list((tmp_path / "why" / "pictures").iterdir())) == 1


@pytest.mark.slow
def test_compress_searches_and_goes_on_with_what_was_found(net, few, tmp_path):
    model, data = net
    recipe = RECIPES["auto"].changed(rule="auto")
    how = {"budget": xaic.Budget(flash="4kB", max_drop=100), "training": xaic.Training(epochs=1)}
    report = xaic.compress(model, data, out=tmp_path / "small", recipe=recipe, device=xaic.Device(baselines=()), **how)
    kept = Relevance.load(tmp_path / "small")
    best = {one.use: one.rule for one in kept.tried if one.chosen}
    assert (kept.rule, kept.filter_rule or kept.rule) == (best["weights"], best["filters"])
    assert report.seconds["tune"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lrp-mixed", "ecqx", "deeplift-filters"])
def test_named_recipes_take_the_rule_auto(net, few, tmp_path, recipe):
    model, data = net
    chosen = RECIPES[recipe].changed(rule="auto")
    how = {"budget": xaic.Budget(max_drop=100), "training": xaic.Training(epochs=0), "device": xaic.Device(baselines=())}
    xaic.compress(model, data, out=tmp_path / "small", recipe=chosen, **how)
    assert Relevance.load(tmp_path / "small").tried
