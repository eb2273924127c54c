"""Carries out a plan: removes filters, prunes, quantizes, and trains the model to live with it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_xaic._keras import layers
from keras_xaic.bundle import Bundle
from keras_xaic.data import Samples, as_data
from keras_xaic.grids import QuantizedKernel, load_kernels
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.models.loading import load_model
from keras_xaic.models.surgery import remove_channels
from keras_xaic.models.task import Task, infer_task
from keras_xaic.planning import Plan, keep_masks, kept_weights, weight_score
from keras_xaic.progress import Progress, silent
from keras_xaic.pruning import PruneByRelevance, can_prune, kernel_masks, prune_by_relevance
from keras_xaic.quantization import fold_kernels, freeze, quantize_by_plan
from keras_xaic.relevance import Attribution, Relevance, attribute
from keras_xaic.training import Epoch, Schedule, fit, predict

PRUNING_SHARE = 0.5
"""Share of the epochs that goes into removal and pruning where there is any; quantization gets the rest."""
RAMP_SHARE = 0.7
"""Share of the pruning epochs over which sparsity ramps up; the rest is recovery."""


@dataclass(frozen=True)
class CompressedModel:
    """A model that lives within its plan.

    Attributes:
        model: The compressed Keras model: flat, BatchNorm folded, its planned kernels exactly on their grids.
        kernels: Kernel key -> the integers and steps that export writes.
        plan: The plan it was made by.
        history: Training stage -> what each epoch measured.
    """

    model: Any
    kernels: Mapping[str, QuantizedKernel]
    plan: Plan
    history: Mapping[str, list[Epoch]]

    @property
    def storages(self) -> dict[str, str]:
        """Kernel key -> how its integers lie in the file."""
        return {layer.key: layer.storage for layer in self.plan.layers}

    @property
    def sparsity(self) -> float:
        """Fraction of zero weights over all kernels."""
        total = sum(kernel.integers.size for kernel in self.kernels.values())
        return sum(float(np.sum(kernel.integers == 0)) for kernel in self.kernels.values()) / max(1, total)

    @classmethod
    def load(cls, bundle: Bundle) -> CompressedModel:
        """Reads the compressed model back from a bundle.

        Raises:
            DataError, ModelError, PlanError: If a file of the bundle is missing or unusable.
        """
        model = load_model(bundle.keras_model)
        kernels = load_kernels(bundle.grids) if bundle.grids.is_file() else {}
        plan = Plan.load(bundle.plan) if bundle.plan.is_file() else Plan()
        return cls(model, kernels, plan, {})


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
    callbacks: Sequence[Any] = (),
    checkpoint: Optional[pathlib.Path] = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Carries out `plan` on a trained model.

    Filters are removed physically; sparsity ramps up under relevance-ordered TFMOT masks whose scores are refreshed after
    every epoch; then the model trains with its weights on the planned grids. The original teaches throughout, and epochs
    are chosen on held-back training data.

    Args:
        model: The trained `keras.Model`; it is not changed.
        plan: What every layer gets.
        data: Anything that `as_data` takes.
        relevance: What the masks follow; computed where it is needed and not given.
        epochs: Passes over the training data, all stages together; 0 compresses without training.
        seed: Seed; None takes the plan's.
        calibration: Number of samples for attributions on the way.
        distillation: Weight of the original's outputs in the loss.
        learning_rate: First learning rate of Adam.
        batch_size: Samples a step.
        callbacks: Further Keras callbacks for every stage.
        checkpoint: Directory for the state of training; the same call with the same directory continues.
        progress: Told how far the work is.

    Returns:
        The compressed model with its exact grids.

    Raises:
        DataError, ModelError, PlanError: If the parts do not fit together.
    """
    data = as_data(data)
    task = infer_task(model, data)
    seed = plan.seed if seed is None else seed
    train, held_back = data.split(seed=seed)
    teacher = predict(model, train) if epochs else None
    small = remove_channels(model, keep_masks(model, plan.remove))
    sparse = any(layer.sparsity > 0 for layer in plan.layers)
    prune_epochs = round(epochs * PRUNING_SHARE) if sparse or plan.remove else 0
    context = _Context(task, train, held_back, teacher, data.calibration(calibration, seed), callbacks, progress)
    schedule = Schedule(prune_epochs, learning_rate, batch_size, distillation, seed=seed)
    history: dict[str, list[Epoch]] = {}

    if sparse:
        small, history["prune"] = _prune(small, plan, relevance, context, schedule, _sub(checkpoint, "prune"))
    elif plan.remove and prune_epochs:
        history["recover"] = context.fit(small, schedule, _sub(checkpoint, "recover"), "recover")
    masks = {key: mask for key, mask in kernel_masks(small).items() if not mask.all()} if sparse else None

    per_tensor = [layer.key for layer in plan.layers if layer.granularity == "tensor"]
    if per_tensor:  # folding BatchNorm behind them would give every channel its own step
        small = canonicalize(small, fold_into=(layers.Dense,)).model
    quantized = quantize_by_plan(small, plan, masks)
    if epochs - prune_epochs > 0:
        schedule = Schedule(epochs - prune_epochs, learning_rate / 2, batch_size, distillation, seed=seed + 500)
        history["quantize"] = context.fit(quantized, schedule, _sub(checkpoint, "quantize"), "quantize")
    kernels = freeze(quantized, small)
    canonical = canonicalize(small)
    return CompressedModel(canonical.model, fold_kernels(kernels, canonical), plan, history)


