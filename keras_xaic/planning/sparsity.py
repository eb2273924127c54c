"""How many weights of each kernel go: one ranking over the whole model, with a floor in every kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LEAST_KEPT = 0.02
"""No kernel keeps less than this fraction of its weights: an emptied layer cuts the network in two."""


def weight_score(kernel: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Returns the importance of every weight: ``sqrt(A / ||A||_2 * |w| / ||w||_2)``.

    The geometric mean of relevance and magnitude, each L2-normalised over the kernel so that kernels compare (the
    normalisation of magnitude is that of Lee et al. 2021, arXiv 2010.07611, in its simplest form).

    Args:
        kernel: The weights w.
        relevance: Mean absolute relevance A of every weight; same shape.
    """
    magnitude = np.abs(kernel).astype(np.float64)
    magnitude /= max(float(np.linalg.norm(magnitude)), 1e-30)
    norm = float(np.linalg.norm(relevance))
    if norm == 0.0:  # nothing known about this kernel: magnitude decides
        return magnitude
    return np.sqrt(magnitude * np.abs(relevance).astype(np.float64) / norm)


def kept_weights(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Returns which weights stay when a fraction `sparsity` of all weights goes, lowest scores first.

    Args:
        scores: Kernel key -> importance of every weight.
        sparsity: Fraction of zeros over all these kernels, 0 to 1.

    Returns:
        Kernel key -> boolean mask of the kernel's shape.
    """
    if sparsity <= 0:
        return {key: np.ones(score.shape, bool) for key, score in scores.items()}
    everything = np.concatenate([score.ravel() for score in scores.values()])
    threshold = np.quantile(everything, sparsity)
    masks = {}
    for key, score in scores.items():
        least = min(score.size, max(round(LEAST_KEPT * score.size), score.shape[-1]))
        kth = np.partition(score.ravel(), score.size - least)[score.size - least]
        masks[key] = (score > threshold) | (score >= kth)
    return masks
