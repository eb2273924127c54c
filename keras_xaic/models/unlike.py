"""Values of unlike size in one output: one scale of 8 bits for all of them leaves nothing of the small ones."""

from __future__ import annotations

import numpy as np

from keras_xaic._keras import Model, layers
from keras_xaic.data import arrays_of
from keras_xaic.models.kernels import layer_kernels
from keras_xaic.models.operations import Operations
from keras_xaic.output_tasks import AnyTask, Tasks

STEPS = 4.0
"""Least standard deviation of a column, in steps of the scale that all columns share, that survives 8 bits."""
LEAST = 0.05
"""Of values that hardly change, this share of the largest counts, as where files are compared."""
_PASSED = (layers.Concatenate, layers.Reshape, layers.Flatten, layers.Activation, layers.Dropout)
"""Layers between the output and those that make its columns."""


def unlike_heads(model: Model, outputs: object, task: AnyTask) -> tuple[str, ...]:
    """Returns the keys of the kernels whose output is values of unlike size side by side; they are better left float.

    Args:
        model: The model.
        outputs: What it gives for some samples.
        task: What it does; only outputs of a regression count, of few values (see `Task.counts_each`).
    """
    operations, found = Operations(model), []
    tasks = task.tasks if isinstance(task, Tasks) else (task,)
    for key, one, array in zip(operations.outputs, tasks, arrays_of(outputs)):
        if one.counts_each(array.shape[-1]) and _is_unlike(array):
            found += _makers(operations, key)
    return tuple(dict.fromkeys(found))


def _is_unlike(values: np.ndarray) -> bool:
    columns = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
    if values.ndim < 2 or columns.shape[-1] < 2:
        return False
    step = (max(columns.max(), 0.0) - min(columns.min(), 0.0)) / 255.0
    spread = np.maximum(columns.std(axis=0), LEAST * np.abs(columns).max(axis=0))
    return bool(np.any((spread < STEPS * step) & (spread > 0.0)))


def _makers(operations: Operations, key: str) -> list[str]:
    producer = operations.producer.get(key)
    if producer is None:
        return []
    kernels = [kernel.key for kernel in layer_kernels(producer.layer, producer.path)]
    if kernels or type(producer.layer) not in _PASSED:
        return kernels[-1:]
    return [name for one in producer.inputs for name in _makers(operations, one)]
