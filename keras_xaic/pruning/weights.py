"""The stage that brings single weights to zero."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_xaic._keras import Model, keras
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.planning import Plan, weight_score
from keras_xaic.pruning import PruneByRelevance, can_prune, pattern_mask, prune_by_relevance
from keras_xaic.relevance import Attribution, Relevance, attribute
from keras_xaic.training import Epoch, Schedule
from keras_xaic.training.context import Context

if TYPE_CHECKING:
    from keras_xaic.relevance.choices import Reduce

RAMP_SHARE = 0.7
"""Share of the epochs over which sparsity ramps up; the rest is recovery, and only its epochs can be chosen."""


def prune_weights(
    model: Model,
    plan: Plan,
    relevance: Optional[Relevance],
    context: Context,
    schedule: Schedule,
    refresh: Optional[int] = None,
) -> tuple[Model, list[Epoch]]:
    """Returns the model with its planned zeros, and the epochs it took to get them.

    Args:
        model: A flat model; changed in place.
        plan: Names sparsity and pattern of every kernel, and the score that ranks weights.
        relevance: What the first masks follow; computed where it is None or not of this model's shapes.
        context: What training needs.
        schedule: How to train; 0 epochs prune in one shot.
        refresh: Training steps between attributions while masks change; None: once an epoch. Each attribution costs one to two
            training steps per batch of `Context.calibration`.
    """
    rule = "lrp.epsilon" if relevance is None else relevance.rule
    signed = plan.score == "signed_relevance"
    reduce: Reduce = "mean" if signed else "mean_abs" if relevance is None else relevance.reduce
    planned = {layer.key: layer for layer in plan.layers if layer.masked_sparsity > 0}
    sparsity = {key: layer.masked_sparsity for key, layer in planned.items()}
    patterns = {key: layer.pattern for key, layer in planned.items()}
    if not _fits(relevance, model, signed):
        relevance = attribute(
            model, context.calibration, rule=rule, target=context.target, reduce=reduce, allow_approximate=True
        )
    assert relevance is not None
    if schedule.epochs == 0:
        for kernel in weighted_kernels(model):
            if kernel.key in planned and can_prune(kernel.layer):
                scores = weight_score(kernel.value, relevance.weights[kernel.key], plan.score)
                kernel.variable.assign(kernel.value * pattern_mask(scores, sparsity[kernel.key], patterns[kernel.key]).numpy())
        return model, []
    schedule = context.within(schedule, model, "prune")
    steps = schedule.steps(len(context.train))
    end = max(2, round(steps * RAMP_SHARE))
    with context.scope():
        pruned = prune_by_relevance(model, sparsity, relevance.weights, end, score=plan.score, patterns=patterns)
    callbacks: list[Any] = [tfmot.sparsity.keras.UpdatePruningStep()]
    if plan.score != "magnitude" and rule != "magnitude":
        callbacks.append(_Refresh(model, context, rule, reduce, refresh or steps // schedule.epochs, last=end))
    history = context.fit(pruned, replace(schedule, select_from=RAMP_SHARE), "prune", callbacks)
    _copy_weights(pruned, model)
    return model, history


class _Refresh(keras.callbacks.Callback):
    """Attributes again every few steps, while masks still change."""

    def __init__(self, plain: Model, context: Context, rule: str, reduce: Reduce, every: int, last: int) -> None:
        super().__init__()
        self.plain, self.context, self.reduce, self.every, self.last = plain, context, reduce, every, last
        self.attribution = Attribution(plain, rule=rule, allow_approximate=True)

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        step = int(self.model.optimizer.iterations.numpy())
        if step % self.every or step > self.last:
            return
        _copy_weights(self.model, self.plain)
        self.attribution.refresh()
        fresh = self.attribution.run(self.context.calibration, target=self.context.target, reduce=self.reduce)
        for layer in self.model.layers:
            if isinstance(layer, PruneByRelevance):
                kernel = layer_kernels(layer.layer, layer.layer.name)[-1]
                layer.set_relevance(fresh.weights[kernel.key])


def _fits(relevance: Optional[Relevance], model: Model, signed: bool) -> bool:
    """Whether relevance is of this model's shapes, and signed if it must be."""
    if relevance is None or any(relevance.weights[kernel.key].shape != kernel.shape for kernel in weighted_kernels(model)):
        return False
    return not signed or any(np.any(value < 0) for value in relevance.weights.values())


def _copy_weights(pruned: Model, plain: Model) -> None:
    """Copies the trained weights, pruned ones exactly zero, out of TFMOT's wrappers."""
    for wrapped, layer in zip(pruned.layers, plain.layers):
        if layer.weights:
            layer.set_weights(wrapped.get_weights())
        if isinstance(wrapped, PruneByRelevance):
            kernel = layer_kernels(layer, layer.name)[-1]
            kernel.variable.assign(kernel.variable * wrapped.pruning_vars[0][1])
