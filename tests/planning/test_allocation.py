from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_xaic.planning.allocation import Candidate, allocate
from keras_xaic.planning.damage import rounding_damage
from keras_xaic.planning.sparsity import LEAST_KEPT, kept_weights, weight_score


def best_by_trying_everything(candidates, flash, download):
    best, least = None, np.inf
    for choice in itertools.product(*candidates.values()):
        fits = (flash is None or sum(c.flash_bytes for c in choice) <= flash) and (
            download is None or sum(c.download_bytes for c in choice) <= download
        )
        damage = sum(c.damage for c in choice)
        if fits and damage < least:
            best, least = choice, damage
    return best, least


@pytest.mark.parametrize("seed", range(8))
def test_allocation_is_as_good_as_trying_everything(seed):
    rng = np.random.default_rng(seed)
    candidates = {}
    for layer in range(5):
        size = int(rng.integers(50, 2000))
        candidates[f"l{layer}"] = [
            Candidate(bits, float(rng.random() * 4.0**-bits), size * (4 if bits <= 4 else 8) // 8, int(size * bits * 0.9) // 8)
            for bits in (2, 3, 4, 6, 8)
        ]
    most = sum(options[-1].flash_bytes for options in candidates.values())
    for flash, download in [(most * 0.7, None), (None, most * 0.4), (most * 0.8, most * 0.5), (None, None)]:
        found = allocate(candidates, flash, download)
        expected, least = best_by_trying_everything(candidates, flash, download)
        assert (found is None) == (expected is None)
        if found is not None:
            assert sum(c.damage for c in found.values()) == pytest.approx(least, rel=1e-6)


def test_an_impossible_budget_has_no_answer():
    assert allocate({"a": [Candidate(4, 1.0, 100, 90)]}, 99, None) is None


def test_damage_by_hand():
    kernel, rounded, relevance = np.array([1.0, -2.0, 0.0]), np.array([1.1, -2.0, 0.0]), np.array([3.0, 1.0, 5.0])
    plain = 0.01 / 5.0  # squared error over squared weights
    assert rounding_damage(kernel, rounded, relevance) == pytest.approx(9 * 0.01 + 1e-3 * 10.0 * plain, rel=1e-6)


def test_score_is_the_geometric_mean_of_normalised_relevance_and_magnitude():
    kernel, relevance = np.array([[3.0, -4.0]]), np.array([[0.0, 2.0]])
    np.testing.assert_allclose(weight_score(kernel, relevance), [[0.0, np.sqrt(0.8 * 1.0)]])
    np.testing.assert_allclose(weight_score(kernel, np.zeros_like(kernel)), [[0.6, 0.8]])


def test_one_ranking_over_all_kernels_with_a_floor():
    rng = np.random.default_rng(0)
    scores = {"strong": 10 + rng.random((100, 10)), "weak": rng.random((50, 10))}
    masks = kept_weights(scores, 0.25)
    assert masks["strong"].all()
    assert masks["weak"].mean() == pytest.approx(0.25, abs=0.01)
    emptied = kept_weights(scores, 0.6)["weak"]
    assert emptied.sum() == max(LEAST_KEPT * 500, 10)
    assert scores["weak"][emptied].min() >= np.sort(scores["weak"].ravel())[-10]
