"""How many weights of each kernel go: one ranking over the whole model, with a floor in every kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_xaic.planning.plan import Score

LEAST_KEPT = 0.005
"""No kernel keeps less than this fraction of its weights: an emptied layer cuts the network in two."""

EXPONENTS: dict[Score, float] = {"magnitude": 0.0, "relevance": 1.0, "geometric_mean": 0.5, "signed_relevance": 1.0}
"""Score -> exponent e of relevance in ``|w|^(1-e) A^e``."""


def combine(magnitude: Any, relevance: Any, score: Score) -> Any:
    """Returns the score of weights, ``m^(1-e) A^e``, for arrays and tensors alike; relevance alone keeps its sign.

    Args:
        magnitude: ``|w| / ||w||_2``.
        relevance: ``A / ||A||_2``.
        score: What ranks weights (see `EXPONENTS`).
    """
    exponent = EXPONENTS[score]
    if exponent in (0.0, 1.0):
        return relevance if exponent else magnitude
    return magnitude ** (1.0 - exponent) * relevance**exponent


def weight_score(kernel: np.ndarray, relevance: np.ndarray, score: Score = "geometric_mean") -> np.ndarray:
    """Returns the importance of every weight, comparable between the kernels of a model.

    * ``magnitude``: ``|w| / ||w||_2`` (Lee et al. 2021, arXiv 2010.07611, in its simplest form);
    * ``relevance``: ``A / ||A||_2`` with A = |relevance|;
    * ``geometric_mean``: ``sqrt(A / ||A||_2 * |w| / ||w||_2)``;
    * ``signed_relevance``: relevance with its sign, for recipes that prune what speaks against the prediction (Soroush et
      al. 2023, arXiv 2507.05286).

    Args:
        kernel: The weights w.
        relevance: Relevance of every weight, mean over samples; same shape.
        score: Which of these.
    """
    magnitude = np.abs(kernel).astype(np.float64)
    magnitude /= max(float(np.linalg.norm(magnitude)), 1e-30)
    norm = float(np.linalg.norm(relevance))
    if norm == 0.0:  # nothing known about this kernel: magnitude decides
        return np.asarray(magnitude)
    known = np.asarray(relevance, np.float64) / norm
    return np.asarray(combine(magnitude, known if score == "signed_relevance" else np.abs(known), score))


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
