"""Which layer takes up which BatchNorm or `Rescaling`, and what is left out because it does nothing at inference.

Folding rewrites ``BN(W x + b)`` as ``(g W) x + (g (b - mean) + beta)`` with ``g = gamma / sqrt(variance + epsilon)``
(Jacob et al. 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import numpy as np

from keras_xaic._keras import Layer, layers, tf
from keras_xaic.models.operations import Operation, Operations, activation_name

IDENTITIES = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.RandomBrightness,
    layers.RandomContrast,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
)
"""Layers that do nothing at inference."""

FOLDABLE = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
"""Layers that can take up the BatchNorm behind them. Subclasses may do anything and are left alone."""

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SHAPE_ONLY = (layers.Flatten, layers.Reshape)
OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
UNLIKE = 8.0
"""A BatchNorm of the model's input is no layer's to take up where its gains differ by this factor, or its offsets are this
large: few bits would hold neither the input nor such weights."""
_TAKES_FORWARD = (layers.Dense, layers.Conv1D, layers.Conv2D, *DEPTHWISE)


@dataclass(frozen=True)
class Affine:
    """What a BatchNorm or a `Rescaling` does to the input channels of the layer behind it."""

    batchnorm: str
    gain: np.ndarray
    offset: np.ndarray

    def folded_into(self, weights: list[np.ndarray], depthwise: bool) -> list[np.ndarray]:
        """Returns kernel and bias of a layer that does both."""
        kernel = weights[0].astype(np.float64)
        gain, offset = self.gain[:, None], self.offset[:, None]
        added = (kernel * offset).sum(axis=tuple(range(kernel.ndim - (2 if depthwise else 1)))).ravel()
        bias = added + (weights[1].astype(np.float64) if len(weights) > 1 else 0.0)
        return [(kernel * gain).astype(np.float32), bias.astype(np.float32)]


class Wiring:
    """Who reads what, with operations that do nothing left out.

    Attributes:
        alias: Output of an operation that does nothing -> its input.
        calls: Identity of a layer -> how often it is called.
        readers: Tensor -> how many operations and outputs of the model read it.
    """

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.alias = {op.outputs[0]: op.inputs[0] for op in operations if _does_nothing(op)}
        self.calls = Counter(id(op.layer) for op in operations)
        self.readers = Counter(self.resolve(key) for op in operations if op.outputs[0] not in self.alias for key in op.inputs)
        self.readers.update(self.resolve(key) for key in operations.outputs)

    def resolve(self, key: str) -> str:
        """Returns the tensor that `key` is the same as."""
        while key in self.alias:
            key = self.alias[key]
        return key


def find_foldable(wiring: Wiring, fold_into: tuple[type, ...]) -> dict[str, Operation]:
    """Path of a layer -> the BatchNorm operation it takes up."""
    found = {}
    for operation in wiring.operations:
        if not isinstance(operation.layer, layers.BatchNormalization):
            continue
        key = wiring.resolve(operation.inputs[0])
        before = wiring.operations.producer.get(key)
        if (
            before is not None
            and type(before.layer) in fold_into
            and activation_name(before.layer) is None
            and wiring.calls[id(before.layer)] == 1
            and wiring.readers[key] == 1
            and getattr(before.layer, "data_format", "channels_last") == "channels_last"
            and list(operation.layer.axis) == [len(wiring.operations.shapes[key]) - 1]
        ):
            found[before.path] = operation
    return found


def find_forward(wiring: Wiring) -> dict[str, Affine]:
    """Path of a layer -> what the BatchNorm, or `Rescaling` by unlike factors, in front of it does to its input channels.

    Such factors the converter would multiply weights by, which would leave their grids.
    """
    reading = {wiring.resolve(key): op for op in wiring.operations if op.outputs[0] not in wiring.alias for key in op.inputs}
    behind = {operation.name for operation in find_foldable(wiring, FOLDABLE).values()}
    found: dict[str, Affine] = {}
    for operation in wiring.operations:
        affine = (
            None if operation.name in behind or wiring.calls[id(operation.layer)] > 1 else _channel_affine(wiring, operation)
        )
        if affine is None or (wiring.resolve(operation.inputs[0]) in wiring.operations.inputs and is_unlike(*affine)):
            continue
        taker = _taker(wiring, reading, operation, *affine)
        if taker is not None and taker[0].path not in found:
            found[taker[0].path] = Affine(operation.name, *taker[1:])
    return found


def _channel_affine(wiring: Wiring, operation: Operation) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Returns gains and offsets of the channels of a BatchNorm or a `Rescaling` by unlike factors; None for other layers."""
    layer, shape = operation.layer, wiring.operations.shapes[operation.outputs[0]]
    if isinstance(layer, layers.BatchNormalization):
        return batchnorm_affine(layer) if list(layer.axis) == [len(shape) - 1] else None
    if type(layer) is not layers.Rescaling or not operation.node.keras_inputs[0].dtype.is_floating:
        return None
    gain, offset = (np.asarray(part, np.float64) for part in (layer.scale, layer.offset))
    if max(gain.ndim, offset.ndim) >= len(shape) or np.ptp(gain) == np.ptp(offset) == 0:
        return None
    gain, offset = np.broadcast_arrays(gain, offset)
    return gain, offset


