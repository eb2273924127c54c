"""Which Keras kernel an operator holds: decided by value, because names and shapes mislead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.planning.storages import KINDS
from keras_xaic.tflite.flatbuffer import ModelT, Operator, TensorT, constant, operators

if TYPE_CHECKING:
    from keras_xaic.models.kernels import KernelKind


@dataclass(frozen=True)
class WeightOperator:
    """An operator with constant weights.

    Attributes:
        operator: The operator.
        weights: Its weights as stored: (out, h, w, in) for CONV_2D and TRANSPOSE_CONV, (1, h, w, channels) for
            DEPTHWISE_CONV_2D, (out, in) for FULLY_CONNECTED.
        weight_tensor: The record of the tensor that holds them: the operator's own input, or what is widened to it.
        codes: The record of the tensor that they are looked up with (see `look_up`), None where they are stored themselves.
    """

    operator: Operator
    weights: np.ndarray
    weight_tensor: TensorT
    codes: Optional[TensorT] = None

    @property
    def kind(self) -> KernelKind:
        """Kind of kernel: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``."""
        return KINDS[self.operator.kind]

    @property
    def channel_axis(self) -> int:
        """Axis of `weights` that counts output channels."""
        return 3 if self.kind == "depthwise" else 0

    @property
    def data_position(self) -> int:
        """Which input is the activation."""
        return 2 if self.kind == "conv_transpose" else 0

    @property
    def bias_position(self) -> int:
        """Which input is the bias."""
        return 3 if self.kind == "conv_transpose" else 2

    @property
    def widened(self) -> bool:
        """Whether a DEQUANTIZE stands between the stored weights and the operator."""
        return self.weight_tensor is not self.operator.input(1)

    @property
    def stored(self) -> TensorT:
        """The record of the tensor whose bytes are in the file."""
        return self.weight_tensor if self.codes is None else self.codes

    @property
    def bias(self) -> Optional[np.ndarray]:
        """The bias as stored, None where there is none."""
        tensor = self.operator.input(self.bias_position)
        return None if tensor is None else constant(self.operator.model, tensor)

    def per_channel(self, values: np.ndarray) -> np.ndarray:
        """Returns (channels,) or (1,) values shaped so that they broadcast against `weights`."""
        shape = [1] * self.weights.ndim
        shape[self.channel_axis] = -1
        return np.asarray(values).reshape(shape)


def weight_operators(model: ModelT) -> list[WeightOperator]:
    """Returns the weight operators of a loaded .tflite file in the order in which they run."""
    found = []
    makers: dict[int, Operator] = {}
    for operator in operators(model):
        if len(operator.record.outputs):
            makers[id(operator.output())] = operator
        tensor = operator.input(1) if operator.kind in KINDS else None
        if tensor is None:
            continue
        maker = makers.get(id(tensor))
        if maker is not None and maker.kind == "DEQUANTIZE":
            tensor = maker.input(0)
        codes = _codes(makers, tensor)
        weights = constant(model, tensor) if codes is None else _looked_up(makers, tensor, codes)
        if weights is not None:
            found.append(WeightOperator(operator, weights, tensor, codes))
    return found


def _codes(makers: Mapping[int, Operator], tensor: TensorT) -> Optional[TensorT]:
    """Returns the tensor of bytes that weights are looked up with, None for weights that are not."""
    for kind, position in (("RESHAPE", 0), ("GATHER", 1), ("CAST", 0)):
        maker = makers.get(id(tensor))
        if maker is None or maker.kind != kind:
            return None
        tensor = maker.input(position)
    return tensor


def _looked_up(makers: Mapping[int, Operator], tensor: TensorT, codes: TensorT) -> Optional[np.ndarray]:
    """Returns the weights that `look_up` wrote; None for other uses of the same operators, which may stand in any file."""
    gather = makers[id(makers[id(tensor)].input(0))]
    table, numbers, options = (
        constant(gather.model, gather.input(0)),
        constant(gather.model, codes),
        gather.record.builtinOptions,
    )
    if table is None or numbers is None or numbers.size == 0 or (options is not None and (options.axis or options.batchDims)):
        return None
    shape = tuple(int(n) for n in tensor.shape)
    if not 0 <= int(numbers.min()) <= int(numbers.max()) < len(table) or numbers.size * table[0].size != int(np.prod(shape)):
        return None
    return np.asarray(table[numbers].reshape(shape))


def to_operator_layout(kernel: np.ndarray, kind: KernelKind, shape: Sequence[int]) -> Optional[np.ndarray]:
    """Returns a Keras kernel in the layout of a TFLite operator, None if it cannot be that operator's.

    Args:
        kernel: (h, w, in, out), (w, in, out) or (in, out); (h, w, channels, multiplier) or (w, channels, multiplier) for
            depthwise kernels; (h, w, out, in) for transposed convolutions.
        kind: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``.
        shape: Shape of the operator's weights.
    """
    if kernel.size != int(np.prod(shape)):
        return None
    if kind == "dense":
        moved = kernel.reshape(-1, kernel.shape[-1]).T
    elif kernel.ndim not in (3, 4):
        return None
    else:
        image = kernel if kernel.ndim == 4 else kernel[np.newaxis]  # TFLite runs 1D convolutions with a height of 1
        if kind == "conv":
            moved = image.transpose(3, 0, 1, 2)
        elif kind == "conv_transpose":
            moved = image.transpose(2, 0, 1, 3)
        else:
            moved = image.reshape(1, *image.shape[:2], -1)
    return moved if moved.shape == tuple(shape) else None


def channel_steps(scale: np.ndarray, kernel_shape: Sequence[int], target: WeightOperator, key: str) -> np.ndarray:
    """Returns the steps of a grid per output channel of the operator, float32 (channels,), or (1,) if they are all equal.

    Raises:
        ExportError: If the steps vary along another axis.
    """
    steps = np.asarray(scale, np.float32)
    if steps.size == 1 or np.all(steps == steps.flat[0]):
        return steps.reshape(-1)[:1]
    full = to_operator_layout(np.broadcast_to(steps, kernel_shape), target.kind, target.weights.shape)
    if full is None:
        raise ExportError(f"layer {key!r}: a grid of shape {tuple(kernel_shape)} does not fit {target.weights.shape}")
    rows = np.moveaxis(full, target.channel_axis, 0).reshape(full.shape[target.channel_axis], -1)
    if not np.all(rows == rows[:, :1]):
        raise ExportError(f"layer {key!r}: its grid has steps of shape {steps.shape}", "one step, or one per output channel")
    return np.ascontiguousarray(rows[:, 0])


def fused_gain(found: WeightOperator, kernel: np.ndarray, tolerance: np.ndarray) -> Optional[np.ndarray]:
    """Returns the factor per output channel by which the converter multiplied a kernel, None if that is not what it did.

    The converter folds a constant factor in front of a layer (`Rescaling`) or behind it into the layer's weights.

    Args:
        found: An operator of the float32 twin.
        kernel: The Keras kernel.
        tolerance: Largest difference per weight before the factor, broadcastable to the kernel.

    Returns:
        (channels,) float64, positive, 1 for channels of zeros; or (1,) if all are equal.
    """
    moved = to_operator_layout(kernel, found.kind, found.weights.shape)
    allowed = to_operator_layout(np.broadcast_to(tolerance, kernel.shape), found.kind, found.weights.shape)
    if moved is None or allowed is None:
        return None
    axes = tuple(axis for axis in range(moved.ndim) if axis != found.channel_axis)
    weights, moved = found.weights.astype(np.float64), moved.astype(np.float64)
    square = np.square(moved).sum(axis=axes)
    gain = np.where(square > 0, (weights * moved).sum(axis=axes) / np.where(square > 0, square, 1.0), 1.0)
    if np.any(gain <= 0):
        return None
    live = gain[square > 0]
    if live.size and np.ptp(live) <= 1e-5 * live.max():
        gain = live[:1]
    fits = np.abs(weights / found.per_channel(gain) - moved) <= allowed
    return gain if np.all(fits) else None


def pair_by_value(
    found: Sequence[WeightOperator],
    values: Sequence[np.ndarray],
    kernels: Mapping[str, np.ndarray],
    tolerances: Mapping[str, np.ndarray],
) -> list[Optional[str]]:
    """Finds the kernel that each operator holds.

    Args:
        found: The operators.
        values: Their weights as real numbers, in the operators' layout.
        kernels: Key -> Keras kernel, in network order.
        tolerances: Key -> largest difference per weight that still counts as equal, broadcastable to the kernel.

    Returns:
        One key per operator, None where no kernel fits. The closest kernel wins; among equally close ones the first that no
        earlier operator has. So a layer that is called twice is found twice, and equal kernels are told apart by order.
    """
    taken: set[str] = set()
    pairs: list[Optional[str]] = []
    for weight_operator, weights in zip(found, values):
        candidates = []
        for place, (key, kernel) in enumerate(kernels.items()):
            moved = to_operator_layout(kernel, weight_operator.kind, weights.shape)
            if moved is None:
                continue
            allowed = to_operator_layout(np.broadcast_to(tolerances[key], kernel.shape), weight_operator.kind, weights.shape)
            difference = np.abs(weights.astype(np.float64) - moved)
            if np.all(difference <= allowed):
                candidates.append((float(difference.max(initial=0.0)), key in taken, place, key))
        pairs.append(min(candidates)[3] if candidates else None)
        if candidates:
            taken.add(min(candidates)[3])
    return pairs
