from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.errors import DataError
from keras_xaic.relevance import Explanations, mean_similarity, rank_similarity


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
