"""Bytes that a choice costs, predicted before anything is written; a test holds them against written files."""

from __future__ import annotations

import math
from typing import Any

from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.models.operations import Operations
from keras_xaic.planning.plan_file import Granularity
from keras_xaic.planning.storages import BITS_OF, Activations, Storage, legal_storages

FILE_BYTES = 720
"""Model, subgraph, inputs, outputs and operator codes of a slim .tflite."""
WEIGHT_OPERATOR_BYTES = 207
"""One operator with weights: its options, its three tensors and its output."""
OPERATOR_BYTES = 145
"""One other operator with its output."""
SCALE_BYTES = 4
"""One float32 step."""
ZERO_POINT_BYTES = 8
"""One int64 zero point; kernels with equally many channels share theirs."""
BIAS_BYTES = 4
"""One int32 bias."""
DOWNLOAD_SHARE = 0.45
"""What is left of scales, biases and structure after entropy coding."""
FLOAT_BITS = BITS_OF["float32"]
"""Bit-width of a kernel that is not quantized."""
FUSED = ("BatchNormalization", "ReLU", "Activation", "Dropout", "InputLayer")
"""Layers that the converter merges into the operator in front of them."""


def structure_bytes(model: Any) -> int:
    """Returns the bytes of a file of `model` that are neither weights, biases nor steps.

    Args:
        model: The canonical model.
    """
    kernels = weighted_kernels(model)
    others = sum(1 for op in Operations(model) if type(op.layer).__name__ not in FUSED and not layer_kernels(op.layer, op.path))
    zero_points = ZERO_POINT_BYTES * sum({kernel.channels for kernel in kernels})
    return FILE_BYTES + WEIGHT_OPERATOR_BYTES * len(kernels) + OPERATOR_BYTES * others + zero_points


def best_storage(kind: str, bits: int, activations: Activations = "int8") -> Storage:
    """Returns the smallest storage that holds a grid exactly on every runtime, with whatever steps that takes.

    Args:
        kind: Kind of kernel.
        bits: Bit-width; `FLOAT_BITS` for a kernel that is not quantized.
        activations: Type of what goes into the operator.
    """
    if bits == FLOAT_BITS:
        return "float32"
    fitting = [legal_storages(kind, bits, per_tensor, activations) for per_tensor in (False, True)]
    return "int4" if any("int4" in storages for storages in fitting) else "int8"


def best_granularity(kind: str, storage: Storage, activations: Activations = "int8") -> Granularity:
    """Returns how fine steps may be: one per channel wherever the storage is exact with that."""
    if storage == "float32":
        return "channel"
    legal = legal_storages(kind, BITS_OF[storage], per_tensor=False, activations=activations)
    return "channel" if storage in legal else "tensor"


def weight_bytes(weights: int, storage: str) -> int:
    """Returns the bytes of the weights as stored."""
    return math.ceil(weights * BITS_OF[storage] / 8)


def record_bytes(kind: str, channels: int, granularity: str) -> int:
    """Returns the bytes of biases and steps of one kernel; dense layers repeat their steps with the bias."""
    steps = channels * (2 if kind == "dense" else 1) if granularity == "channel" else 1
    return channels * BIAS_BYTES + steps * SCALE_BYTES
