"""What the removal of filters thinks that kernels cost."""

from __future__ import annotations

import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models import channel_groups
from keras_xaic.planning import FilterPlan
from keras_xaic.planning.filters import FilterCost, KernelCost

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
