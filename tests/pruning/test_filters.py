"""Removal of filters in steps: limits hold, the record is true, what does not matter goes first."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.compression import apply
from keras_xaic.errors import PlanError
from keras_xaic.models import channel_groups, macs, remove_branches, remove_channels
from keras_xaic.planning import Budget, FilterPlan, Plan, PlanOptions, keep_masks, plan
from keras_xaic.pruning.filters import _recoveries
from keras_xaic.relevance import attribute
from keras_xaic.tflite import build_tflite
from keras_xaic.training import Schedule
from keras_xaic.training.context import Context

CLASSES = 3


def make_data(count=96, seed=0):
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).normal(size=(CLASSES, 8, 8, 2))
    y = rng.integers(0, CLASSES, count)
    return (patterns[y] + rng.normal(size=(count, 8, 8, 2))).astype(np.float32), y


def make_model():
    """A residual net without BatchNorm, so that removal in steps and at once compare exactly."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add(name="add")([x, layers.Conv2D(12, 1, name="back")(y)])
    x = layers.Dense(24, activation="relu", name="hidden")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(x))


def total(model):
    return sum(macs(model).values())


def removed_at_once(model, plan):
    left = remove_branches(model, plan.branches)
    return remove_channels(left, keep_masks(left, plan.remove))


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_limits_hold_and_the_record_in_the_originals_numbering_is_what_went(steps):
    model, data = make_model(), make_data()
    limits = FilterPlan(macs=total(model) // 3, parameters=model.count_params() // 2, steps=steps)
    small = apply(model, Plan(filters=limits), data, training=xaic.Training(epochs=0), calibration=32)
    assert total(small.model) <= limits.macs
    assert small.model.count_params() <= limits.parameters
    again = removed_at_once(model, small.plan)
    np.testing.assert_allclose(small.model(data[0]), again(data[0]), atol=1e-5)
    assert "head" not in small.plan.remove


@pytest.mark.slow
def test_more_steps_look_again():
    model, data = make_model(), make_data()
    chosen = [
        apply(
            model, Plan(filters=FilterPlan(macs=total(model) // 6, steps=steps)), data, training=xaic.Training(epochs=0)
        ).plan.remove
        for steps in (1, 4)
    ]
    assert chosen[0] != chosen[1]


def test_floors_alignment_and_protected_layers():
    model, data = make_model(), make_data()
    how = FilterPlan(macs=1, steps=2, align=4, min_filters=6, protect=("hid*",))
    small = apply(model, Plan(filters=how), data, training=xaic.Training(epochs=0), calibration=32)
    kept = {group.name: group.size for group in channel_groups(small.model).values()}
    assert kept == {"stem": 8, "inner": 8, "hidden": 24, "head": CLASSES}


def test_without_steps_exactly_the_plan_is_removed():
    model, data = make_model(), make_data()
    made = Plan(remove={"stem": [0, 3, 11], "hidden": [5]})
    small = apply(model, made, data, training=xaic.Training(epochs=0))
    assert small.plan == made
    np.testing.assert_allclose(small.model(data[0]), removed_at_once(model, made)(data[0]), atol=1e-6)


@pytest.mark.parametrize("steps", [0, 3])
def test_branches_go_first_and_filters_of_what_is_left(steps):
    model, data = make_model(), make_data()
    branches = {"add": ["inner", "back"]}
    limits = FilterPlan(parameters=400, steps=steps) if steps else None
    made = Plan(branches=branches, remove={"stem": [0, 3, 11], "hidden": [5]}, filters=limits)
    small = apply(model, made, data, relevance=attribute(model, *data), training=xaic.Training(epochs=0), calibration=32)
    assert small.plan.branches == branches
    assert small.plan.remove == made.remove or (steps and small.model.count_params() <= 400)
    assert {layer.name for layer in small.model.layers if layer.weights} == {"stem", "hidden", "head"}
    np.testing.assert_allclose(small.model(data[0]), removed_at_once(model, small.plan)(data[0]), atol=1e-5)
    alone = apply(model, Plan(branches=branches), data, training=xaic.Training(epochs=0))
    np.testing.assert_allclose(alone.model(data[0]), remove_branches(model, branches)(data[0]), atol=1e-6)
    assert small.model.count_params() < alone.model.count_params() < model.count_params()


@pytest.mark.parametrize(
    "rule",
    ["lrp.epsilon", "magnitude", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("deeplift.rescale", "taylor"))],
)
def test_every_rule_removes_first_what_does_nothing(rule):
    model, data = make_model(), make_data()
    kernel, bias = model.get_layer("inner").get_weights()
    kernel[..., ::2] = 0.0  # filters that never fire
    model.get_layer("inner").set_weights([kernel, bias])
    relevance = attribute(model, *data, rule=rule)
    how = FilterPlan(macs=round(total(model) * 0.62), steps=2, min_filters=1, protect=("stem", "hidden"))
    small = apply(model, Plan(filters=how), data, relevance=relevance, training=xaic.Training(epochs=0))
    assert {int(channel) % 2 for channel in small.plan.remove["inner"]} == {0}
    assert len(small.plan.remove["inner"]) >= 5
    np.testing.assert_allclose(small.model(data[0]), model(data[0]), atol=1e-5)


@pytest.mark.slow
def test_a_byte_budget_in_steps_gives_a_file_that_fits_and_a_plan_that_says_so():
    model, data = make_model(), make_data()
    relevance = attribute(model, *data)
    wide = plan(model, relevance, Budget(), PlanOptions(bits=(4,)))  # 4 bits, each in a byte, as fast as plain int8
    budget = Budget(round(0.7 * wide.predicted_flash_bytes))
    made = plan(model, relevance, budget, PlanOptions(bits=(4,), steps=2))
    assert made.remove
    small = apply(model, made, data, relevance=relevance, training=xaic.Training(epochs=0))
    assert small.plan.predicted_flash_bytes <= made.predicted_flash_bytes * 1.01
    assert len(build_tflite(small, data[0])) <= 1.05 * budget.flash_bytes
    for layer in small.plan.layers:
        assert layer.weights == small.kernels[layer.key].integers.size


def test_a_limit_of_multiply_accumulates_is_planned_and_met():
    model, data = make_model(), make_data()
    relevance = attribute(model, *data)
    for bits in ((), (4, 8)):
        made = plan(model, relevance, Budget(macs=total(model) // 2), PlanOptions(bits=bits))
        assert total(removed_at_once(model, made)) <= total(model) // 2
        assert bool(made.layers) == bool(bits)
    assert not plan(model, relevance, Budget(macs=total(model))).remove
    half = plan(model, relevance, Budget(), PlanOptions(bits=(), removal=0.5))
    assert total(removed_at_once(model, half)) <= total(model) // 2


@pytest.mark.slow
def test_an_interrupted_removal_goes_on_with_what_was_chosen(tmp_path):
    model, data = make_model(), make_data()
    made = Plan(filters=FilterPlan(macs=total(model) // 3, steps=3))

    def run(where, progress):
        return apply(model, made, data, training=xaic.Training(epochs=4), calibration=32, checkpoint=where, progress=progress)

    def stop(stage, done, total, note=""):
        if stage == "recover 3" and done == 3:
            raise KeyboardInterrupt

    seen = []
    whole = run(tmp_path / "whole", lambda stage, *_: None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    again = run(tmp_path / "parts", lambda stage, *_: seen.append(stage))
    assert set(seen) == {"recover 3"}
    assert again.plan == whole.plan
    for one, other in zip(again.model.get_weights(), whole.model.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_training_between_steps_is_short_and_all_of_it_is_what_was_asked_for():
    for epochs, steps in ((8, 3), (6, 3), (2, 2), (20, 3), (5, 1)):
        recoveries = _recoveries(Schedule(epochs), steps)
        assert len(recoveries) == steps
        assert sum(one.epochs * one.share for one in recoveries) == pytest.approx(epochs, abs=0.5)
        assert all(one.epochs * one.share <= recoveries[-1].epochs for one in recoveries)


def test_a_plan_for_filters_without_a_limit_is_refused():
    with pytest.raises(PlanError, match="no limit"):
        apply(make_model(), Plan(filters=FilterPlan(steps=2)), make_data(), training=xaic.Training(epochs=0))


@pytest.mark.parametrize(
    ("remove", "budget", "times"),
    [
        ([0, 1, 2, 3], Budget(max_slowdown=0.5), 3.0),  # nothing that the model knew is left
        ([4, 5, 6, 7], Budget(max_slowdown=0.5), 1.0),
        ([0, 1, 2, 3], Budget(flash=10_000), 1.0),
    ],
)
def test_under_a_limit_on_time_what_knows_little_is_trained_faster(monkeypatch, remove, budget, times):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="hidden"), layers.Dense(4, "softmax", name="head")])
    model.set_weights([np.eye(4, 8), np.zeros(8), 9 * np.eye(8, 4), np.zeros(4)])
    y = np.arange(200) % 4
    rates = []
    monkeypatch.setattr(Context, "fit", lambda self, model, schedule, *_: rates.append(schedule.learning_rate) or [])
    apply(model, Plan(remove={"hidden": remove}, budget=budget), (np.eye(4, dtype=np.float32)[y], y))
    assert rates == [pytest.approx(times * xaic.Training().learning_rate)]
