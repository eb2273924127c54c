"""What the removal of filters thinks that kernels cost."""

from __future__ import annotations

import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models import channel_groups
from keras_xaic.models.costs import kept_parameters
from keras_xaic.planning import Budget, FilterPlan, PlanOptions, keep_masks, plan
from keras_xaic.planning.filters import FilterCost, KernelCost, choose_next
from keras_xaic.relevance.magnitude import magnitude

LIMIT = 1_000_000


@pytest.mark.parametrize(
    ("inputs", "planned", "bytes_a_weight"),
    [
        (64, "int4", 0.5),
        (62, "int4", 1.0),  # not to be packed: it stays bytes
        (62, "int8", 1.0),
        (62, "float32", 4.0),
    ],
)
def test_kernels_that_cannot_be_packed_cost_a_byte_a_weight_and_float_ones_what_they_do(inputs, planned, bytes_a_weight):
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(8, name="dense")])
    costs = {"dense": KernelCost(planned, 4, 0.5, "tensor")}
    cost = FilterCost(channel_groups(model), FilterPlan(flash_bytes=LIMIT), costs, activations="float32")
    records = 8 * 4 + 4  # biases and one step
    assert cost.left({})["flash_bytes"] == pytest.approx(inputs * 8 * bytes_a_weight + records)


def _dense():
    return [keras.Input((196,)), layers.Dense(120, "relu"), layers.Dense(80, "relu")]


def _convolutions():
    return [keras.Input((12, 12, 3)), layers.Conv2D(48, 3, activation="relu"), layers.Conv2D(64, 3), layers.Flatten()]


@pytest.mark.parametrize("stack", [_dense, _convolutions])
@pytest.mark.parametrize("bits", [(2,), (2, 4, 8)], ids=str)
@pytest.mark.parametrize(("flash", "download"), [(6_000, None), (9_000, 3_000), (8_000, 2_500), (6_000, 5_000)])
def test_filters_that_go_in_steps_leave_what_the_plan_has_bytes_for(stack, bits, flash, download):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*stack(), layers.Dense(10, name="head")])
    relevance, budget = magnitude(model), Budget(flash=flash, download=download)
    made = plan(model, relevance, budget, PlanOptions(bits=bits, steps=2))
    assert made.filters is not None
    keep = choose_next(model, relevance.filters, made.filters, made.layers, last=True, lookup=made.lookup)
    groups = channel_groups(model)
    left, planned = (sum(kept_parameters(groups, one).values()) for one in (keep, keep_masks(model, made.remove)))
    assert left == pytest.approx(planned, rel=0.08)


@pytest.mark.parametrize("stack", [_dense, _convolutions])
@pytest.mark.parametrize("bits", [(2, 4, 8), (3, 4), (4,)], ids=str)
@pytest.mark.parametrize("flash", [6_000, 9_000, 12_000])
def test_no_more_filters_go_than_flash_needs(stack, bits, flash):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*stack(), layers.Dense(10, name="head")])
    made = plan(model, magnitude(model), Budget(flash=flash), PlanOptions(bits=bits))
    assert made.remove
    assert 0.95 * flash <= made.predicted_flash_bytes <= flash
