"""TFMOT's pruning wrapper with relevance in place of magnitude: `strip_pruning`, callbacks and checkpoints keep working."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_wrapper

from keras_xaic._keras import Layer, Tensor, keras, tf
from keras_xaic.planning.plan import Score
from keras_xaic.planning.sparsity import combine
from keras_xaic.pruning.pattern import pattern_mask


class RelevancePruning(pruning_impl.Pruning):
    """TFMOT's mask update, ranking weights by a score of relevance and magnitude (see `weight_score`) instead of |w|.

    Relevance is a variable, held from one attribution to the next; the magnitude is that of the current weights, so a
    weight that training has moved to zero goes even if it mattered once.
    """

    def __init__(self, relevances: list[Tensor], score: Score, pattern: str, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._relevance_of = {id(weight): relevance for (weight, _, _), relevance in zip(self._pruning_vars, relevances)}
        self._score, self._pattern = score, pattern

    def _maybe_update_block_mask(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        scores = self._scores(weights, self._relevance_of[id(weights)])
        mask = pattern_mask(scores, self._pruning_schedule(self._step_fn())[1], self._pattern)
        threshold = tf.reduce_min(tf.where(mask, scores, scores.dtype.max))
        return threshold, tf.cast(mask, weights.dtype)

    def _scores(self, weights: Tensor, relevance: Tensor) -> Tensor:
        magnitude = tf.abs(weights) / tf.maximum(tf.norm(weights), 1e-30)
        if self._score == "signed_relevance":
            # All that is not positive goes before anything that is, but what speaks strongly against the prediction goes
            # last of it: training needs time to do without. A weight that is zero has no relevance and stays zero.
            size = tf.abs(relevance)
            return tf.where(weights == 0, -1.0, tf.where(relevance > 0, size + tf.reduce_max(size), size))
        # Weights that are zero already must rank below weights whose relevance is merely unknown.
        return combine(magnitude, relevance, self._score) + 1e-12 * magnitude


class PruneByRelevance(pruning_wrapper.PruneLowMagnitude):
    """A layer whose kernel is pruned by relevance; a drop-in for TFMOT's `PruneLowMagnitude`.

    Args:
        layer: The layer to prune.
        pruning_schedule: A TFMOT schedule, e.g. `RelevanceSchedule`.
        relevance: Relevance of every weight of the layer's kernel, of its shape; None: all alike, until `set_relevance`.
        score: What ranks weights (see `keras_xaic.planning.weight_score`).
        pattern: Structured sparsity (see `pattern_mask`).
        **kwargs: As for `PruneLowMagnitude`.
    """

    call = tf.autograph.experimental.do_not_convert(pruning_wrapper.PruneLowMagnitude.call)
    """As it stands: reading its source takes longer than a small net's epoch. TFMOT prunes layers of Keras alone."""

    def __init__(
        self,
        layer: Layer,
        pruning_schedule: Any,
        relevance: Any = None,
        score: Score = "geometric_mean",
        pattern: str = "unstructured",
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, pruning_schedule=pruning_schedule, **kwargs)
        self._initial_relevance = relevance
        self.score, self.pattern = score, pattern

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
            self.score,
            self.pattern,
            training_step_fn=lambda: self.pruning_step,
            pruning_vars=self.pruning_vars,
            pruning_schedule=self.pruning_schedule,
            block_size=self.block_size,
            block_pooling_type=self.block_pooling_type,
        )

    def set_relevance(self, relevance: object) -> None:
        """Replaces the relevance of the (first) kernel, e.g. after a new attribution during training."""
        value = np.asarray(relevance, np.float32)
        value = value if self.score == "signed_relevance" else np.abs(value)
        norm = float(np.linalg.norm(value))
        self.relevances[0].assign(value / norm if norm > 0 else np.ones_like(value))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "score": self.score, "pattern": self.pattern}
