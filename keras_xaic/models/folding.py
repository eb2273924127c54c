"""Which layer takes up which BatchNorm, or factors of its input channels, and what is left out because it does nothing.

Folding rewrites ``BN(W x + b)`` as ``(g W) x + (g (b - mean) + beta)`` with ``g = gamma / sqrt(variance + epsilon)``
(Jacob et al. 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, layers, tf
from keras_xaic.models.added_layers import RMSNormalization, is_layer_scale
from keras_xaic.models.operations import Operation, Operations, activation_name, symbol_of

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
NORMALIZATIONS = (layers.LayerNormalization, RMSNormalization)
"""Layers that end with factors and offsets that were learned. Only dense layers take these up."""
SHAPE_ONLY = (layers.Flatten, layers.Reshape)
OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
UNLIKE = 8.0
"""A BatchNorm of the model's input is no layer's to take up where its gains differ by this factor, or its offsets are this
large: few bits would hold neither the input nor such weights."""
_TAKES_FORWARD = (layers.Dense, layers.Conv1D, layers.Conv2D, *DEPTHWISE)


@dataclass(frozen=True)
class Affine:
    """What an operation does to the input channels of a layer behind it, at its end: all that a BatchNorm does, say.

    Attributes:
        source: Name of the operation.
        entry: Name of the operation that reads its output on the way to that layer, or of that layer's own.
        gain: Factors of the channels.
        offset: What is added to them then.
    """

    source: str
    entry: str
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


def find_foldable(wiring: Wiring, fold_into: tuple[type, ...]) -> dict[str, tuple[Operation, ...]]:
    """Path of a layer -> what it takes up of what is behind it: BatchNorm, and factors that are not all positive.

    By other factors the converter multiplies the weights, which keeps them on a grid of other steps.
    """
    found: dict[str, tuple[Operation, ...]] = {}
    takers: dict[str, Operation] = {}
    for operation in wiring.operations:
        if not operation.inputs or affine_of(wiring, operation) is None:
            continue
        key = wiring.resolve(operation.inputs[0])
        before = wiring.operations.producer.get(key)
        taker = None if before is None else takers.get(before.name, before)
        if (
            taker is not None
            and type(taker.layer) in fold_into
            and activation_name(taker.layer) is None
            and wiring.calls[id(taker.layer)] == 1
            and wiring.readers[key] == 1
            and getattr(taker.layer, "data_format", "channels_last") == "channels_last"
        ):
            found[taker.path] = (*found.get(taker.path, ()), operation)
            takers[operation.name] = taker
    return found


def affine_of(wiring: Wiring, operation: Operation) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Returns gain and offset, float64 (channels,), of an operation that the layer in front of it takes up, None of others."""
    layer, shape = operation.layer, wiring.operations.shapes[operation.outputs[0]]
    if isinstance(layer, layers.BatchNormalization):
        return batchnorm_affine(layer) if list(layer.axis) == [len(shape) - 1] else None
    if type(layer) is not layers.Rescaling and symbol_of(layer) is None:
        return None
    gain, offset = (np.asarray(part, np.float64) for part in _factors(operation))
    if np.all(gain > 0) or any(part.size != part.shape[-1] for part in (gain, offset) if part.ndim) or shape[-1] is None:
        return None
    made = [np.broadcast_to(part.ravel() if part.ndim else part, (shape[-1],)) for part in (gain, offset)]
    return made[0], made[1]


def combined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns gain and offset of several in a row."""
    gain, offset = np.ones(1), np.zeros(1)
    for more, added in parts:
        gain, offset = gain * more, offset * more + added
    return gain, offset


def find_forward(wiring: Wiring) -> dict[str, Affine]:
    """Path of a layer -> what is done in front of it to its input channels: a BatchNorm, or factors that differ.

    Such factors the converter would multiply weights by, which would leave their grids. It does so for every dense layer that
    reads them, whatever else reads them.
    """
    reading: dict[str, list[Operation]] = defaultdict(list)
    for one in wiring.operations:
        for key in () if one.outputs[0] in wiring.alias else one.inputs:
            reading[wiring.resolve(key)].append(one)
    behind = {operation.name for taken in find_foldable(wiring, FOLDABLE).values() for operation in taken}
    found: dict[str, Affine] = {}
    for operation in wiring.operations:
        affine = (
            None if operation.name in behind or wiring.calls[id(operation.layer)] > 1 else _channel_affine(wiring, operation)
        )
        given = wiring.resolve(operation.inputs[0]) in wiring.operations.inputs
        if affine is None or (given and symbol_of(operation.layer) is None and is_unlike(*affine)):
            continue
        takers = [(entry, _taker(wiring, reading, operation, entry, *affine)) for entry in reading[operation.outputs[0]]]
        all_take = None not in [taker for _, taker in takers] and len(takers) == wiring.readers[operation.outputs[0]]
        for entry, taker in takers:
            dense = taker is not None and type(taker[0].layer) is layers.Dense
            if taker is not None and (dense or (all_take and type(operation.layer) not in NORMALIZATIONS)):
                found.setdefault(taker[0].path, Affine(operation.name, entry.name, *taker[1:]))
    return found


def _channel_affine(wiring: Wiring, operation: Operation) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Returns what an operation multiplies channels by at its end, and then adds to them; None where that is alike for all."""
    layer, shape = operation.layer, wiring.operations.shapes[operation.outputs[0]]
    if isinstance(layer, layers.BatchNormalization):
        return batchnorm_affine(layer) if list(layer.axis) == [len(shape) - 1] else None
    if type(layer) in NORMALIZATIONS:
        if [axis % len(shape) for axis in np.atleast_1d(layer.axis)] != [len(shape) - 1]:
            return None
        factors = learned_factors(layer)
    else:
        factors = _factors(operation)
    gain, offset = (np.asarray(part, np.float64) for part in factors)
    if max(gain.ndim, offset.ndim) >= len(shape) or np.ptp(gain) == np.ptp(offset) == 0:
        return None
    gain, offset = np.broadcast_arrays(gain, offset)
    return gain, offset


