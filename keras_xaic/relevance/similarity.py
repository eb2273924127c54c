"""Did the reasons change? Rank correlation of the relevance maps of two models."""

from __future__ import annotations

import warnings
from typing import Optional

import numpy as np
from scipy import stats


def as_maps(relevance: np.ndarray) -> np.ndarray:
    """Returns one relevance per position: images and sequences are summed over their channels, other inputs stay as they are.

    Args:
        relevance: (N, ...) relevance of input values.
    """
    return relevance.sum(-1) if relevance.ndim > 2 else relevance


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
    a, b = (as_maps(one).reshape(len(one), -1) for one in (first, second))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant maps give NaN, which is what they shall give
        return np.array([stats.spearmanr(x, y)[0] for x, y in zip(a, b)], np.float64)


def mean_similarity(similarity: np.ndarray) -> Optional[float]:
    """Returns the mean over samples that have one; None where none has."""
    known = similarity[np.isfinite(similarity)]
    return float(known.mean()) if known.size else None
