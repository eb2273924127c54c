"""Baselines from the TensorFlow Model Optimization toolkit: its wrappers, our training, then plain int8."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from keras_xaic.compression import CompressedModel
from keras_xaic.data import as_data
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.surgery import remove_channels
from keras_xaic.models.task import fitted, infer_task
from keras_xaic.planning import Plan
from keras_xaic.progress import Progress, silent
from keras_xaic.tasks import with_task
from keras_xaic.training import Schedule, fit, predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class Wrappers:
    """What the toolkit puts around layers while they are trained.

    Attributes:
        wrap: Called with a flat model and the number of training steps; returns the wrapped model.
        strip: Takes the wrappers off.
        callbacks: Keras callbacks that the wrappers need.
        select_from: As for `Schedule`.
    """

    wrap: Callable[[Model, int], Model]
    strip: Callable[[Model], Model]
    callbacks: Sequence[Any] = ()
    select_from: float = 0.0


def train_with_toolkit(
    model: Model,
    data: Any,
    name: str,
    wrappers: Wrappers,
    *,
    epochs: int = 5,
    seed: int = 0,
    checkpoint: Optional[pathlib.Path] = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Trains a model inside the toolkit's wrappers; export then quantizes it to plain int8.

    Loss, teacher, epochs and learning rate are those of our own recipes, so that a comparison shows the method alone.

    Args:
        model: The trained model; it is not changed.
        data: Anything that `as_data` takes.
        name: The recipe's name.
        wrappers: What the toolkit puts around layers.
        epochs: Passes over the training data; 0 wraps and strips only.
        seed: Seed of everything random.
        checkpoint: Directory of the state of training.
        progress: Told how far the work is.
    """
    data = fitted(model, as_data(data))
    task = infer_task(model, data, strict=False)
    data = with_task(data, task)
    flat = remove_channels(model, {})
    train, held_back = data.split(seed=seed)
    schedule = Schedule(epochs, select_from=wrappers.select_from, seed=seed)
    wrapped, history = wrappers.wrap(flat, schedule.steps(len(train))), {}
    if epochs:
        history[name] = fit(
            wrapped,
            train,
            held_back,
            task,
            schedule,
            teacher=predict(model, train),
            callbacks=wrappers.callbacks,
            checkpoint=checkpoint,
            progress=functools.partial(progress, f"baseline {name}"),
        )
    return CompressedModel(canonicalize(wrappers.strip(wrapped)).model, {}, Plan(recipe=name, seed=seed), history)