@dataclass(frozen=True)
class _Context:
    """What every stage of training needs."""

    task: Task
    train: Samples
    held_back: Samples
    teacher: Optional[np.ndarray]
    calibration: Samples
    callbacks: Sequence[Any]
    progress: Progress

    def fit(
        self,
        model: Any,
        schedule: Schedule,
        checkpoint: Optional[pathlib.Path],
        stage: str,
        callbacks: Sequence[Any] = (),
        **hooks: Any,
    ) -> list[Epoch]:
        return fit(
            model,
            self.train,
            self.held_back,
            self.task,
            schedule,
            teacher=self.teacher,
            callbacks=[*callbacks, *self.callbacks],
            checkpoint=checkpoint,
            stage=stage,
            progress=self.progress,
            **hooks,
        )


def _prune(
    small: Any,
    plan: Plan,
    relevance: Optional[Relevance],
    context: _Context,
    schedule: Schedule,
    checkpoint: Optional[pathlib.Path],
) -> tuple[Any, list[Epoch]]:
    """Returns the model with its planned zeros, and the epochs it took to get them."""
    shapes = {kernel.key: kernel.shape for kernel in weighted_kernels(small)}
    rule = "lrp.epsilon" if relevance is None else relevance.rule
    if relevance is None or any(relevance.weights[key].shape != shape for key, shape in shapes.items()):
        relevance = attribute(small, context.calibration, rule=rule, target=_target(context.calibration))
    sparsity = {layer.key: layer.sparsity for layer in plan.layers if layer.sparsity > 0}
    if schedule.epochs == 0:
        for kernel in weighted_kernels(small):
            if kernel.key in sparsity and can_prune(kernel.layer):
                score = weight_score(kernel.value, relevance.weights[kernel.key])
                kernel.variable.assign(kernel.value * kept_weights({kernel.key: score}, sparsity[kernel.key])[kernel.key])
        return small, []
    end = max(2, round(schedule.steps(len(context.train)) * RAMP_SHARE))
    pruned = prune_by_relevance(small, sparsity, relevance.weights, end)
    refresh = _Refresh(small, context.calibration, rule, last=schedule.epochs * RAMP_SHARE)
    schedule = Schedule(**{**vars(schedule), "select_from": RAMP_SHARE})
    update = tfmot.sparsity.keras.UpdatePruningStep()
    history = context.fit(pruned, schedule, checkpoint, "prune", [update], after_epoch=refresh)
    _copy_weights(pruned, small)
    return small, history


class _Refresh:
    """Attributes anew after an epoch, while masks still change."""

    def __init__(self, plain: Any, calibration: Samples, rule: str, last: float) -> None:
        self.plain, self.calibration, self.last = plain, calibration, last
        self.attribution = Attribution(plain, rule=rule)

    def __call__(self, pruned: Any, done: int) -> None:
        if done > self.last:
            return
        _copy_weights(pruned, self.plain)
        self.attribution.refresh()
        fresh = self.attribution.run(self.calibration, target=_target(self.calibration))
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
            for (_, mask, _), kernel in zip(wrapped.pruning_vars, wrapped.prunable_weights):
                name = kernel.name.split("/")[-1].split(":")[0]
                variable = getattr(layer, name)
                variable.assign(variable * mask)


def _target(samples: Samples) -> str:
    return "true" if samples.y is not None else "predicted"


def _sub(directory: Optional[pathlib.Path], name: str) -> Optional[pathlib.Path]:
    return None if directory is None else directory / name
