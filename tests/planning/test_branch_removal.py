"""Under a limit on time residual branches go whole where that loses less than filters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.errors import PlanError
from keras_xaic.models import canonicalize, channel_groups, remove_branches, remove_channels
from keras_xaic.planning import Budget, LayerPlan, Plan, PlanOptions, check_plan, keep_masks, plan
from keras_xaic.planning.branches import BranchRemoval
from keras_xaic.planning.filters import FilterRemoval
from keras_xaic.planning.latency import Times
from keras_xaic.planning.plan import FilterPlan
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance import Relevance
from keras_xaic.relevance.magnitude import magnitude

BYTES = PlanOptions(bits=(8,))


@pytest.fixture(scope="module")
def model():
    """Two blocks of equal cost at full resolution, and a tail that costs little."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    for name in ("first", "second"):
        y = layers.Conv2D(32, 3, padding="same", activation="relu", name=f"{name}_in")(x)
        y = layers.BatchNormalization(name=f"{name}_norm")(layers.Conv2D(16, 3, padding="same", name=f"{name}_out")(y))
        x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=name)([x, y]))
    x = layers.Conv2D(32, 3, strides=4, activation="relu", name="tail")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(layers.Flatten()(x)))


def scored(model, weak, share):
    """Relevance by magnitude, but that a branch makes `share` of what its sum consists of."""
    found = magnitude(model)
    filters = dict(found.filters)
    parts = {"stem": (1.0 - share) / 2, "first_out": (1.0 - share) / 2, "second_out": (1.0 - share) / 2, f"{weak}_out": share}
    for path, part in parts.items():
        filters[path] = filters[path] / filters[path].sum() * part
    return Relevance(**{**vars(found), "filters": filters})


@pytest.mark.parametrize("weak", ["first", "second"])
def test_the_branch_that_matters_least_goes_where_filters_would_lose_more(model, weak):
    made = plan(model, scored(model, weak, 0.05), Budget(max_slowdown=0.6), BYTES)
    assert made.branches == {weak: [f"{weak}_in", f"{weak}_out"]}
    small = remove_branches(model, made.branches)
    small = remove_channels(small, keep_masks(small, made.remove))
    assert {layer.key for layer in made.layers} == {layer.name for layer in small.layers if hasattr(layer, "kernel")}
    assert made.predicted_slowdown <= 0.6
    assert made.predicted_slowdown == pytest.approx(
        Times(canonicalize(small).model).plain() / Times(canonicalize(model).model).plain(), rel=0.02
    )
    assert sum(layer.weights for layer in made.layers) == sum(
        int(np.prod(layer.kernel.shape)) for layer in small.layers if hasattr(layer, "kernel")
    )
    check_plan(made, model)
    assert f"{weak}" in str(made)
    assert f"branch removed: {weak}_in, {weak}_out" in str(made)
    assert "1 branch and" in str(made)


def test_filters_go_where_the_branches_matter(model):
    """A block makes all that the network sees: without it nothing is left, without some filters most of it."""
    made = plan(model, scored(model, "first", 0.98), Budget(max_slowdown=0.9), BYTES)
    assert "first" not in made.branches
    made = plan(model, magnitude(model), Budget(max_slowdown=0.97), BYTES)
    assert not made.branches, "a little time is saved by a few filters"
    assert made.remove


def test_no_branch_goes_without_a_limit_on_time_or_where_a_layer_is_protected(model):
    weak = scored(model, "first", 0.01)
    for budget in (Budget(flash="9kB"), Budget(macs="3M"), Budget(max_slowdown=1.0)):
        assert not plan(model, weak, budget, BYTES).branches
    kept = PlanOptions(bits=(8,), protect=("first_in",))
    assert "first" not in plan(model, weak, Budget(max_slowdown=0.6), kept).branches
    for off in ("filters", "branches"):
        assert not plan(model, weak, Budget(max_slowdown=0.6), PlanOptions(bits=(8,), **{off: False})).branches
    assert [name for name, recipe in RECIPES.items() if recipe.plan_options().branches] == ["auto", "auto-magnitude"]


def test_what_is_lost_is_the_share_of_each_group_that_is_gone(model):
    filters = {"stem": np.full(16, 2.0), "first_out": np.full(16, 1.0), "second_out": np.full(16, 1.0)}
    filters |= {"first_in": np.full(32, 9.0), "tail": np.full(32, 1.0)}
    removal = BranchRemoval(channel_groups(model), filters)
    small = remove_branches(model, ["first"])
    groups = channel_groups(small)
    assert removal.lost(channel_groups(model), {}) == 0.0
    assert removal.lost(groups, {}) == pytest.approx(math.log(4 / 3)), "what is inside of the branch counts where it ends"
    half = {"stem": np.arange(16) < 8, "tail": np.arange(32) < 24}
    assert removal.lost(groups, half) == pytest.approx(math.log(4 / 1.5) + math.log(4 / 3))
    times = {"first_in": 1.0, "first_out": 1.0, "second_in": 2.0, "second_out": 2.0}
    assert removal.next((), times, 10.0) == "second", "as little is lost, and more time is saved"
    assert removal.next((), times, 2.0) == "first", "what is saved beyond the limit does not count"
    assert removal.next(("second",), times, 10.0) == "first"
    assert removal.next(("first", "second"), times, 10.0) is None
    assert BranchRemoval(channel_groups(model), {"stem": np.ones(16)}).branches == {}, "nobody knows what they matter"


def test_the_choice_is_the_best_of_all_sets_of_branches(model):
    """Independently: each set is tried, filters go in it, and what is lost is added up from the scores."""
    relevance = scored(model, "second", 0.15)
    whole = Times(model).plain()
    limits = {"budget": Budget(), "bits": (8,), "how": FilterPlan()}
    for share in (0.45, 0.7):
        chosen = FilterRemoval(model, relevance, time=share * whole, **limits).next()
        losses = {}
        for names in ((), ("first",), ("second",), ("first", "second")):
            left = remove_branches(model, names)
            made = FilterRemoval(left, relevance, time=share * whole, branches=False, **limits)
            losses[names] = total_loss(model, relevance.filters, made.next())
        assert tuple(chosen.branches) == min(losses, key=losses.get), losses


def total_loss(model, filters, removal):
    if removal is None:
        return math.inf
    total = 0.0
    for group in channel_groups(model).values():
        whole = sum(filters[path].sum() for path in group.producers)
        paths = [path for path in group.producers if path in {layer.name for layer in removal.model.layers}]
        keep = keep_masks(model, removal.remove).get(group.name, np.ones(group.size, bool))
        left = sum(filters[path][keep].sum() for path in paths)
        total += math.log(whole / left) if paths else 0.0
    return total


def test_a_plan_with_a_wrong_branch_is_refused(model, tmp_path):
    with pytest.raises(PlanError, match=r"no residual branch 'tail'.*first, second"):
        check_plan(Plan(branches={"tail": ["tail"]}), model)
    with pytest.raises(PlanError, match=r"branch 'first' with the layers first_in.*first_in, first_out"):
        check_plan(Plan(branches={"first": ["first_in"]}), model)
    gone = LayerPlan(key="first_in", kind="conv", weights=1, bits=8, granularity="channel", storage="int8")
    both = Plan(branches={"first": ["first_in", "first_out"]}, layers=[gone])
    with pytest.raises(PlanError, match=r"'first_in' gets and takes out the branch"):
        check_plan(both, model)
    both.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == both
