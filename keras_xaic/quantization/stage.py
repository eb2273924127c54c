"""The stage in which a model learns to live on its grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

import numpy as np

from keras_xaic._keras import Model, keras, layers
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.models.surgery import remove_channels
from keras_xaic.planning import Plan
from keras_xaic.planning.plan import ENTROPY_GRIDS
from keras_xaic.quantization import (
    copy_into_wrapped,
    copy_master_weights,
    fold_kernels,
    freeze,
    quantize_activations,
    quantize_by_plan,
    refresh_prices,
    round_by_outputs,
    round_to_plan,
)
from keras_xaic.relevance import Attribution, Relevance
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.settings import Ranges
from keras_xaic.training import Epoch, Schedule
from keras_xaic.training.context import Context

REFRESHES = 4
"""How often an epoch levels are priced and relevance is computed again. (Published: at every step, which makes it 3 to 4 times
dearer; prices and relevance move far more slowly than that.)"""


class OnGrids(NamedTuple):
    """What the stage makes.

    Attributes:
        model: The canonical model, its planned kernels exactly on their grids.
        kernels: Kernel key -> the integers and scales that export writes.
        history: What each epoch measured.
        trainable: The model as it was trained: BatchNorm not folded, weights as they are before rounding.
    """

    model: Model
    kernels: Mapping[str, QuantizedKernel]
    history: list[Epoch]
    trainable: Model


def quantize_weights(
    model: Model,
    plan: Plan,
    masks: Optional[Mapping[str, np.ndarray]],
    relevance: Optional[Relevance],
    context: Context,
    schedule: Schedule,
    *,
    activation_ranges: Optional[Ranges] = None,
    unrounded: Optional[Model] = None,
    round_frozen: bool = False,
    refresh: Optional[int] = None,
) -> OnGrids:
    """Returns the model exactly on its planned grids.

    Args:
        model: A flat model; changed in place.
        plan: Names the grid of every kernel.
        masks: Kernel key -> boolean mask of weights that may be non-zero.
        relevance: What codebooks and ECQx follow; computed where they need it and it is None or not of this model's shapes.
        context: What training needs.
        schedule: How to train; 0 epochs go onto the grids without training.
        activation_ranges: Trains with activations on grids, too (see `quantize_activations`).
        unrounded: The model before pruning and rounding, for rounding uniform grids by outputs (see `round_by_outputs`); None
            rounds to nearest.
        round_frozen: Whether the uniform grids of frozen layers are rounded by outputs before the others are trained.
        refresh: Training steps between attributions and prices of the grids ``ecq`` and ``ecqx``; None: `REFRESHES` an epoch.
    """
    if any(layer.granularity == "tensor" for layer in plan.layers):
        # BatchNorm folded behind a dense layer with one step would give each of its channels a step of its own.
        model = canonicalize(model, fold_into=(layers.Dense,)).model
    grids = {layer.grid for layer in plan.layers}
    history: list[Epoch] = []
    frozen: dict[str, list[np.ndarray]] = {}
    quantized: Optional[Model] = None
    if schedule.epochs or not grids <= {"uniform"}:
        follower = _RelevanceFollower(model, context, relevance) if grids & {"codebook", "ecqx"} else None
        scores = None if follower is None else follower.first(relevance)
        with context.scope():
            quantized = quantize_by_plan(model, plan, masks, scores)
        if schedule.epochs:
            frozen = _round_frozen(quantized, model, plan, masks, context) if round_frozen else {}
            schedule = context.within(schedule, quantized, "quantize")
            refreshing = []
            if grids & set(ENTROPY_GRIDS):
                every = refresh or max(1, -(-schedule.steps_per_epoch(len(context.train)) // REFRESHES))
                refreshing = [_Refresh(quantized, every, follower if "ecqx" in grids else None)]
            trained = quantized  # the same layers, with or without grids between them
            if activation_ranges is not None:
                with context.scope():
                    trained = quantize_activations(quantized, context.calibration, activation_ranges, plan.activations)
            history = context.fit(trained, schedule, "quantize", refreshing)
        copy_master_weights(quantized, model)
    trainable = _masked(remove_channels(model, {}), masks or {})
    for name, values in frozen.items():
        trainable.get_layer(name).set_weights(values)
    kernels = round_to_plan(model, plan, masks) if quantized is None else freeze(quantized, model)
    canonical = canonicalize(model)
    kernels = fold_kernels(kernels, canonical)
    if unrounded is not None and grids <= {"uniform"}:
        reference = canonicalize(unrounded).model
        kernels = round_by_outputs(canonical.model, kernels, reference, context.calibration, masks)
    return OnGrids(canonical.model, kernels, history, trainable)


def _round_frozen(
    quantized: Model, model: Model, plan: Plan, masks: Optional[Mapping[str, np.ndarray]], context: Context
) -> dict[str, list[np.ndarray]]:
    """Rounds frozen layers by their outputs (see `round_by_outputs`) before the others learn to live with them.

    Training cannot make up inside a frozen layer for what rounding does to it, and it never changes how its weights round.

    Returns:
        Name of each of these layers -> its weights before.
    """
    planned = {layer.key for layer in plan.layers if layer.grid == "uniform" and not layer.is_float}
    kernels = [kernel for kernel in weighted_kernels(model) if not kernel.layer.trainable and kernel.key in planned]
    if not kernels:
        return {}
    before, reference = model.get_weights(), remove_channels(model, {})
    grids = freeze(quantized, model)
    model.set_weights(before)
    for kernel in kernels:
        kernel.variable.assign(grids[kernel.key].values)
    round_by_outputs(model, {kernel.key: grids[kernel.key] for kernel in kernels}, reference, context.calibration, masks)
    names = {kernel.layer.name for kernel in kernels}
    copy_into_wrapped(model, quantized, names)
    model.set_weights(before)
    return {name: model.get_layer(name).get_weights() for name in names}


def _masked(model: Model, masks: Mapping[str, np.ndarray]) -> Model:
    """Returns the model with zeros where masks make them, in place."""
    for kernel in weighted_kernels(model):
        if kernel.key in masks:
            kernel.variable.assign(kernel.value * masks[kernel.key])
    return model


class _RelevanceFollower:
    """Attributes the master weights. On the grid itself every zero weight has relevance zero and could never come back."""

    def __init__(self, plain: Model, context: Context, relevance: Optional[Relevance]) -> None:
        self.plain, self.context = plain, context
        self.rule = "lrp.epsilon" if relevance is None else relevance.rule
        self.attribution: Optional[Attribution] = None

    def first(self, relevance: Optional[Relevance]) -> dict[str, np.ndarray]:
        """Relevance to begin with: the given one if it is of this model."""
        kernels = weighted_kernels(self.plain)
        if relevance is not None and all(relevance.weights[kernel.key].shape == kernel.shape for kernel in kernels):
            return dict(relevance.weights)
        return self._run()

    def now(self, quantized: Model) -> dict[str, np.ndarray]:
        """Relevance of the master weights as they are."""
        copy_master_weights(quantized, self.plain)
        if self.attribution is not None:
            self.attribution.refresh()
        return self._run()

    def _run(self) -> dict[str, np.ndarray]:
        if self.rule == "magnitude":
            return dict(magnitude(self.plain).weights)
        if self.attribution is None:
            self.attribution = Attribution(self.plain, rule=self.rule, allow_approximate=True)
        return dict(self.attribution.run(self.context.calibration, target=self.context.target).weights)


class _Refresh(keras.callbacks.Callback):
    """Prices levels again every few steps and at the end of an epoch, before it is judged."""

    def __init__(self, quantized: Model, every: int, follower: Optional[_RelevanceFollower]) -> None:
        super().__init__()
        self.quantized, self.every, self.follower = quantized, every, follower

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if (batch + 1) % self.every == 0:
            refresh_prices(self.quantized, None if self.follower is None else self.follower.now(self.quantized))

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        refresh_prices(self.quantized)
