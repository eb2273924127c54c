"""Baseline: magnitude pruning as the TensorFlow Model Optimization toolkit does it, then plain int8."""

from __future__ import annotations

from typing import Any

import tensorflow_model_optimization as tfmot

from keras_xaic.compression import CompressedModel
from keras_xaic.recipes.recipe import Recipe
from keras_xaic.recipes.toolkit import train_with_toolkit

DEFAULT_SPARSITY = 0.8
RAMP_SHARE = 0.7
"""Share of training over which sparsity ramps up, as in our own pruning; only later epochs can be chosen."""


def compress_magnitude(model: Any, data: Any, *, sparsity: float = DEFAULT_SPARSITY, **options: Any) -> CompressedModel:
    """Prunes every layer to the same sparsity with TFMOT's `prune_low_magnitude` and its polynomial decay.

    Args:
        model: The trained model.
        data: Anything that `as_data` takes.
        sparsity: Fraction of zeros.
        **options: As for `train_with_toolkit`.
    """

    def wrap(flat: Any, steps: int) -> Any:
        end = max(2, round(steps * RAMP_SHARE))
        often = min(50, max(1, end // 4))
        decay = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=often)
        return tfmot.sparsity.keras.prune_low_magnitude(flat, pruning_schedule=decay)

    strip, update = tfmot.sparsity.keras.strip_pruning, tfmot.sparsity.keras.UpdatePruningStep()
    return train_with_toolkit(model, data, "magnitude", wrap, strip, callbacks=[update], select_from=RAMP_SHARE, **options)


MAGNITUDE = Recipe(
    name="magnitude",
    source="TensorFlow Model Optimization toolkit (Zhu & Gupta 2017, arXiv 1710.01878)",
    summary="The same sparsity in every layer, smallest weights first; then plain int8.",
    baseline=compress_magnitude,
)
