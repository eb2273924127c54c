"""A named method without any limit of size must give a good model: it goes only as far as the accuracy allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

import keras_xaic as xaic
from keras_xaic import tflite
from keras_xaic._keras import keras
from keras_xaic.compression import CompressedModel
from keras_xaic.data import Data, Samples
from keras_xaic.models import infer_task
from keras_xaic.pipeline import easing
from keras_xaic.pipeline.easing import Easing, eased, plain, said_of_easing
from keras_xaic.pipeline.judging import Judge
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.workspace import Workspace
from keras_xaic.planning import Budget, Plan, PlanOptions, plan
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance import attribute
from tests.nets import learned

NAMED = [one for one in RECIPES.values() if one.rule is not None and not one.rounds]


@pytest.fixture(scope="module")
def net():
    model, x, y = learned(20, 24, epochs=15, optimizer=keras.optimizers.Adam(0.01))
    return model, Data(Samples(x, y))


@pytest.mark.parametrize("recipe", NAMED, ids=lambda one: one.name)
def test_each_try_takes_away_less_and_the_last_nothing(recipe):
    half, least = eased(recipe, 0.5), plain(recipe)
    assert eased(recipe, 1.0) == recipe
    for name in ("sparsity", "removal", "nonpositive"):
        assert getattr(half, name) == getattr(recipe, name) / 2
        assert getattr(least, name) == 0
    if recipe.mean_bits is not None:
        assert half.mean_bits == (recipe.mean_bits + 8) / 2
    assert set(least.bits) <= {8}
    assert plain(least) == least


def test_a_share_of_what_speaks_against_goes_least_first(net):
    model, data = net
    relevance = attribute(model, data.train, reduce="mean")
    scores = relevance.weights["body"]
    wanted = PlanOptions(score="signed_relevance", sensitivity="mean_score", filters=False)
    for share in (1.0, 0.5, 0.0):
        made = plan(model, relevance, Budget(mean_bits=8), replace(wanted, nonpositive=share))
        expected = round(share * (scores <= 0).sum()) / scores.size
        assert made["body"].sparsity == pytest.approx(expected, abs=1.5 / scores.size)


def test_half_of_the_weights_without_relevance_go_where_all_of_them_have_exactly_none(net):
    model, data = net
    relevance = attribute(model, data.train, reduce="mean")
    scores = relevance.weights["body"]
    scores[scores < 0] = 0.0  # as behind inputs that are always 0
    wanted = PlanOptions(score="signed_relevance", sensitivity="mean_score", filters=False, nonpositive=0.5)
    made = plan(model, relevance, Budget(mean_bits=8), wanted)
    assert made["body"].sparsity == pytest.approx(0.5 * (scores == 0).mean(), abs=1.5 / scores.size)


def tries_of(net, monkeypatch, tmp_path, drops, max_drop=1.0, **training):
    """Runs `Easing` where each try loses what is said; returns its tries, the recipes it planned and how it trained."""
    model, data = net
    planned, trained, given = [], [], iter(drops)
    monkeypatch.setattr(
        easing, "apply", lambda *_, training, **__: trained.append(training) or CompressedModel(None, {}, Plan(), {})
    )
    monkeypatch.setattr(tflite, "build_tflite", lambda *_: b"file")
    monkeypatch.setattr(tflite, "pack_download", lambda _: b"file")
    monkeypatch.setattr(Judge, "__call__", lambda *_: (0.9, next(given), 0.1))
    groups = Budget(max_drop=max_drop), xaic.Training(**{"epochs": 3, **training}), xaic.Device(), xaic.DataOptions()
    settings = RunSettings(RECIPES["lrp-mixed"], *groups)
    work = Workspace(tmp_path, lambda *_: None)
    how = Easing(model, data, infer_task(model, data), settings, data.train, work, lambda one: planned.append(one) or Plan())
    return how.run(settings.recipe, None), planned, trained


def test_tries_end_where_the_accuracy_is_kept(net, monkeypatch, tmp_path):
    tries, planned, trained = tries_of(net, monkeypatch, tmp_path, [33.0, 1.002, 0.5])
    assert [one.drop for one in tries] == [33.0, 1.002, 0.5]
    assert [one.nonpositive for one in planned] == [1.0, 0.5, 0.25]
    assert [one.epochs for one in trained] == [3, 3, 3]
    assert "lost 33.00, 1.002, 0.50" in said_of_easing(RECIPES["lrp-mixed"], tries, 1.0)


def test_a_recipe_that_keeps_the_accuracy_is_carried_out_as_it_is(net, monkeypatch, tmp_path):
    tries, planned, _ = tries_of(net, monkeypatch, tmp_path, [0.9])
    assert planned == [RECIPES["lrp-mixed"]]
    assert said_of_easing(planned[0], tries, 1.0) is None


def test_the_last_try_is_plain_int8_without_training_and_minutes_are_shared(net, monkeypatch, tmp_path):
    tries, planned, trained = tries_of(net, monkeypatch, tmp_path, [9.0, 8.0, 7.0, 2.0], epochs=None, minutes=4.0)
    assert len(tries) == 4
    assert planned[-1] == plain(RECIPES["lrp-mixed"])
    assert trained[-1].epochs == 0
    assert sum(one.minutes for one in trained) <= 4.0


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 2])
def test_lrp_mixed_without_any_limit_keeps_the_accuracy(net, tmp_path, epochs):
    model, data = net
    arrays = {"x_train": data.train.x, "y_train": data.train.y}
    how = {"training": xaic.Training(epochs=epochs), "device": xaic.Device("mobile", baselines=()), "recipe": "lrp-mixed"}
    report = xaic.compress(model, arrays, out=tmp_path / "good", budget=Budget(max_drop=2.0), **how)
    assert report.compressed.drop_pp <= 4.0
    assert [one.drop_pp for one in report.rounds][:-1] == [one.drop_pp for one in report.rounds if one.drop_pp > 2.0]
    if epochs == 0:
        assert report.rounds[0].drop_pp > 5.0, "all of it at once is ruin: this is what the rule is for"
        assert any(one.startswith("lrp-mixed was eased") for one in report.warnings)
        whole = xaic.compress(model, arrays, out=tmp_path / "whole", budget=Budget(max_drop=100), **how)
        assert whole.rounds == []
        assert whole.compressed.sparsity > report.compressed.sparsity
