"""Bytes of a written file, layer by layer, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_xaic.models.kernels import KernelKind, weighted_kernels
from keras_xaic.tflite.flatbuffer import load
from keras_xaic.tflite.pairing import weight_operators
from keras_xaic.tflite.reading import StoredAs, match_operators

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class LayerBytes:
    """What one kernel takes in a file.

    Attributes:
        key: Weight key.
        kind: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``.
        storage: As for `StoredWeights`.
        weights: Number of weights.
        flash_bytes: Bytes of weights, biases and steps.
    """

    key: str
    kind: KernelKind
    storage: StoredAs
    weights: int
    flash_bytes: int


def measure_layers(content: bytes, model: Model) -> list[LayerBytes]:
    """Returns what each kernel of `model` takes in a .tflite file that was made from it, in network order.

    Args:
        content: The file.
        model: The canonical Keras model.
    """
    kernels, layers = weighted_kernels(model), []
    stored = match_operators(weight_operators(load(content)), kernels)
    for kernel in kernels:
        if kernel.key not in stored:
            continue
        first, *further = stored[kernel.key]
        shared = sum(one.flash_bytes - one.weight_bytes for one in further)  # a layer that is called twice is stored once
        layers.append(LayerBytes(kernel.key, kernel.kind, first.storage, kernel.size, first.flash_bytes + shared))
    return layers
