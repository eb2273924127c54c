"""Weight sharing: the few int8 levels that represent a kernel with the least importance-weighted error, exactly."""

from __future__ import annotations

from typing import Optional

import numpy as np

LIMIT = 127
"""Levels lie within +-127: what int8 weights of TFLite may hold."""
SILENT = 0.05
"""Importance of a weight without relevance, as a share of the mean: calibration data cannot have seen everything."""


def importance(relevance: np.ndarray) -> np.ndarray:
    """Returns how much an error of each weight matters: its relevance, in units of the kernel's mean, never quite zero.

    Args:
        relevance: Mean absolute relevance of every weight (Sabih et al. 2020, arXiv 2008.09072, section III).
    """
    score = np.abs(relevance).astype(np.float64)
    mean = float(score.mean())
    return np.ones_like(score) if mean == 0.0 else (1.0 - SILENT) * score / mean + SILENT


def level_scale(kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Returns the step of the int8 levels that a codebook is chosen from: the largest weight is level 127.

    Args:
        kernel: The weights.
        axes: Channel axes that get a step each; () for one step per tensor.

    Returns:
        Positive scales, float32, broadcastable to `kernel`.
    """
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    largest = np.abs(kernel).max(axis=others, keepdims=True).astype(np.float64)
    alive = largest[largest > 0]
    return (np.where(largest > 0, largest, alive.mean() if alive.size else 1.0) / LIMIT).astype(np.float32)


def choose_levels(values: np.ndarray, weights: Optional[np.ndarray], count: int, limit: int = LIMIT) -> np.ndarray:
    """Returns the `count` levels that minimise ``sum_i weights_i * (values_i - nearest level)^2``, 0 always among them.

    Weighted k-means in one dimension whose centroids are levels of int8: with so few places for a centroid the optimum can be
    found by dynamic programming over pairs of neighbouring levels, whatever the number of weights, and nothing is lost by
    rounding centroids afterwards. (Continuous counterpart: Wang & Song 2011, Ckmeans.1d.dp, R Journal 3/2.)

    Args:
        values: Weights in steps, so that level k stands for the value k.
        weights: Importance of each value, >= 0, of the same shape; None weighs all alike.
        count: Number of levels, at least 1. Fewer are returned where fewer are as good.
        limit: Largest level.

    Returns:
        Ascending int8 levels.
    """
    inner, left, right = _errors(np.asarray(values, np.float64).ravel(), weights, limit)
    size = 2 * limit + 1
    least = np.full((count, size), np.inf)
    before = np.zeros((count, size), np.int64)
    least[0] = left
    for used in range(1, count):
        through = least[used - 1][:, None] + inner
        before[used] = through.argmin(axis=0)
        least[used] = through.min(axis=0)
    total = least + right
    total[:, :limit] = np.inf  # the last level is 0 or right of it, and no pair skips 0: so 0 is always a member
    last, place = np.unravel_index(int(np.argmin(total)), total.shape)
    levels = [int(place)]
    for step in range(int(last), 0, -1):
        levels.append(int(before[step][levels[-1]]))
    return (np.array(levels[::-1]) - limit).astype(np.int8)


def _errors(values: np.ndarray, weights: Optional[np.ndarray], limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the error of values between neighbouring levels a < b, left of the first level, and right of the last.

    Every value goes to the nearer of the two; pairs that skip 0, and first levels right of it, are infinitely bad.
    """
    levels = np.arange(-limit, limit + 1, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    x = values[order]
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64).ravel()[order]
    moments = [np.concatenate([[0.0], np.cumsum(w * x**power)]) for power in range(3)]

    def error(start: np.ndarray, end: np.ndarray, level: np.ndarray) -> np.ndarray:
        zeroth, first, second = (sums[end] - sums[start] for sums in moments)
        return np.maximum(second - 2.0 * level * first + level**2 * zeroth, 0.0)

    at = np.searchsorted(x, levels)
    a, b = levels[:, None], levels[None, :]
    middle = np.searchsorted(x, (a + b) / 2)
    inner = error(at[:, None], middle, a) + error(middle, at[None, :], b)
    inner[(a >= b) | ((a < 0) & (b > 0))] = np.inf
    left = error(np.zeros_like(at), at, levels)
    left[levels > 0] = np.inf
    right = error(at, np.full_like(at, len(x)), levels)
    return inner, left, right
