"""Bytes that a choice costs, predicted before anything is written; a test holds them against written files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from keras_xaic.planning.storages import (
    BITS_OF,
    Activations,
    Granularity,
    Storage,
    can_be_packed,
    legal_storages,
    weights_per_byte,
)

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.models.kernels import KernelKind


@dataclass(frozen=True)
class Layout:
    """Bytes of a slim .tflite that are neither weights nor scales.

    Attributes:
        file: Model, subgraph, inputs, outputs and operator codes.
        convolution: One operator with a kernel of (h, w, ...): its options, its three tensors and its output, and the
            DEQUANTIZE in front of it where there is one.
        dense: The same of a dense layer.
        operator: One other operator with its output.
        bias: One bias.
        dense_steps: How often a dense layer's steps are written: where biases are integers, they repeat them.
        delegated: What a convolution's bias says for delegates beside its scales, one a channel, where its weights are INT8; 0
            where no delegate takes it anyway.
    """

    file: int
    convolution: int
    dense: int
    operator: int
    bias: int
    dense_steps: int
    delegated: int = 0


LAYOUTS: dict[Activations, Layout] = {
    "int8": Layout(file=720, convolution=207, dense=207, operator=145, bias=4, dense_steps=2, delegated=24),
    "int16": Layout(file=720, convolution=207, dense=207, operator=145, bias=8, dense_steps=2),
    "float32": Layout(file=480, convolution=280, dense=210, operator=150, bias=4, dense_steps=1),
}
"""Activations -> what files with them hold, as TensorFlow 2.14.1 converts them and flatbuffers 25.12.19 writes them."""
SCALE_BYTES = 4
"""One float32 scale."""
ZERO_POINT_BYTES = 8
"""One int64 zero point; kernels with equally many channels share theirs."""
LOOKUP_BYTES = 230
"""What looks up one kernel, written by the same: three operators and four tensors."""
TABLE_BYTES = 500
"""What all kernels that are looked up share, written by the same: the table, and the kinds of the operators."""
DOWNLOAD_SHARE = 0.45
"""What is left of scales, biases and structure after entropy coding."""
FLOAT_BITS = BITS_OF["float32"]
"""Bit-width of a kernel that is not quantized."""
FUSED = ("BatchNormalization", "ReLU", "Activation", "Dropout", "InputLayer")
"""Layers that the converter merges into the operator in front of them."""


def structure_bytes(model: Model, activations: Activations = "int8", zero_points: bool = True) -> int:
    """Returns the bytes of a file of `model` that are neither weights, biases nor scales.

    Args:
        model: The canonical model.
        activations: Type of activations between layers.
        zero_points: Whether zero points count, as if every kernel had a scale per channel.
    """
    layout = LAYOUTS[activations]
    from keras_xaic.models.kernels import kernels_in, layer_kernels
    from keras_xaic.models.operations import Operations

    operations = Operations(model)
    kernels = kernels_in(operations)
    others = sum(1 for op in operations if type(op.layer).__name__ not in FUSED and not layer_kernels(op.layer, op.path))
    zeros = ZERO_POINT_BYTES * sum({kernel.channels for kernel in kernels}) if zero_points else 0
    weighted = sum(layout.dense if kernel.kind == "dense" else layout.convolution for kernel in kernels)
    return layout.file + weighted + layout.operator * others + zeros


def best_storage(
    kind: KernelKind, bits: int, activations: Activations = "int8", shape: Optional[Sequence[int]] = None
) -> Storage:
    """Returns the smallest storage that holds a grid exactly on every runtime, with whatever scales that takes.

    Args:
        kind: Kind of kernel.
        bits: Bit-width; `FLOAT_BITS` for a kernel that is not quantized.
        activations: Type of what goes into the operator.
        shape: Shape of the kernel (see `can_be_packed`); None where it is not known yet.
    """
    if bits == FLOAT_BITS:
        return "float32"
    if shape is not None and not can_be_packed(kind, shape, activations):
        return "int8"
    fitting = [legal_storages(kind, bits, per_tensor, activations) for per_tensor in (False, True)]
    return "int4" if any("int4" in storages for storages in fitting) else "int8"


def best_granularity(kind: KernelKind, storage: Storage, activations: Activations = "int8") -> Granularity:
    """Returns how fine scales may be: one per channel wherever the storage is exact with that."""
    if storage == "float32":
        return "channel"
    legal = legal_storages(kind, BITS_OF[storage], per_tensor=False, activations=activations)
    return "channel" if storage in legal else "tensor"


def weight_bytes(weights: int, storage: Storage, bits: Optional[int] = None, activations: Activations = "int8") -> int:
    """Returns the bytes of the weights as stored; of a known number of bits, as looked up where that takes less."""
    plain = math.ceil(weights * BITS_OF[storage] / 8)
    if bits is None or storage != "int4" or activations != "int8":
        return plain
    group = weights_per_byte(weights, largest=2 ** (bits - 1) - 1)
    return plain if group is None else min(plain, weights // group + LOOKUP_BYTES)


def record_bytes(
    kind: KernelKind, channels: int, granularity: Granularity, storage: Storage, activations: Activations = "int8"
) -> int:
    """Returns the bytes of biases and scales of one kernel."""
    layout = LAYOUTS[activations]
    delegated = layout.delegated if kind != "dense" and storage == "int8" else 0
    repeated = layout.dense_steps if kind == "dense" else 2 if delegated else 1
    steps = channels * repeated if granularity == "channel" else 1
    return channels * layout.bias + steps * SCALE_BYTES + delegated
