"""The stage that brings single weights to zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import tensorflow_model_optimization as tfmot

from keras_xaic.compression.context import Context
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.planning import Plan, kept_weights, weight_score
from keras_xaic.pruning import PruneByRelevance, can_prune, prune_by_relevance
from keras_xaic.relevance import Attribution, Relevance, attribute
from keras_xaic.training import Epoch, Schedule

RAMP_SHARE = 0.7
"""Share of the epochs over which sparsity ramps up; the rest is recovery, and only its epochs can be chosen."""


def prune_weights(
    model: Any, plan: Plan, relevance: Optional[Relevance], context: Context, schedule: Schedule
) -> tuple[Any, list[Epoch]]:
    """Returns the model with its planned zeros, and the epochs it took to get them.

    Args:
        model: A flat model; changed in place.
        plan: Names the sparsity of every kernel.
        relevance: What the first masks follow; computed where it is None or not of this model's shapes.
        context: What training needs.
        schedule: How to train; 0 epochs prune in one shot.
    """
    rule = "lrp.epsilon" if relevance is None else relevance.rule
    if relevance is None or any(relevance.weights[kernel.key].shape != kernel.shape for kernel in weighted_kernels(model)):
        relevance = attribute(model, context.calibration, rule=rule, target=context.target)
    sparsity = {layer.key: layer.sparsity for layer in plan.layers if layer.sparsity > 0}
    if schedule.epochs == 0:
        for kernel in weighted_kernels(model):
            if kernel.key in sparsity and can_prune(kernel.layer):
                scores = {kernel.key: weight_score(kernel.value, relevance.weights[kernel.key])}
                kernel.variable.assign(kernel.value * kept_weights(scores, sparsity[kernel.key])[kernel.key])
        return model, []
    end = max(2, round(schedule.steps(len(context.train)) * RAMP_SHARE))
    pruned = prune_by_relevance(model, sparsity, relevance.weights, end)
    refresh = _Refresh(model, context, rule, last=schedule.epochs * RAMP_SHARE)
    update = tfmot.sparsity.keras.UpdatePruningStep()
    history = context.fit(pruned, replace(schedule, select_from=RAMP_SHARE), "prune", [update], refresh)
    _copy_weights(pruned, model)
    return model, history


class _Refresh:
    """Attributes anew after an epoch, while masks still change."""

    def __init__(self, plain: Any, context: Context, rule: str, last: float) -> None:
        self.plain, self.context, self.last = plain, context, last
        self.attribution = Attribution(plain, rule=rule)

    def __call__(self, pruned: Any, done: int) -> None:
        if done > self.last:
            return
        _copy_weights(pruned, self.plain)
        self.attribution.refresh()
        fresh = self.attribution.run(self.context.calibration, target=self.context.target)
        for layer in pruned.layers:
            if isinstance(layer, PruneByRelevance):
                kernel = layer_kernels(layer.layer, layer.layer.name)[-1]
                layer.set_relevance(fresh.weights[kernel.key])


def _copy_weights(pruned: Any, plain: Any) -> None:
    """Copies the trained weights, pruned ones exactly zero, out of TFMOT's wrappers."""
    for wrapped, layer in zip(pruned.layers, plain.layers):
        if layer.weights:
            layer.set_weights(wrapped.get_weights())
        if isinstance(wrapped, PruneByRelevance):
            kernel = layer_kernels(layer, layer.name)[-1]
            kernel.variable.assign(kernel.variable * wrapped.pruning_vars[0][1])
