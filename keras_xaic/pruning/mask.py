"""TFMOT's pruning wrapper with relevance in place of magnitude: `strip_pruning`, callbacks and checkpoints keep working."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_wrapper

from keras_xaic._keras import keras, tf


class RelevancePruning(pruning_impl.Pruning):
    """TFMOT's mask update, ranking weights by ``sqrt(A / ||A|| * |w| / ||w||)`` instead of |w| (see `weight_score`).

    Relevance A is a variable, held from one attribution to the next; the magnitude is that of the current weights, so a
    weight that training has moved to zero goes even if it mattered once.
    """

    def __init__(self, relevances: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._relevance_of = {id(weight): score for (weight, _, _), score in zip(self._pruning_vars, relevances)}

    def _maybe_update_block_mask(self, weights: Any) -> Any:
        magnitude = tf.abs(weights) / tf.maximum(tf.norm(weights), 1e-30)
        score = tf.sqrt(magnitude * self._relevance_of[id(weights)])
        # Weights that are zero already must rank below weights whose relevance is merely unknown.
        return super()._maybe_update_block_mask(score + 1e-12 * magnitude)


class PruneByRelevance(pruning_wrapper.PruneLowMagnitude):
    """A layer whose kernel is pruned by relevance times magnitude; a drop-in for TFMOT's `PruneLowMagnitude`.

    Args:
        layer: The layer to prune.
        pruning_schedule: A TFMOT schedule, e.g. `RelevanceSchedule`.
        relevance: Relevance of every weight of the layer's kernel, of its shape; all ones rank by magnitude.
        **kwargs: As for `PruneLowMagnitude`.
    """

    def __init__(self, layer: Any, pruning_schedule: Any, relevance: Any = None, **kwargs: Any) -> None:
        super().__init__(layer, pruning_schedule=pruning_schedule, **kwargs)
        self._initial_relevance = relevance

    def build(self, input_shape: Any) -> None:
        """Adds the relevance variables beside TFMOT's masks."""
        super().build(input_shape)
        self.relevances = [
            self.add_weight(f"relevance_{i}", shape=weight.shape, initializer=keras.initializers.Constant(1.0), trainable=False)
            for i, (weight, _, _) in enumerate(self.pruning_vars)
        ]
        if self._initial_relevance is not None:
            self.set_relevance(self._initial_relevance)
        self.pruning_obj = RelevancePruning(
            self.relevances,
            training_step_fn=lambda: self.pruning_step,
            pruning_vars=self.pruning_vars,
            pruning_schedule=self.pruning_schedule,
            block_size=self.block_size,
            block_pooling_type=self.block_pooling_type,
            sparsity_m_by_n=self.sparsity_m_by_n,
        )

    def set_relevance(self, relevance: Any) -> None:
        """Replaces the relevance of the (first) kernel, e.g. after a new attribution during training."""
        value = np.abs(np.asarray(relevance, np.float32))
        norm = float(np.linalg.norm(value))
        self.relevances[0].assign(value / norm if norm > 0 else np.ones_like(value))
