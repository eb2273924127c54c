"""Filters ranked by what goes with them: more relevance is left at the same cost."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models import channel_groups, remove_channels
from keras_xaic.planning import FilterPlan
from keras_xaic.planning.choice import choose_filters
from keras_xaic.planning.filters import FilterCost


@pytest.fixture(scope="module")
def groups():
    """A net where a unit of one layer costs three times one of the other."""
    z = inputs = keras.Input((64,))
    z = layers.Dense(32, activation="relu", name="dear")(z)
    z = layers.Dense(32, activation="relu", name="cheap")(z)
    return channel_groups(keras.Model(inputs, layers.Dense(2, name="head")(z)))


def test_scores_are_divided_by_what_is_saved(groups):
    cost = FilterCost(groups, FilterPlan(parameters=100), {})
    scores = {"dear": np.full(32, 6.0), "cheap": np.full(32, 6.0)}
    ranked = cost.ranking(scores, per_cost=True)
    model = groups.operations.model
    for name, one in ranked.items():
        smaller = remove_channels(model, {name: np.arange(32) > 0})
        np.testing.assert_allclose(one, 6.0 / (model.count_params() - smaller.count_params()))
    assert cost.ranking(scores, per_cost=False) == scores


def test_more_is_left_at_the_same_cost(groups):
    rng = np.random.default_rng(0)
    scores = {name: rng.uniform(0.5, 1.5, 32) for name in ("dear", "cheap")}
    cost = FilterCost(groups, FilterPlan(parameters=1_500), {})

    def left(per_cost):
        keep = choose_filters(groups, cost.ranking(scores, per_cost), cost=cost, target=1.0)
        assert cost(keep) <= 1.0
        return sum(float(scores[name][keep.get(name, np.ones(32, bool))].sum()) for name in scores)

    assert left(per_cost=True) > 1.1 * left(per_cost=False)


def test_a_unit_of_ram_has_no_price(groups):
    scores = {"dear": np.ones(32), "cheap": np.ones(32)}
    cost = FilterCost(groups, FilterPlan(ram_bytes=10), {})
    assert cost.ranking(scores, per_cost=True) == scores
