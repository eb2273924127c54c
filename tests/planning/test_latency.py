"""Time as a budget: what is packed only as far as flash is limited, and which layers pay for it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_xaic import processor
from keras_xaic._keras import keras, layers
from keras_xaic.errors import PlanError
from keras_xaic.planning import Budget, PlanOptions, plan
from keras_xaic.planning.accounts import Accounts
from keras_xaic.planning.latency import Times, Work, measured_table, microseconds
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.magnitude import magnitude


@pytest.fixture(autouse=True, params=[True, False], ids=["fast int8", "slow int8"])
def kind_of_processor(request, monkeypatch):
    """What plans promise holds on every processor, whichever this one is."""
    monkeypatch.setattr(processor, "adds_int8_products", lambda: request.param)
    return request.param


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.Conv2D(48, 3, strides=2, activation="relu", name="middle")(x)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="late")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x))


@pytest.fixture(scope="module")
def relevance(model):
    return magnitude(model)


FOUR = PlanOptions(bits=(4,))


@pytest.mark.parametrize("budget", [Budget(), Budget(download=4_000), Budget(mean_bits=4.0)], ids=str)
def test_without_a_flash_limit_no_layer_is_slower_than_int8(model, relevance, budget):
    made = plan(model, relevance, budget)
    assert {layer.storage for layer in made.layers if layer.kind == "conv"} == {"int8"}
    assert not made.lookup
    assert max(layer.slowdown for layer in made.layers) <= 1.25
    assert made.predicted_slowdown <= 1.0


def test_dense_layers_are_packed_where_that_is_faster(model, relevance):
    made = plan(model, relevance, Budget(), FOUR)
    assert made["hidden"].storage == "int4"
    assert made["hidden"].slowdown < 1.0


def dense_net(width):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((64,))
    x = layers.Dense(96, activation="relu", name="second")(layers.Dense(width, activation="relu", name="first")(inputs))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x))


def test_dense_layers_with_an_odd_number_of_inputs_are_not_packed_where_that_is_slow():
    for width, storage in ((128, "int4"), (127, "int8")):
        model = dense_net(width)
        made = plan(model, magnitude(model), Budget(), FOUR)
        assert (made["first"].storage, made["second"].storage) == ("int4", storage)


def test_filters_that_go_leave_an_even_number():
    model = dense_net(127)
    relevance, widths, went = magnitude(model), {"first": 127, "second": 96}, 0
    for limit in range(3_000, 9_000, 500):
        made = plan(model, relevance, Budget(limit), RECIPES["auto"].plan_options())
        left = [widths[name] - len(gone) for name, gone in made.remove.items() if gone]
        assert not any(count % 2 for count in left)
        went += len(left)
        assert made.predicted_flash_bytes <= limit
    assert went


def test_for_microcontrollers_few_bits_are_packed_without_any_limit(model, relevance):
    made = plan(model, relevance, Budget(), PlanOptions(bits=(4,), packed=True))
    assert {layer.storage for layer in made.layers} == {"int4"}


def test_flash_is_paid_for_by_the_layers_that_it_costs_least_time(model, relevance):
    smallest = plan(model, relevance, Budget(), PlanOptions(bits=(4,), packed=True)).predicted_flash_bytes
    largest = plan(model, relevance, Budget(), FOUR).predicted_flash_bytes
    limit = (smallest + largest) // 2
    made = plan(model, relevance, Budget(limit), FOUR)
    assert made.predicted_flash_bytes <= limit
    slow = [layer for layer in made.layers if layer.slowdown > 1.25]
    assert slow
    assert all("packed for flash" in layer.reason and f"{layer.slowdown:.1f} times" in layer.reason for layer in slow)
    # Independently: all combinations of two storages, by brute force.
    accounts, works = Accounts(model, "int8"), Times(model).works()
    best = np.inf
    for storages in itertools.product(("int4", "int8"), repeat=len(made.layers)):
        given = [one.model_copy(update={"storage": storage}) for one, storage in zip(made.layers, storages)]
        given = [one.model_copy(update={"flash_bytes": accounts.stored_bytes(one)}) for one in given]
        if accounts.flash_bytes(given) <= limit:
            best = min(best, sum(microseconds(works[one.key], one.storage) for one in given))
    taken = sum(microseconds(works[one.key], one.storage) for one in made.layers)
    assert taken == pytest.approx(best, rel=0.01)


def test_filters_go_where_that_buys_time(model, relevance):
    made = plan(model, relevance, Budget(max_slowdown=0.5))
    assert made.remove
    assert made.predicted_slowdown <= 0.5
    assert all(layer.slowdown <= 1.25 for layer in made.layers)


def test_time_and_flash_together_remove_filters_rather_than_pack_what_is_slow(model, relevance):
    smallest = plan(model, relevance, Budget(), PlanOptions(bits=(4,), packed=True)).predicted_flash_bytes
    made = plan(model, relevance, Budget(round(1.1 * smallest), max_slowdown=1.0))
    assert made.predicted_slowdown <= 1.0
    assert made.predicted_flash_bytes <= 1.1 * smallest
    assert made.remove


def test_a_limit_in_milliseconds_needs_a_measurement(model, relevance):
    with pytest.raises(PlanError, match="milliseconds"):
        plan(model, relevance, Budget(latency="0.5ms"))


def test_work_counts_whole_blocks_of_channels():
    assert Work("conv", [((3, 3, 3, 20), 100)]).amounts((16, 8)) == [1, 100 * 9 * 8 * 32, 2000, 2700, 540]
    assert Work("depthwise", [((3, 3, 8, 2), 10)]).amounts((1, 1))[:3] == [1, 10 * 9 * 16, 160]
    assert Work("dense", [((30, 7), 1), ((30, 7), 1)]).amounts((1, 1)) == [2, 420, 14, 60, 420]
    assert Work("conv_transpose", [((2, 2, 4, 6), 5)]).amounts((1, 1))[:2] == [1, 5 * 4 * 24]


def test_removed_channels_take_no_time(model):
    times = Times(model)
    shapes = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers if layer.weights}
    assert times({}, shapes) == pytest.approx(times.plain())
    shapes["late"], shapes["hidden"] = [(3, 3, 48, 16), (16,)], [(400, 64), (64,)]
    assert times({}, shapes) < times.plain()


def test_dense_layers_are_looked_up_only_where_no_other_way_is_left():
    model, looked_up = dense_net(128), 0
    relevance = magnitude(model)
    full = plan(model, relevance, Budget(), FOUR)
    for share, written, filters in itertools.product((0.5, 1.0), (0.4, 0.55, 0.7), (False, True)):
        limits = Budget(round(share * full.predicted_flash_bytes), round(written * full.predicted_download_bytes))
        made = plan(model, relevance, limits, PlanOptions(bits=(2, 3, 4, 5, 6, 8), filters=filters))
        table = [one.key for one in made.layers if "looked up" in one.reason]
        looked_up += len(table)
        if filters or share == 1.0:  # filters can go; packed, all kernels fit
            assert made.predicted_flash_bytes <= limits.flash_bytes
            assert not table, made
    assert looked_up


def test_the_same_is_measured_on_processors_of_both_kinds(kind_of_processor, monkeypatch):
    here = measured_table()
    monkeypatch.setattr(processor, "adds_int8_products", lambda: not kind_of_processor)
    there = measured_table()
    assert len(here.costs.keys() & there.costs.keys()) >= 17
    assert here.costs != there.costs


def test_packed_convolutions_cost_more_where_int8_is_fast(kind_of_processor):
    work = Work("conv", [((3, 3, 32, 32), 256)])
    assert (microseconds(work, "int4") / microseconds(work, "int8") > 3.0) is kind_of_processor


def test_what_fast_kernels_leave_over_is_chosen_for_flash_alone(kind_of_processor):
    inputs = keras.Input((28, 28, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, activation="relu", name="stem")(inputs))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x))
    accounts = Accounts(model, "int8")
    faster = accounts.time("stem", "int4") < accounts.time("stem", "int8")
    assert faster is not kind_of_processor, "its one channel fills an eighth of what AVX2 kernels take"
    assert accounts.counted_time("stem", "int4") >= 1.5 * accounts.time("stem", "int8")
    assert plan(model, magnitude(model), Budget(), FOUR)["stem"].storage == "int8"
    packed = plan(model, magnitude(model), Budget(), PlanOptions(bits=(4,), packed=True)).predicted_flash_bytes
    made = plan(model, magnitude(model), Budget(packed), PlanOptions(bits=(4,), filters=False))
    assert made["stem"].storage == "int4"
    assert "packed for flash" in made["stem"].reason
