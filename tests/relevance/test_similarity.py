from __future__ import annotations

import warnings

import numpy as np
import pytest

from keras_xaic.errors import DataError
from keras_xaic.relevance import Explanations, mean_similarity, rank_similarity
from keras_xaic.relevance.similarity import cosine_similarity, top_overlap


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """1 - 6 sum d^2 / (n (n^2 - 1)) of values without ties (Spearman 1904)."""
    n = a.size
    ranks = [np.argsort(np.argsort(one.ravel())) for one in (a, b)]
    return 1 - 6 * float(np.sum((ranks[0] - ranks[1]) ** 2)) / (n * (n**2 - 1))


def test_it_is_spearmans_formula():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(5, 6, 7, 3))
    second = first + rng.normal(size=first.shape) * np.array([0, 0.1, 1, 3, 10])[:, None, None, None]
    expected = [spearman(a.sum(-1), b.sum(-1)) for a, b in zip(first, second)]
    assert rank_similarity(first, second) == pytest.approx(expected)
    assert expected[0] == 1


def test_only_the_order_counts():
    maps = np.random.default_rng(1).normal(size=(3, 20))
    assert rank_similarity(maps, np.exp(maps)) == pytest.approx([1, 1, 1])
    assert rank_similarity(maps, -5 * maps) == pytest.approx([-1, -1, -1])


def test_the_cosine_weighs_positions_by_their_relevance():
    random = np.random.default_rng(3)
    first = random.normal(size=(4, 5, 6, 2))
    second = first + random.normal(size=first.shape)
    flat = [[one.sum(-1).ravel() for one in maps] for maps in (first, second)]
    expected = [a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)) for a, b in zip(*flat)]
    assert cosine_similarity(first, second) == pytest.approx(expected)
    assert cosine_similarity(first, -3 * first) == pytest.approx([-1] * 4)
    assert np.isnan(cosine_similarity(np.zeros((1, 3)), np.ones((1, 3)))).all()


def test_the_tenth_that_speaks_most_for_the_target_is_counted():
    maps = np.stack([np.arange(20.0), np.arange(20.0), np.ones(20)])
    other = np.stack([np.arange(20.0) ** 3, np.roll(np.arange(20.0), -1), np.arange(20.0)])
    found = top_overlap(maps, other)
    assert found[:2].tolist() == [1.0, 0.5], "2 of 20; the order among them does not count"
    assert np.isnan(found[2])


def test_maps_without_an_order_do_not_count():
    maps = np.stack([np.arange(6.0), np.zeros(6)])
    found = rank_similarity(maps, maps)
    assert found[0] == 1
    assert np.isnan(found[1])
    assert mean_similarity(found) == 1
    assert mean_similarity(found[1:]) is None


def test_explanations_come_back_as_they_went(tmp_path):
    arrays = np.random.default_rng(2).normal(size=(4, 2, 5)).astype(np.float32)
    kept = Explanations(np.array([4, 7]), *arrays)
    kept.save(tmp_path / "explanations.npz")
    back = Explanations.load(tmp_path / "explanations.npz")
    assert len(back) == 2
    for name in ("index", "inputs", "original", "compressed", "answered"):
        np.testing.assert_array_equal(getattr(back, name), getattr(kept, name))
    (tmp_path / "explanations.npz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"explanations\.npz cannot be read"):
        Explanations.load(tmp_path / "explanations.npz")


def test_ranks_are_those_of_scipy():
    from scipy import stats

    random = np.random.default_rng(5)
    first, second = random.normal(size=(2, 6, 40)).astype(np.float32)
    first[1], second[1] = np.round(first[1]), np.round(second[1])  # many are equal
    first[2], second[3] = np.maximum(first[2], 0), 1.0
    first[4, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants
        expected = [stats.spearmanr(a, b)[0] for a, b in zip(first, second)]
    assert np.isnan(expected).tolist() == [False, False, False, True, True, False]
    np.testing.assert_allclose(rank_similarity(first, second), expected, atol=1e-12)
