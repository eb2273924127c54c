"""Baseline: magnitude pruning as the TensorFlow Model Optimization toolkit does it, then plain int8."""

from __future__ import annotations

import pathlib
from typing import Any, Optional

import tensorflow_model_optimization as tfmot

from keras_xaic.compression import CompressedModel
from keras_xaic.data import as_data
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.surgery import remove_channels
from keras_xaic.models.task import infer_task
from keras_xaic.planning import Plan
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes.recipe import Recipe
from keras_xaic.training import Schedule, fit, predict

DEFAULT_SPARSITY = 0.8


def compress_magnitude(
    model: Any,
    data: Any,
    *,
    epochs: int = 5,
    seed: int = 0,
    sparsity: float = DEFAULT_SPARSITY,
    distillation: float = 0.7,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    checkpoint: Optional[pathlib.Path] = None,
    progress: Progress = silent,
    **_: Any,
) -> CompressedModel:
    """Prunes every layer to the same sparsity with TFMOT's `prune_low_magnitude` and its polynomial decay.

    Loss, teacher, epochs and learning rate are those of our own recipes, so that a comparison shows the criterion alone.
    """
    data = as_data(data)
    task = infer_task(model, data)
    plan = Plan(recipe="magnitude", seed=seed)
    flat = remove_channels(model, {})
    if epochs == 0:
        return CompressedModel(canonicalize(flat).model, {}, plan, {})
    train, held_back = data.split(seed=seed)
    schedule = Schedule(epochs, learning_rate, batch_size, distillation, select_from=0.7, seed=seed)
    end = max(2, round(schedule.steps(len(train)) * 0.7))
    decay = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=min(50, max(1, end // 4)))
    pruned = tfmot.sparsity.keras.prune_low_magnitude(flat, pruning_schedule=decay)
    history = fit(
        pruned,
        train,
        held_back,
        task,
        schedule,
        teacher=predict(model, train),
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        checkpoint=checkpoint,
        stage="baseline magnitude",
        progress=progress,
    )
    return CompressedModel(canonicalize(tfmot.sparsity.keras.strip_pruning(pruned)).model, {}, plan, {"prune": history})


MAGNITUDE = Recipe(
    name="magnitude",
    source="TensorFlow Model Optimization toolkit (Zhu & Gupta 2017, arXiv 1710.01878)",
    summary="The same sparsity in every layer, smallest weights first; then plain int8.",
    baseline=compress_magnitude,
)