def learned_factors(layer: Layer) -> tuple[Any, Any]:
    """Returns what one of `NORMALIZATIONS` multiplies by, and then adds: its weights, or 1 and 0."""
    gain, offset = (layer.scale, None) if isinstance(layer, RMSNormalization) else (layer.gamma, layer.beta)
    return (1.0 if gain is None else gain.numpy()), (0.0 if offset is None else offset.numpy())


def _factors(operation: Operation) -> tuple[Any, Any]:
    """Returns what a `Rescaling`, or arithmetic with a constant, multiplies floats by, and then adds; 1 and 0 for others.

    One that makes several channels of one is such another: layers beside it have no weights for each.
    """
    if len({tuple(tensor.shape) for tensor in (*operation.node.keras_inputs, *tf.nest.flatten(operation.node.outputs))}) > 1:
        return 1.0, 0.0
    if is_layer_scale(operation.layer):
        return operation.layer.gamma.numpy(), 0.0
    if type(operation.layer) is layers.Rescaling and operation.node.keras_inputs[0].dtype.is_floating:
        return operation.layer.scale, operation.layer.offset
    arguments = [*operation.node.call_args, *operation.node.call_kwargs.values()]
    numbers = [one for one in arguments if isinstance(one, (np.ndarray, tf.Tensor, list, tuple, int, float))]
    symbol = symbol_of(operation.layer)
    first = isinstance(arguments[0], type(operation.node.keras_inputs[0])) if arguments else False
    if len(operation.inputs) != 1 or len(numbers) != 1 or not operation.node.keras_inputs[0].dtype.is_floating:
        return 1.0, 0.0
    try:
        number = np.asarray(numbers[0], np.float64)
    except (TypeError, ValueError):
        return 1.0, 0.0
    if symbol == "math.multiply":
        return number, 0.0
    if symbol in ("math.truediv", "math.divide") and first and np.all(number != 0):
        return 1.0 / number, 0.0
    if symbol in ("math.add", "__operators__.add"):
        return 1.0, number
    if symbol == "math.subtract":
        return (1.0, -number) if first else (-1.0, number)
    return 1.0, 0.0


def _taker(
    wiring: Wiring,
    reading: Mapping[str, Sequence[Operation]],
    source: Operation,
    entry: Operation,
    gain: np.ndarray,
    offset: np.ndarray,
) -> Optional[tuple[Operation, np.ndarray, np.ndarray]]:
    """Returns the layer that takes up what is done in front of it, and gain and offset of its input channels; or None.

    Args:
        wiring: The model.
        reading: Tensor -> the operations that read it.
        source: What does it.
        entry: The operation behind it on the way to that layer, or that layer's own.
        gain: Factors of the channels of the output of `source`.
        offset: What is added to them then.
    """
    key, reader = source.outputs[0], entry
    shape = wiring.operations.shapes[key][1:]
    parts = [np.broadcast_to(part, tuple(size or 1 for size in shape)) for part in (gain, offset)]
    while True:
        after = wiring.operations.shapes[reader.outputs[0]][1:]
        if isinstance(reader.layer, SHAPE_ONLY) and None not in (*shape, *after) and _keeps_order(reader.layer):
            parts, key = [part.reshape(after) for part in parts], reader.outputs[0]
            if wiring.readers[key] != 1 or not reading[key]:
                return None
            reader = reading[key][0]
            continue
        gains, offsets = (part.reshape(-1, part.shape[-1]) for part in parts)
        alike = np.all(gains == gains[:1]) and np.all(offsets == offsets[:1])
        return (reader, gains[0], offsets[0]) if alike and _takes_forward(wiring, reader) else None


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


def in_float32(config: object) -> Any:
    """Returns a configuration of layers, with whatever is inside them, computing in float32."""
    if isinstance(config, Mapping):
        changed = {key: in_float32(part) for key, part in config.items()}
        policy = config.get("dtype")
        name = policy.get("config", {}).get("name") if isinstance(policy, Mapping) else policy
        return {**changed, "dtype": "float32"} if name in OTHER_FLOATS else changed
    return [in_float32(part) for part in config] if isinstance(config, list) else config


def _does_nothing(operation: Operation) -> bool:
    if not isinstance(operation.layer, IDENTITIES):
        return False
    before, after = operation.node.keras_inputs[0].dtype.name, tf.nest.flatten(operation.node.outputs)[0].dtype.name
    return as_float32(before) == as_float32(after)


def _keeps_order(layer: Layer) -> bool:
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")
