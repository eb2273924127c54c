"""Bytes that a choice costs, predicted before anything is written; a test holds them against written files."""

from __future__ import annotations

import math

import numpy as np

from keras_xaic.models.kernels import Kernel
from keras_xaic.planning.plan_file import Storage

FILE_BYTES = 1200
"""Model, subgraph, inputs, outputs and operator codes of a slim .tflite."""
OPERATOR_BYTES = 190
"""One operator with its options and output tensor."""
RECORD_BYTES = 12
"""Quantization record of one channel: scale (float32) and zero point (int64)."""
BIAS_BYTES = 4
"""One int32 bias."""
DOWNLOAD_SHARE = 0.45
"""What is left of scales, biases and structure after entropy coding."""


def best_storage(kind: str, bits: int) -> Storage:
    """Returns the smallest storage that holds a grid exactly on every runtime (INT4 transpose convolutions run nowhere)."""
    return "int4" if bits <= 4 and kind != "conv_transpose" else "int8"


def best_granularity(kind: str, storage: str) -> str:
    """Returns how fine steps may be: packed INT4 dense layers take one step per tensor, all else one per channel."""
    return "tensor" if kind == "dense" and storage == "int4" else "channel"


def weight_bytes(weights: int, storage: str) -> int:
    """Returns the bytes of the packed integers."""
    return math.ceil(weights / 2) if storage == "int4" else weights


def record_bytes(kernel: Kernel, channels: int, granularity: str) -> int:
    """Returns the bytes of biases and quantization records of one kernel."""
    records = channels if granularity == "channel" else 1
    return channels * BIAS_BYTES + records * RECORD_BYTES


def entropy_bits(integers: np.ndarray) -> float:
    """Returns the zeroth-order entropy of integers in bits per weight (Shannon 1948)."""
    counts = np.unique(integers, return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
