"""What a kernel is multiplied with: moments of the patches of a layer's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import layers, tf
from keras_xaic.models.kernels import Kernel

_SUPPORTED = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)
CHUNK = 2**22
"""Numbers in the patches that are held at a time."""


@dataclass(frozen=True)
class Moments:
    """First and second moments of the vectors that a kernel is multiplied with, over samples and positions.

    Attributes:
        mean: (inputs,) float64; for depthwise kernels (channels, taps).
        gram: (inputs, inputs) mean of ``x^T x``, float64; for depthwise kernels (channels, taps, taps); None if not asked for.
    """

    mean: np.ndarray
    gram: Optional[np.ndarray]


def can_take_patches(kernel: Kernel) -> bool:
    """Whether `moments` knows the layer: dense and plain or depthwise convolutions, channels last."""
    layer = kernel.layer
    if type(layer) not in _SUPPORTED:
        return False
    if isinstance(layer, layers.Dense):
        return True
    plain = layer.data_format == "channels_last" and layer.padding in ("same", "valid")
    return plain and (kernel.kind == "depthwise" or layer.groups == 1)


def moments(kernel: Kernel, x: np.ndarray, *, gram: bool) -> Moments:
    """Returns the moments of what `kernel` is multiplied with when its layer is called on `x`.

    Args:
        kernel: A kernel for which `can_take_patches` holds.
        x: Input of the layer, (N, ...).
        gram: Whether the second moment is wanted.
    """
    count, total, second = 0, np.zeros(1), np.zeros(1)
    for patches in _patches(kernel, x):  # (channels, P, taps), or (1, P, inputs)
        count += patches.shape[1]
        total = total + patches.sum(axis=1, dtype=np.float64)
        if gram:
            second = second + np.matmul(patches.transpose(0, 2, 1), patches).astype(np.float64)
    mean, found = total / count, second / count if gram else None
    if kernel.kind == "depthwise":
        return Moments(mean, found)
    return Moments(mean[0], None if found is None else found[0])


def _patches(kernel: Kernel, x: np.ndarray) -> Iterator[np.ndarray]:
    if kernel.kind == "dense":
        yield x.reshape(1, -1, x.shape[-1]).astype(np.float32)
        return
    layer, size = kernel.layer, kernel.shape[:-2]
    image = x if len(size) == 2 else x[:, np.newaxis]  # a 1D convolution is one with a height of 1
    sizes, strides, rates = (_two(value, len(size)) for value in (size, layer.strides, layer.dilation_rate))
    step = max(1, CHUNK // max(1, int(np.prod(image.shape[1:])) * int(np.prod(size))))
    for start in range(0, len(image), step):
        part = tf.image.extract_patches(
            tf.constant(image[start : start + step], tf.float32),
            [1, *sizes, 1],
            [1, *strides, 1],
            [1, *rates, 1],
            layer.padding.upper(),
        ).numpy()
        flat = part.reshape(-1, int(np.prod(size)), image.shape[-1])  # (P, taps, channels)
        yield flat.transpose(2, 0, 1) if kernel.kind == "depthwise" else flat.reshape(1, len(flat), -1)


def _two(value: Any, rank: int) -> tuple[int, int]:
    return (1, int(value[0])) if rank == 1 else (int(value[0]), int(value[1]))
