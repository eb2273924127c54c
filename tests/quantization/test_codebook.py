from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans

from keras_xaic.quantization.codebook import choose_levels, importance, level_scale


def error_of(levels, values, weights):
    return float((weights * np.square(values[:, None] - np.asarray(levels, float)).min(axis=1)).sum())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_levels_are_the_best_of_all_subsets(seed, count):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(0, 2.5, 30), rng.exponential(size=30) ** 2
    chosen = choose_levels(values, weights, count, limit=5)
    others = [level for level in range(-5, 6) if level]
    best = min(error_of((0, *rest), values, weights) for rest in itertools.combinations(others, count - 1))
    assert 0 in chosen
    assert len(chosen) <= count
    assert error_of(chosen, values, weights) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_as_good_as_the_best_partition_but_for_the_grid_of_int8(seed):
    """Every split of the sorted values into four runs, one of them at zero, the others at their weighted means."""
    rng = np.random.default_rng(seed)
    values, weights = np.sort(rng.uniform(-120, 120, 9)), rng.exponential(size=9)
    best = np.inf
    for cuts in itertools.combinations_with_replacement(range(10), 3):
        ends = (0, *cuts, 9)
        runs = [slice(start, end) for start, end in zip(ends, ends[1:])]
        for zero in runs:
            error = 0.0
            for run in runs:
                if run.stop > run.start:
                    centroid = 0.0 if run is zero else np.average(values[run], weights=weights[run])
                    error += float((weights[run] * np.square(values[run] - centroid)).sum())
            best = min(best, error)
    reached = error_of(choose_levels(values, weights, 4), values, weights)
    assert best - 1e-9 <= reached <= best + weights.sum() * 0.25  # rounding a mean by half a level costs a quarter at most


def test_it_is_at_least_as_good_as_scikit_learn_with_rounded_centroids():
    rng = np.random.default_rng(1)
    values, weights = rng.laplace(0, 25, 5000).clip(-127, 127), rng.exponential(size=5000) ** 2
    fitted = KMeans(15, n_init=3, random_state=0).fit(values[:, None], sample_weight=weights)
    rounded = np.unique(np.append(np.round(fitted.cluster_centers_.ravel()), 0))
    chosen = choose_levels(values, weights, 16)
    assert error_of(chosen, values, weights) <= error_of(rounded, values, weights)


def test_relevant_weights_lie_closer_to_their_levels():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(-60, 20, 3000), rng.normal(60, 20, 100)])
    relevance = np.concatenate([np.full(3000, 0.01), np.full(100, 1.0)])

    def relevant_error(levels):
        return np.abs(values[3000:, None] - levels.astype(float)).min(axis=1).mean()

    weighted, plain = choose_levels(values, importance(relevance), 6), choose_levels(values, None, 6)
    assert relevant_error(weighted) < 0.7 * relevant_error(plain)


def test_importance_is_relative_and_leaves_no_weight_out():
    score = importance(np.array([0.0, 1.0, 3.0]))
    assert score.mean() == pytest.approx(1.0)
    assert score[0] > 0
    np.testing.assert_array_equal(importance(np.zeros(3)), np.ones(3))


def test_the_largest_weight_is_level_127_and_dead_channels_get_an_ordinary_step():
    kernel = np.array([[1.0, 0.0], [-2.0, 0.0]], np.float32)
    np.testing.assert_allclose(level_scale(kernel, (1,)), [[2 / 127, 2 / 127]])
    np.testing.assert_allclose(level_scale(kernel, ()), [[2 / 127]])