def _taker(
    wiring: Wiring, reading: Mapping[str, Operation], batchnorm: Operation, gain: np.ndarray, offset: np.ndarray
) -> Optional[tuple[Operation, np.ndarray, np.ndarray]]:
    """Returns the layer behind a BatchNorm that takes it up, with gain and offset of its input channels; None if none does."""
    key = batchnorm.outputs[0]
    shape = wiring.operations.shapes[key][1:]
    parts = [np.broadcast_to(part, tuple(size or 1 for size in shape)) for part in (gain, offset)]
    while wiring.readers[key] == 1 and key in reading:
        reader, key = reading[key], reading[key].outputs[0]
        after = wiring.operations.shapes[key][1:]
        if isinstance(reader.layer, SHAPE_ONLY) and None not in (*shape, *after) and _keeps_order(reader.layer):
            parts = [part.reshape(after) for part in parts]
            continue
        gains, offsets = (part.reshape(-1, part.shape[-1]) for part in parts)
        alike = np.all(gains == gains[:1]) and np.all(offsets == offsets[:1])
        return (reader, gains[0], offsets[0]) if alike and _takes_forward(wiring, reader) else None
    return None


def is_unlike(gain: np.ndarray, offset: np.ndarray) -> bool:
    """Returns whether few bits would hold neither an input nor weights that took up these gains and offsets."""
    sizes = np.abs(gain[gain != 0])
    return bool(sizes.size and sizes.max() > UNLIKE * sizes.min()) or bool(np.abs(offset).max() > UNLIKE)


def _takes_forward(wiring: Wiring, operation: Operation) -> bool:
    """Whether a layer's weights can take up a factor and an offset of its input channels."""
    layer = operation.layer
    if wiring.calls[id(layer)] > 1 or type(layer) not in _TAKES_FORWARD:
        return False
    if isinstance(layer, layers.Dense):
        return True
    unpadded = layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)
    return bool(unpadded and layer.groups == 1 and layer.data_format == "channels_last")


def batchnorm_affine(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Returns gain and offset, float64 (channels,), of what a BatchNorm computes at inference."""
    variance, mean = (np.asarray(v, np.float64) for v in (layer.moving_variance, layer.moving_mean))
    gain = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        gain = gain * np.asarray(layer.gamma, np.float64)
    offset = -mean * gain
    return gain, offset + np.asarray(layer.beta, np.float64) if layer.center else offset


def as_float32(dtype: str) -> str:
    """Returns the name of a type; float32 in place of any other of floats."""
    return "float32" if dtype in OTHER_FLOATS else dtype


def _does_nothing(operation: Operation) -> bool:
    if not isinstance(operation.layer, IDENTITIES):
        return False
    before, after = operation.node.keras_inputs[0].dtype.name, tf.nest.flatten(operation.node.outputs)[0].dtype.name
    return as_float32(before) == as_float32(after)


def _keeps_order(layer: Layer) -> bool:
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")
