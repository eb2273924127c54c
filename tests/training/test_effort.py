"""How epochs are shared between the stages."""

from __future__ import annotations

import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.compression import _removal_epochs
from keras_xaic.planning import FilterPlan, LayerPlan, Plan


@pytest.mark.parametrize(
    ("left", "sparsity", "steps", "epochs"),
    [
        (980, 0.0, 1, 0),  # hardly any went: training on grids recovers it
        (750, 0.0, 1, 5),
        (500, 0.0, 1, 10),
        (100, 0.0, 1, 10),
        (100, 0.5, 1, 0),  # pruning recovers it
        (100, 0.5, 3, 5),
    ],
)
def test_recovery_from_removal_takes_epochs_in_proportion_to_what_went(left, sparsity, steps, epochs):
    model = keras.Sequential([keras.Input((100,)), layers.Dense(10, use_bias=False, name="a")])
    layer = LayerPlan(key="a", kind="dense", weights=left, bits=4, granularity="tensor", storage="int4", sparsity=sparsity)
    plan = Plan(layers=[layer], remove={"a": [0]}, filters=FilterPlan(steps=steps, flash_bytes=1) if steps > 1 else None)
    assert _removal_epochs(20, plan, model) == epochs


def test_weights_that_keep_a_byte_leave_more_epochs_to_removal():
    model = keras.Sequential([keras.Input((100,)), layers.Dense(10, use_bias=False, name="a")])
    layer = LayerPlan(key="a", kind="dense", weights=250, bits=8, granularity="tensor", storage="int8")
    assert _removal_epochs(20, Plan(layers=[layer], remove={"a": [0]}), model) == 16


def test_without_removal_or_without_grids():
    model = keras.Sequential([keras.Input((100,)), layers.Dense(10, name="a")])
    assert _removal_epochs(20, Plan(), model) == 0
    assert _removal_epochs(20, Plan(remove={"a": [0]}), model) == 20
