from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import layers, tf
from keras_xaic.grids import fit_scale
from keras_xaic.quantization.entropy import (
    Prices,
    information,
    price_by_weight,
    price_for_sparsity,
    relevance_exponent,
    settle,
)
from keras_xaic.quantization.entropy_quantizers import EntropyQuantizer, RelevanceEntropyQuantizer


class Host(layers.Layer):
    """Holds a quantizer's variables."""


def cheapest(x, levels, cost, zero_factor=None):
    """The definition, one weight and one level at a time."""
    found = []
    for i, one in enumerate(x):
        total = [(one - k) ** 2 + c for k, c in zip(levels, cost)]
        if zero_factor is not None:
            total[list(levels).index(0)] *= zero_factor[i]
        found.append(levels[int(np.argmin(total))])
    return np.array(found)


def built(quantizer, kernel):
    quantizer.build(tf.TensorShape(kernel.shape), "kernel", Host())
    return quantizer


def weights(seed=0, shape=(40, 30)):
    return np.random.default_rng(seed).laplace(0, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("limit", [1, 3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_assign_as_the_definition_does(limit, seed):
    rng = np.random.default_rng(seed)
    levels = np.arange(-limit, limit + 1)
    prices = Prices(levels, rng.exponential(2.0, len(levels)))  # some levels are so dear that nobody takes them
    x = rng.normal(0, limit, 400)
    expected = cheapest(x, levels, prices.cost)
    np.testing.assert_array_equal(prices.assign(x), expected)
    np.testing.assert_array_equal(prices.count(np.sort(x)), [(expected == k).sum() for k in levels])
    assert np.all(np.diff(prices.thresholds) >= 0)


def test_information_is_shannons_with_one_more_weight_on_every_level():
    counts = np.array([1, 5, 0])
    np.testing.assert_allclose(2.0 ** -information(counts), [2 / 9, 6 / 9, 1 / 9])


def test_the_assignment_has_the_least_cost_of_all_at_its_own_prices():
    """All 3^8 assignments of eight weights, the cost of each by the definition."""
    x = np.random.default_rng(3).normal(0, 0.9, 8)
    prices = settle(x, 1, price_by_weight(0.3))
    chosen = prices.assign(x)

    def cost(assignment):
        return sum((a - b) ** 2 + prices.cost[int(b) + 1] for a, b in zip(x, assignment))

    every = np.stack(np.meshgrid(*[[-1, 0, 1]] * 8), axis=-1).reshape(-1, 8)
    assert cost(chosen) <= min(cost(one) for one in every) + 1e-9


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_dearer_bits_mean_less_entropy_and_the_full_price_empties_the_layer(bits):
    kernel = weights()
    x, limit = kernel / fit_scale(kernel, bits, ()), 2 ** (bits - 1) - 1
    entropies = []
    for share in (0.0, 0.02, 0.05, 0.1, 0.2):
        counts = settle(x, limit, price_by_weight(share)).count(np.sort(x.ravel()))
        p = counts[counts > 0] / counts.sum()
        entropies.append(-(p * np.log2(p)).sum())
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[-1] < 0.9 * entropies[0]
    nearest = settle(x, limit, price_by_weight(0.0)).assign(x)
    np.testing.assert_array_equal(nearest, np.clip(np.floor(x + 0.5), -limit, limit))


@pytest.mark.parametrize("bits", [2, 4, 5])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_a_wanted_sparsity_is_met(bits, sparsity):
    kernel = weights(1, (100, 80))
    for factor in (1.0, 0.4):  # 0.4: a grid on which nearest levels are far from that sparse
        x = kernel / fit_scale(kernel, bits, ()) / factor
        assigned = settle(x, 2 ** (bits - 1) - 1, price_for_sparsity(sparsity)).assign(x)
        reached = float(np.mean(assigned == 0))
        assert reached >= sparsity - 1e-3
        if np.mean(np.abs(x) < 0.5) < sparsity:
            assert reached == pytest.approx(sparsity, abs=2e-3)


@pytest.mark.parametrize("band", [0.0, 0.1])
def test_the_exponent_brings_sparsity_into_the_band(band):
    kernel = weights(2, (60, 50))
    x = kernel / fit_scale(kernel, 4, ())
    log_relevance = np.log(np.random.default_rng(4).beta(0.5, 8, kernel.shape).clip(1e-12, 1))
    prices = settle(x, 7, price_by_weight(0.1))
    plain = np.mean(prices.assign(x) == 0)
    for first in (0.0, 0.1, 1.0):
        beta = relevance_exponent(x, prices, log_relevance, plain - band, plain, first)
        factor = 2.0 * np.exp(beta * log_relevance).ravel()
        reached = np.mean(cheapest(x.ravel(), prices.levels, prices.cost, factor) == 0)
        assert plain - band - 1e-3 <= reached <= plain + 1e-3


@pytest.mark.parametrize("axes", [(), (1,)])
def test_the_quantizer_assigns_as_the_definition_does(axes):
    kernel, scale = weights(), fit_scale(weights(), 3, axes)
    relevance = np.random.default_rng(1).exponential(size=kernel.shape) ** 3
    quantizer = built(RelevanceEntropyQuantizer(3, scale, price_by_weight(0.05)), kernel)
    quantizer.refresh(kernel, relevance)
    x = np.asarray(kernel, np.float64) / scale
    prices = settle(x, 3, price_by_weight(0.05))
    share = relevance / relevance.max()
    factor = 2.0 * share ** float(quantizer.variables["exponent"])
    expected = cheapest(x.ravel(), prices.levels, prices.cost, factor.ravel()).reshape(kernel.shape)
    frozen = quantizer.freeze(kernel)
    assert np.mean(frozen.integers != expected) < 1e-3  # float32 decides ties otherwise
    np.testing.assert_array_equal(quantizer(tf.constant(kernel), True, quantizer.variables), frozen.values)


def test_ecqx_is_as_sparse_as_ecq_within_its_band_and_keeps_more_relevance():
    kernel = weights(5, (80, 60))
    relevance = np.random.default_rng(6).exponential(size=kernel.shape) * np.abs(kernel)
    scale = fit_scale(kernel, 4, ())
    plain = built(EntropyQuantizer(4, scale, price_by_weight(0.1)), kernel)
    plain.refresh(kernel)
    equal = built(RelevanceEntropyQuantizer(4, scale, price_by_weight(0.1), band=0.0), kernel)
    equal.refresh(kernel, relevance)
    wide = built(RelevanceEntropyQuantizer(4, scale, price_by_weight(0.1)), kernel)
    wide.refresh(kernel, relevance)
    ecq, ecqx, published = (one.freeze(kernel) for one in (plain, equal, wide))
    assert ecqx.sparsity == pytest.approx(ecq.sparsity, abs=1e-3)
    assert ecq.sparsity - 0.101 <= published.sparsity <= ecq.sparsity + 1e-3
    assert relevance[ecqx.integers != 0].sum() > 1.02 * relevance[ecq.integers != 0].sum()


def test_without_relevance_ecqx_is_ecq():
    kernel, scale = weights(7), fit_scale(weights(7), 4, ())
    pair = [built(kind(4, scale, price_by_weight(0.05)), kernel) for kind in (EntropyQuantizer, RelevanceEntropyQuantizer)]
    for one in pair:
        one.refresh(kernel, np.zeros_like(kernel))
    np.testing.assert_array_equal(pair[0].freeze(kernel).integers, pair[1].freeze(kernel).integers)


def test_relevance_is_mixed_with_momentum():
    kernel = weights(8)
    quantizer = built(RelevanceEntropyQuantizer(4, fit_scale(kernel, 4, ()), price_by_weight(0.05)), kernel)
    first, second = np.random.default_rng(9).random((2, *kernel.shape)) + 0.01
    quantizer.refresh(kernel, first)
    quantizer.refresh(kernel, second)
    expected = 0.9 * second / second.max() + 0.1 * first / first.max()
    np.testing.assert_allclose(np.exp(quantizer.variables["log_relevance"].numpy()), expected, rtol=1e-4)


def test_gradients_are_those_of_fixed_members():
    """With members fixed the result is k * s, and straight through it moves with the weight: both differences are smooth."""
    kernel, scale = weights(10, (12, 5)), fit_scale(weights(10, (12, 5)), 4, (1,))
    quantizer = built(EntropyQuantizer(4, scale, price_by_weight(0.05)), kernel)
    quantizer.refresh(kernel)
    seed = np.random.default_rng(11).normal(size=kernel.shape)
    w = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantizer(w, True, quantizer.variables) * tf.constant(seed, tf.float32))
    by_weight, by_step = tape.gradient(loss, [w, quantizer.variables["log_step"]])
    levels, h = quantizer.freeze(kernel).integers.astype(np.float64), 1e-5

    def surrogate(w, log_step):
        return float(((levels * scale * np.exp(log_step) + (w - kernel)) * seed).sum())

    zero = np.zeros(scale.shape)
    for place in ((0, 0), (3, 2), (11, 4)):
        moved = np.zeros(kernel.shape)
        moved[place] = h
        difference = (surrogate(kernel + moved, zero) - surrogate(kernel - moved, zero)) / (2 * h)
        assert by_weight.numpy()[place] == pytest.approx(difference, rel=1e-3)
    for channel in range(5):
        moved = zero.copy()
        moved[0, channel] = h
        difference = (surrogate(kernel, moved) - surrogate(kernel, -moved)) / (2 * h)
        assert by_step.numpy()[0, channel] == pytest.approx(difference, rel=1e-3, abs=1e-5)


def test_two_bits_start_with_weights_on_all_three_levels():
    kernel = weights(12, (200, 50))
    quantizer = built(EntropyQuantizer(2, fit_scale(kernel, 2, ()), price_by_weight(0.05)), kernel)
    quantizer.refresh(kernel)
    assert np.all(np.diff(np.unique(quantizer.freeze(kernel).integers)) == 1)
    assert 0.3 < quantizer.freeze(kernel).sparsity < 0.9


@pytest.mark.parametrize("weight", [0.02, 0.05, 0.2])
def test_zero_is_not_drained_by_the_level_that_leads_at_first(weight):
    x = np.random.default_rng(0).normal(1.0, 4.0, 5000)  # most weights are nearest to a level beside zero
    nearest = np.mean(np.rint(x) == 0)
    shares = [np.mean(settle(x, 15, price_by_weight(w)).assign(x) == 0) for w in (weight, 2 * weight)]
    assert nearest < shares[0] < shares[1]
