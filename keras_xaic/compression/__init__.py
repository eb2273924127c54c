"""Carries out a plan: removes filters, prunes, quantizes, and trains the model to live with it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Optional

from keras_xaic.compression.compressed import CompressedModel
from keras_xaic.compression.context import Context
from keras_xaic.compression.filters import remove_filters
from keras_xaic.compression.quantize import masked_part, quantize_weights
from keras_xaic.compression.weights import prune_weights
from keras_xaic.data import as_data
from keras_xaic.models.surgery import remove_channels
from keras_xaic.planning import Plan, check_plan
from keras_xaic.progress import Progress, silent
from keras_xaic.pruning import kernel_masks
from keras_xaic.quantization import Ranges
from keras_xaic.relevance import Relevance
from keras_xaic.training import Schedule

__all__ = ["CompressedModel", "compress"]

Rounding = Literal["outputs", "nearest"]
PRUNING_SHARE = 0.5
"""Share of the epochs that goes into removal and pruning where there is any; quantization gets the rest."""


def compress(
    model: Any,
    plan: Plan,
    data: Any,
    *,
    relevance: Optional[Relevance] = None,
    epochs: int = 5,
    seed: Optional[int] = None,
    calibration: int = 256,
    distillation: float = 0.7,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    patience: Optional[int] = None,
    optimizer: Any = "adam",
    loss: Any = None,
    refresh: Optional[int] = None,
    rounding: Rounding = "outputs",
    activation_ranges: Optional[Ranges] = None,
    callbacks: Sequence[Any] = (),
    checkpoint: Optional[pathlib.Path] = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Carries out `plan` on a trained model.

    Filters are removed physically, in one step or in several with training in between; sparsity ramps up under
    relevance-ordered TFMOT masks whose scores are refreshed on the way; then the model trains with its weights on the
    planned grids. The original teaches throughout, and epochs are chosen on held-back training data.

    Args:
        model: The trained `keras.Model`; it is not changed.
        plan: What every layer gets.
        data: Anything that `as_data` takes.
        relevance: What the masks follow; computed where it is needed and not given.
        epochs: Passes over the training data, all stages together; 0 compresses without training.
        seed: Seed; None takes the plan's.
        calibration: Number of samples for attributions on the way.
        distillation: Weight of the original's outputs in the loss.
        learning_rate: First learning rate.
        batch_size: Samples a step.
        patience: A stage ends after this many epochs in a row that are no better on held-back training data.
        optimizer: Name of a Keras optimizer, or one that is set up; its own learning rate counts then.
        loss: Takes the place of the task's own loss of the labels beside distillation; labels of classes come one-hot.
        refresh: Training steps between attributions while weights become zero; None: once an epoch (see `prune_weights`).
        rounding: How weights are rounded without training: so that layer ``outputs`` change least on calibration data (see
            `round_by_outputs`), or each to its ``nearest`` level. Training rounds to nearest.
        activation_ranges: Trains with activations on grids, too (see `quantize_activations`); None leaves them float until
            export.
        callbacks: Further Keras callbacks for every stage.
        checkpoint: Directory for the state of training; the same call with the same directory continues.
        progress: Told how far the work is.

    Returns:
        The compressed model with its exact grids, and the plan as it was carried out.

    Raises:
        DataError, ModelError, PlanError: If the parts do not fit together.
    """
    check_plan(plan, model)
    seed = plan.seed if seed is None else seed
    context = Context.of(
        model,
        as_data(data),
        epochs=epochs,
        seed=seed,
        calibration=calibration,
        callbacks=callbacks,
        checkpoint=checkpoint,
        progress=progress,
    )
    training = Schedule(
        epochs, learning_rate, batch_size, distillation, seed=seed, patience=patience, optimizer=optimizer, loss=loss
    )
    sparse = any(layer.sparsity > 0 for layer in masked_part(plan).layers)
    removal, pruning, quantizing = _share_epochs(epochs, plan, sparse)
    removed = remove_filters(model, plan, relevance, context, replace(training, epochs=removal))
    small, plan, history = removed.model, removed.plan, dict(removed.history)
    untrained = remove_channels(small, {}) if epochs == 0 and rounding == "outputs" else None
    if sparse:
        schedule = replace(training, epochs=pruning)
        small, history["prune"] = prune_weights(small, masked_part(plan), relevance, context, schedule, refresh)
    masks = {key: mask for key, mask in kernel_masks(small).items() if not mask.all()} if sparse else None

    schedule = replace(training, epochs=quantizing, learning_rate=learning_rate / 2, seed=seed + 500)
    small, kernels, epochs_done = quantize_weights(
        small, plan, masks, relevance, context, schedule, activation_ranges=activation_ranges, unrounded=untrained
    )
    if epochs_done:
        history["quantize"] = epochs_done
    return CompressedModel(small, kernels, plan, history)


def _share_epochs(epochs: int, plan: Plan, sparse: bool) -> tuple[int, int, int]:
    """Returns how many epochs removal of filters, pruning and quantization get; pruning recovers removal in one step, too."""
    removing = bool(plan.remove) or plan.filters is not None
    if not removing and not sparse:
        return 0, 0, epochs if plan.layers else 0
    first = round(epochs * PRUNING_SHARE) if plan.layers else epochs
    stepwise = plan.filters is not None and plan.filters.steps > 1
    removal = first if not sparse else first // 2 if stepwise else 0
    return removal, first - removal, epochs - first
