"""Baselines from the TensorFlow Model Optimization toolkit: its wrappers, our training, then plain int8."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from keras_xaic.compression import CompressedModel
from keras_xaic.data import as_data
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.surgery import remove_channels
from keras_xaic.models.task import infer_task
from keras_xaic.planning import Plan
from keras_xaic.progress import Progress, silent
from keras_xaic.tasks import with_task
from keras_xaic.training import Schedule, fit, predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model


def train_with_toolkit(
    model: Model,
    data: Any,
    name: str,
    wrap: Callable[[Model, int], Model],
    strip: Callable[[Model], Model],
    *,
    callbacks: Sequence[Any] = (),
    select_from: float = 0.0,
    epochs: int = 5,
    seed: int = 0,
    distillation: float = 0.7,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    checkpoint: Optional[pathlib.Path] = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Trains a model inside the toolkit's wrappers; export then quantizes it to plain int8.

    Loss, teacher, epochs and learning rate are those of our own recipes, so that a comparison shows the method alone.

    Args:
        model: The trained model; it is not changed.
        data: Anything that `as_data` takes.
        name: The recipe's name.
        wrap: Called with a flat model and the number of training steps; returns the wrapped model.
        strip: Takes the wrappers off.
        callbacks: Keras callbacks that the wrappers need.
        select_from: As for `Schedule`.
        epochs: Passes over the training data; 0 wraps and strips only.
        seed: Seed of everything random.
        distillation: As for `Schedule`.
        learning_rate: As for `Schedule`.
        batch_size: As for `Schedule`.
        checkpoint: Directory of the state of training.
        progress: Told how far the work is.
    """
    data = as_data(data)
    task = infer_task(model, data, strict=False)
    data = with_task(data, task)
    flat = remove_channels(model, {})
    train, held_back = data.split(seed=seed)
    schedule = Schedule(epochs, learning_rate, batch_size, distillation, select_from=select_from, seed=seed)
    wrapped, history = wrap(flat, schedule.steps(len(train))), {}
    if epochs:
        history[name] = fit(
            wrapped,
            train,
            held_back,
            task,
            schedule,
            teacher=predict(model, train),
            callbacks=callbacks,
            checkpoint=checkpoint,
            stage=f"baseline {name}",
            progress=progress,
        )
    return CompressedModel(canonicalize(strip(wrapped)).model, {}, Plan(recipe=name, seed=seed), history)
