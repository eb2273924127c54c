"""Bits and zeros are chosen together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.planning import Budget, plan
from keras_xaic.planning.allocation import Limits
from keras_xaic.planning.candidates import SPARSITIES, LayerOptions
from keras_xaic.planning.choosing import best_effort, choose
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.sensitivity import SENSITIVITIES, ZERO_COST, Damage
from keras_xaic.relevance import attribute
from keras_xaic.relevance.magnitude import magnitude

BITS = (2, 4, 8)


@pytest.fixture(scope="module")
def options():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((40,)), layers.Dense(50, "relu", name="a"), layers.Dense(4, "softmax", name="b")])
    x = np.random.default_rng(0).normal(size=(64, 40)).astype(np.float32)
    return LayerOptions(model, attribute(model, x, target="predicted").weights, PlanOptions(BITS))


RELEVANCE = Damage(SENSITIVITIES["relevance"])


@pytest.mark.parametrize("share", [0.2, 0.35, 0.6])
def test_the_choice_is_the_best_of_all_combinations(options, share):
    full = choose(options, RELEVANCE, Limits())
    limit = options.accounts.download_bytes([]) + round(share * sum(layer.download_bytes for layer in full))
    chosen = choose(options, RELEVANCE, Limits(None, limit))
    assert options.accounts.download_bytes(chosen) <= limit
    best = np.inf
    tables = [options.candidates(RELEVANCE, key, masks) for key, masks in options.levels(0.0).items()]
    assert [len(table) for table in tables] == [len(BITS) * len(SPARSITIES)] * 2
    for pair in itertools.product(*tables):
        if options.accounts.download_bytes(options.layers(dict(zip(options.kernels, pair)))) <= limit:
            best = min(best, sum(one.damage for one in pair))
    taken = [
        min(
            (one for one in table if one.bits == layer.bits and one.sparsity == pytest.approx(layer.sparsity)),
            key=lambda one: one.damage,
        )
        for layer, table in zip(chosen, tables)
    ]
    assert sum(one.damage for one in taken) == pytest.approx(best, rel=1e-4)


def test_without_a_download_limit_there_are_no_zeros(options):
    assert all(layer.sparsity == 0.0 for layer in choose(options, RELEVANCE, Limits(1_400 + options.accounts.fixed)))


def test_zeros_that_are_asked_for_are_the_least(options):
    chosen = choose(options, RELEVANCE, Limits(None, options.accounts.download_bytes([]) + 900), least_sparsity=0.5)
    assert sum(layer.sparsity * layer.weights for layer in chosen) >= 0.49 * sum(layer.weights for layer in chosen)


def test_what_cannot_be_met_is_said(options):
    assert choose(options, RELEVANCE, Limits(None, options.accounts.download_bytes([]) + 50)) is None


def test_a_zero_costs_more_than_the_same_error_by_rounding():
    value, relevance = np.array([1.0, -2.0, 4.0], np.float32), np.array([0.5, 1.0, 2.0], np.float32)
    masked = value * np.array([0, 1, 1])
    damage = Damage(SENSITIVITIES["measured"], {("k", 2): 7.0, ("k", 8): 5.0})
    assert damage.of_zeros("k", value, masked, relevance) == pytest.approx(ZERO_COST * 7.0 * 1.0)
    assert damage.of_zeros("k", value, value, relevance) == 0.0


def test_the_same_bits_everywhere_have_the_fewest_zeros_that_fit(options):
    uniform = Damage(SENSITIVITIES["uniform"])
    assert {layer.bits for layer in choose(options, uniform, Limits())} == {8}
    few = {key: options.candidates(uniform, key, [None])[BITS.index(2)] for key in options.kernels}
    least, whole = sum(one.download_bytes for one in few.values()), options.accounts.download_bytes(options.layers(few))
    assert {layer.bits for layer in choose(options, uniform, Limits(None, whole + 2))} == {2}
    chosen = choose(options, uniform, Limits(None, whole - round(0.2 * least)))
    assert {layer.bits for layer in chosen} == {2}
    assert 0.0 < max(layer.sparsity for layer in chosen) < SPARSITIES[-1]


def test_a_flash_limit_beyond_reach_gives_the_least_flash_and_still_keeps_the_download_limit(options):
    assert choose(options, RELEVANCE, Limits(500)) is None
    free = best_effort(options, RELEVANCE, Limits(500))
    assert {layer.storage for layer in free} == {"int4"}
    assert {layer.bits for layer in free} == {4}  # fewer bits would not make the file smaller
    assert all(layer.sparsity == 0.0 for layer in free)  # nor would zeros
    limit = options.accounts.download_bytes(free) - 300
    both = best_effort(options, RELEVANCE, Limits(500, limit))
    assert options.accounts.flash_bytes(both) == options.accounts.flash_bytes(free)
    assert options.accounts.download_bytes(both) <= limit


@pytest.mark.parametrize("download", [None, 9_000])
def test_where_no_filter_may_go_a_limit_on_flash_alone_brings_kernels_to_three_values(download):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((200,)), layers.Dense(100, "relu"), layers.Dense(4, "softmax")])
    x = np.random.default_rng(0).normal(size=(64, 200)).astype(np.float32)
    options = LayerOptions(model, attribute(model, x, target="predicted").weights, PlanOptions(BITS))
    # INT4 is half of the 20,400 bytes, a table makes it a quarter and 400 bytes
    limits = Limits(options.accounts.flash_bytes(choose(options, RELEVANCE, Limits())) - 12_000, download)
    assert choose(options, RELEVANCE, limits) is None
    chosen = best_effort(options, RELEVANCE, limits)
    assert options.accounts.flash_bytes(chosen) <= limits.flash
    assert download is None or options.accounts.download_bytes(chosen) <= download
    assert [layer.bits for layer in chosen] == [2, 8]


def test_limits_beyond_reach_are_eased_to_the_least_there_is(options):
    least = best_effort(options, RELEVANCE, Limits(500, 10))
    table = [
        min(one.download_bytes for one in options.candidates(RELEVANCE, key, masks) if one.bits == 2)
        for key, masks in options.levels(0.0).items()
    ]
    assert sum(layer.download_bytes for layer in least) == sum(table)
    assert {layer.bits for layer in best_effort(options, RELEVANCE, Limits(None, None, mean_bits=1.0))} == {2}


@pytest.mark.parametrize("step", [250, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("float_layers", [(), ("head",)])
def test_a_little_more_flash_makes_no_plan_with_zeros_that_nobody_asked_for(float_layers, step):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((64,))
    for number, width in enumerate((48, 40, 16, 40, 48)):
        x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
    model = keras.Model(inputs, layers.Dense(64, name="head")(x))
    relevance = magnitude(model)
    options = PlanOptions(bits=(2, 3, 4, 5, 6, 8), float_layers=float_layers, filters=False)
    least = plan(model, relevance, Budget(flash=1_000, download=30_000), options).predicted_flash_bytes
    for limit in range(least, least + 1_000, step):
        made = plan(model, relevance, Budget(flash=limit, download=30_000), options)
        assert made.predicted_flash_bytes <= limit
        assert made.sparsity == 0.0, limit
