"""What a model puts out when an order of relevance is followed, without training: filters go, weights go, or bits do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_xaic.data import Samples
from keras_xaic.models import group_scores, remove_channels, weighted_kernels
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.statistics import remeasure_batchnorm
from keras_xaic.planning import PlanOptions, kept_weights, weight_score
from keras_xaic.planning.allocation import Candidate, Limits, allocate
from keras_xaic.planning.candidates import LayerOptions
from keras_xaic.planning.filter_ranking import choose_filters
from keras_xaic.planning.plan import Score
from keras_xaic.planning.sensitivity import rounding_damage
from keras_xaic.relevance import Relevance
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model

BITS = (2, 3, 4, 5, 6, 8)
"""Bits that a kernel may get."""


def without_filters(
    model: Model, groups: Any, reference: Samples, judging: Samples, relevance: Relevance
) -> Callable[[float], Any]:
    """Returns share of the filters -> outputs without those that matter least, with BatchNorm statistics measured again."""
    scores = group_scores(groups, relevance.filters, norm="l2")

    def outputs(share: float) -> Any:
        keep = choose_filters(groups, scores, fraction=share, min_filters=1)
        small = remove_channels(model, keep, groups)
        remeasure_batchnorm(small, reference)
        return predict(small, judging)

    return outputs


def without_weights(
    model: Model, kernels: Sequence[Any], score: Score, judging: Samples, relevance: Relevance
) -> Callable[[float], Any]:
    """Returns share of the weights -> outputs without those that matter least."""
    values = {one.key: one.value for one in kernels}
    scores = {key: weight_score(value, relevance.weights[key], score) for key, value in values.items()}

    def outputs(share: float) -> Any:
        masks = kept_weights(scores, share)
        return _with_values(model, kernels, {key: value * masks[key] for key, value in values.items()}, judging)

    return outputs


class Rounding:
    """A model whose kernels can be rounded, each to bits of its own."""

    def __init__(self, model: Model, judging: Samples) -> None:
        self.model, self.judging = canonicalize(model).model, judging
        self.kernels = weighted_kernels(self.model)
        self.values = {one.key: one.value for one in self.kernels}
        self.known: dict[tuple[int, ...], Any] = {}

    @functools.cached_property
    def rounded(self) -> Mapping[tuple[str, int], np.ndarray]:
        """Kernel and bits -> its weights on the grid; the same whatever the relevance."""
        alike = {key: np.ones_like(value) for key, value in self.values.items()}
        return LayerOptions(self.model, alike, PlanOptions(bits=BITS)).rounding(None).rounded

    def along(self, relevance: Relevance) -> Callable[[float], Any]:
        """Returns mean bits -> outputs with the bits that relevance gives every kernel."""
        scores = {key: np.abs(relevance.weights[key]) for key in self.values}
        damage = {
            (key, bits): rounding_damage(self.values[key], value, scores[key]) for (key, bits), value in self.rounded.items()
        }

        def outputs(mean_bits: float) -> Any:
            offered = {
                key: [Candidate(bits, damage[key, bits], 0, 0, weights=value.size) for bits in BITS]
                for key, value in self.values.items()
            }
            chosen = allocate(offered, Limits(mean_bits=mean_bits))
            bits = {key: min(BITS) for key in offered} if chosen is None else {key: one.bits for key, one in chosen.items()}
            kept = tuple(bits.values())
            if kept not in self.known:
                values = {key: self.rounded[key, count] for key, count in bits.items()}
                self.known[kept] = _with_values(self.model, self.kernels, values, self.judging)
            return self.known[kept]

        return outputs


def _with_values(model: Model, kernels: Sequence[Any], values: Mapping[str, np.ndarray], samples: Samples) -> Any:
    """Returns the outputs of a model with other weights, and puts its own back."""
    before = [one.variable.numpy() for one in kernels]
    try:
        for one in kernels:
            one.variable.assign(values[one.key])
        return predict(model, samples)
    finally:
        for one, value in zip(kernels, before):
            one.variable.assign(value)
