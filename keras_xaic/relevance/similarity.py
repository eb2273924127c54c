"""Did the reasons change? Yardsticks for the relevance maps of two models."""

from __future__ import annotations

import math
from typing import Optional

import numpy as np

from keras_xaic.arguments import checked
from keras_xaic.data import real_numbers
from keras_xaic.errors import DataError


def as_maps(relevance: np.ndarray) -> np.ndarray:
    """Returns one relevance per position: images and sequences are summed over their channels, other inputs stay as they are.

    Args:
        relevance: (N, ...) relevance of input values.
    """
    return relevance.sum(-1) if relevance.ndim > 2 else relevance


@checked(first=real_numbers, second=real_numbers)
def rank_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns Spearman's rank correlation of two sets of relevance maps, sample by sample.

    With r and s the ranks (mean ranks for ties) of the positions of a sample's two maps,
    ``rho = cov(r, s) / (std(r) std(s))`` (Spearman 1904; used for relevance maps by Adebayo et al. 2018, arXiv 1810.03292).
    1: the same order of importance, 0: no relation, -1: reversed. Ranks do not depend on how much relevance starts, only on
    where it goes.

    Args:
        first: (N, ...) relevance of input values of one model.
        second: The same of another, for the same samples and targets.

    Returns:
        (N,) float64; NaN where a map is constant, as that has no order.
    """
    a, b = _flat(first, second)
    return np.array([_correlation(_ranks(x), _ranks(y)) for x, y in zip(a, b)], np.float64)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each value, the mean rank where several are equal; NaN everywhere where one is NaN."""
    if np.isnan(values).any():
        return np.full(values.shape, np.nan)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    lengths = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / lengths if lengths > 0 else math.nan


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosine of two sets of relevance maps, sample by sample: of the angle between them, whatever their lengths.

    Unlike ranks it weighs positions by their relevance: what little there is elsewhere hardly counts.

    >>> cosine_similarity(np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[6.0, 8.0], [0.0, 1.0]])).tolist()
    [1.0, 0.0]

    Args:
        first: (N, ...) relevance of input values of one model.
        second: The same of another, for the same samples and targets.

    Returns:
        (N,) float64; NaN where a map is zero.
    """
    a, b = _flat(first, second)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    inner = np.einsum("np,np->n", a, b)
    return np.clip(np.divide(inner, lengths, out=np.full(len(a), np.nan), where=lengths > 0), -1.0, 1.0)


def top_overlap(first: np.ndarray, second: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Returns how many of the positions that speak most for the target in one model do so in another, as a share.

    >>> top_overlap(np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([[3.0, 0.0, 1.0, 2.0]]), 0.5).tolist()
    [0.5]

    Args:
        first: (N, ...) relevance of input values of one model.
        second: The same of another, for the same samples and targets.
        share: Share of the positions that is looked at, rounded up.

    Returns:
        (N,) float64; NaN where a map is constant. By chance it is `share`.
    """
    a, b = _flat(first, second)
    count = max(1, math.ceil(share * a.shape[1] - 1e-9))
    most = [np.argsort(-one, axis=1, kind="stable")[:, :count] for one in (a, b)]
    both = np.array([np.intersect1d(x, y).size for x, y in zip(*most)], np.float64) / count
    constant = [one.max(axis=1, initial=-np.inf) == one.min(axis=1, initial=np.inf) for one in (a, b)]
    both[constant[0] | constant[1]] = np.nan
    return both


def _flat(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim < 1:
        raise DataError(f"relevance maps of shapes {first.shape} and {second.shape}", "two of one shape, (N, ...)")
    a, b = (as_maps(one) for one in (first, second))
    flat = (len(a), math.prod(a.shape[1:]))  # there may be no samples
    return a.reshape(flat).astype(np.float64), b.reshape(flat).astype(np.float64)


@checked(similarity=real_numbers)
def mean_similarity(similarity: np.ndarray) -> Optional[float]:
    """Returns the mean over samples that have one; None where none has."""
    known = similarity[np.isfinite(similarity)]
    return float(known.mean()) if known.size else None
