"""How large a rounding error is, in several senses; `sensitivity` says what it does to the model."""

from __future__ import annotations

import numpy as np

TIE_BREAKER = 1e-3
"""Weight of the plain relative error: it decides where relevance is silent (e.g. behind units that never fire)."""


def rounding_damage(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns the relevance-weighted squared relative error ``sum A^2 ((q - w) / w)^2``.

    A weight's relevance is its share of the output, w * d(output)/dw along the attribution rule, so a relative error e of
    the weight moves the output by A * e; independent errors add up in squares.

    Args:
        kernel: The weights w.
        rounded: The weights on the grid, q; same shape.
        relevance: Mean absolute relevance A of every weight; same shape.
    """
    live = kernel != 0
    w, a = kernel[live].astype(np.float64), relevance[live].astype(np.float64)
    error = rounded[live].astype(np.float64) - w
    plain = np.square(error).sum() / max(np.square(w).sum(), 1e-30)
    return float((np.square(a) * np.square(error / w)).sum() + TIE_BREAKER * np.square(a).sum() * plain)


def squared_error(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns ``sum (q - w)^2``; relevance is not used."""
    return float(np.square(rounded.astype(np.float64) - kernel).sum())


def relative_error(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns ``sum (q - w)^2 / sum w^2``, the inverse of the signal-to-noise ratio; relevance is not used."""
    return squared_error(kernel, rounded, relevance) / max(float(np.square(kernel.astype(np.float64)).sum()), 1e-30)


def score_weighted_error(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns the mean relevance of the weights that are not zero, times their relative squared error."""
    live = kernel != 0
    return float(relevance[live].mean()) * relative_error(kernel, rounded, relevance) if live.any() else 0.0
