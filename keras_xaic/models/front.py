"""What a model does to each value of an input first: a change of units, which 8 bits may not survive.

A table's columns are of unlike size: one scale for all of them leaves nothing of the small ones. Such a front is computed in
float32 and its result quantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from keras_xaic._keras import keras, layers
from keras_xaic.models.folding import batchnorm_affine, is_unlike
from keras_xaic.models.operations import Operation, Operations

COARSER = 4.0
"""A front is needed where steps of the input are this many times coarser, behind it, than those that its result would have."""
_KINDS = (layers.Normalization, layers.Rescaling, layers.BatchNormalization)


@dataclass(frozen=True)
class Front:
    """``(x - center) * gain`` of an input.

    Attributes:
        key: What comes out of it.
        operations: The names of its operations.
        center: float64, broadcastable to one sample.
        gain: As `center`; nowhere 0.
    """

    key: str
    operations: tuple[str, ...]
    center: np.ndarray
    gain: np.ndarray

    @property
    def is_unlike(self) -> bool:
        """Whether its gains are so unlike that weights behind it cannot take them up: the converter would have them do so."""
        return bool(np.ptp(self.gain) > 0) and is_unlike(self.gain, self.center * self.gain)

    def is_needed(self, values: np.ndarray) -> bool:
        """Whether 8 bits would make what comes out for (N, ...) `values` too coarse."""
        return bool(np.abs(self.gain).max() * extent(values) > COARSER * extent(self(values))) or self.is_unlike

    def before(self, values: np.ndarray) -> np.ndarray:
        """Returns (N, ...) for what `values` come out, in float32."""
        return (np.asarray(values, np.float64) / self.gain + self.center).astype(np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns (N, ...) what comes out for `x`, in float32 as Keras computes it."""
        center, gain = self.center.astype(np.float32), self.gain.astype(np.float32)
        return (np.asarray(x, np.float32) - center) * gain


def front_of(operations: Operations, key: str) -> Optional[Front]:
    """Returns what stands between the float input `key` and the rest of the network, None where nothing does."""
    names: list[str] = []
    center, gain = np.zeros(1), np.ones(1)
    while True:
        readers = operations.consumers[key]
        if len(readers) != 1 or key in operations.outputs:
            break
        affine = _affine(readers[0], operations)
        if affine is None:
            break
        shift, factor = affine
        center, gain = center + shift / gain, gain * factor
        names.append(readers[0].name)
        key = readers[0].outputs[0]
    return Front(key, tuple(names), center, gain) if names else None


def needed_fronts(operations: Operations, arrays: Sequence[np.ndarray]) -> dict[str, Front]:
    """Returns key of an input -> its front, for those inputs that 8 bits would make too coarse.

    Args:
        operations: The model's.
        arrays: One (N, ...) array of samples per input.
    """
    found = {}
    for key, tensor, array in zip(operations.inputs, operations.model.inputs, arrays):
        front = front_of(operations, key) if tensor.dtype.name == "float32" else None
        if front is not None and front.is_needed(array):
            found[key] = front
    return found


def _affine(operation: Operation, operations: Operations) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Returns center and gain of a layer that only changes the units of its values, None for others."""
    layer = operation.layer
    if type(layer) not in _KINDS or len(operation.inputs) != 1:
        return None
    if isinstance(layer, layers.Normalization):
        if layer.invert:
            return None
        center = np.asarray(layer.mean, np.float64)
        gain = 1.0 / np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), keras.backend.epsilon())
        center, gain = (part.reshape(part.shape[1:]) if part.ndim > 1 else part for part in (center, gain))
    elif isinstance(layer, layers.Rescaling):
        gain = np.asarray(layer.scale, np.float64)
        if not np.all(gain):
            return None
        center = -np.asarray(layer.offset, np.float64) / gain
    else:
        if list(layer.axis) != [len(operations.shapes[operation.inputs[0]]) - 1]:
            return None
        gain, offset = batchnorm_affine(layer)
        if not np.all(gain):
            return None
        center = -offset / gain
    return (center, gain) if np.all(np.isfinite(gain)) and np.all(np.isfinite(center)) else None


def extent(values: np.ndarray) -> float:
    """Returns the length of the range of values, with 0 in it as in files."""
    return max(float(np.max(values)), 0.0) - min(float(np.min(values)), 0.0)
