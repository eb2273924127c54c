"""Wraps a model's layers for training towards the planned sparsities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import numpy as np
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from keras_xaic._keras import Layer, Model, keras
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.models.masking import passes_masks
from keras_xaic.models.rebuilding import rebuilt
from keras_xaic.planning.plan import Score
from keras_xaic.pruning.mask import PruneByRelevance
from keras_xaic.pruning.schedule import RelevanceSchedule, ramp_power


def prune_by_relevance(
    model: Model,
    sparsity: Mapping[str, float],
    relevance: Mapping[str, np.ndarray],
    end_step: int,
    frequency: int = 50,
    *,
    score: Score = "geometric_mean",
    patterns: Optional[Mapping[str, str]] = None,
) -> Model:
    """Returns a clone of `model` whose kernels ramp to their planned sparsity during training.

    Train it with `tfmot.sparsity.keras.UpdatePruningStep` among the callbacks, then call `strip_pruning`.

    Args:
        model: A flat functional or sequential model.
        sparsity: Kernel key -> final fraction of zeros; kernels that are not named stay dense.
        relevance: Kernel key -> relevance of every weight; kernels that are not named are pruned by magnitude.
        end_step: Training step at which the ramp ends.
        frequency: Masks are updated every that many steps.
        score: What ranks weights (see `keras_xaic.planning.weight_score`).
        patterns: Kernel key -> structured sparsity (see `pattern_mask`); unstructured where not named.
    """
    frequency, patterns = min(frequency, max(1, end_step // 4)), patterns or {}

    def wrap(layer: Layer) -> Layer:
        kernels = [kernel for kernel in layer_kernels(layer, layer.name) if sparsity.get(kernel.key, 0.0) > 0]
        fresh = rebuilt(layer, layer.get_config())
        if not kernels or not can_prune(layer):
            return fresh
        key = kernels[-1].key  # TFMOT prunes the pointwise kernel of a separable convolution
        scores = relevance.get(key)
        schedule = RelevanceSchedule(sparsity[key], end_step, frequency=frequency, power=ramp_power(scores))
        known: Score = "magnitude" if scores is None else score
        return passes_masks(PruneByRelevance(fresh, schedule, scores, known, patterns.get(key, "unstructured")))

    wrapped = keras.models.clone_model(model, clone_function=wrap)
    for old, new in zip(model.layers, wrapped.layers):
        if old.weights:
            new.set_weights(old.get_weights())
    return wrapped


def strip_pruning(model: Model) -> Model:
    """Returns the model without wrappers, its pruned weights exactly zero."""
    return tfmot.sparsity.keras.strip_pruning(model)


def can_prune(layer: Layer) -> bool:
    """Returns whether TFMOT has masks for the layer's kernel."""
    return bool(PruneRegistry.supports(layer) and PruneRegistry._weight_names(layer))


def kernel_masks(model: Model) -> dict[str, np.ndarray]:
    """Returns kernel key -> boolean mask of the weights that are not zero."""
    return {kernel.key: kernel.value != 0 for kernel in weighted_kernels(model)}
