"""Weights exactly on a grid: what training promises and what export must reproduce bit for bit."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

import numpy as np

from keras_xaic.errors import ExportError


@dataclass(frozen=True)
class QuantizedKernel:
    """A kernel whose every weight is ``integers * scale``: a symmetric uniform grid with zero point 0.

    Attributes:
        integers: Grid levels k, int8, in the kernel's Keras shape, within +-(2^(bits-1)-1).
        scale: Positive step, float32, broadcastable to `integers`: one element (per tensor) or one per output channel,
            e.g. (1, 1, 1, filters) for Conv2D, (1, 1, channels, multiplier) for DepthwiseConv2D.
        bits: Bit-width, 2 to 8.
    """

    integers: np.ndarray
    scale: np.ndarray
    bits: int

    def __post_init__(self) -> None:
        limit = 2 ** (self.bits - 1) - 1
        if not 2 <= self.bits <= 8:
            raise ExportError(f"bit-width {self.bits}", "2 to 8")
        if self.integers.size and int(np.abs(self.integers.astype(np.int16)).max()) > limit:
            raise ExportError(f"a {self.bits}-bit grid holds a level beyond +-{limit}", f"levels within +-{limit}")
        if not (np.all(self.scale > 0) and np.all(np.isfinite(self.scale))):
            raise ExportError("a grid has a step that is not positive and finite", "positive finite steps")

    @property
    def values(self) -> np.ndarray:
        """The weights, float32, in the kernel's Keras shape."""
        return self.integers.astype(np.float32) * self.scale.astype(np.float32)

    def scaled(self, gain: np.ndarray) -> QuantizedKernel:
        """Returns the grid of ``values * gain``; `gain` is broadcastable and constant within a channel.

        A negative gain turns the signs of the integers, a gain of zero makes them zero.
        """
        sign = np.sign(gain).astype(np.int8)
        scale = self.scale * np.where(gain == 0, 1.0, np.abs(gain)).astype(np.float32)
        return QuantizedKernel((self.integers * sign).astype(np.int8), scale.astype(np.float32), self.bits)

    @property
    def per_tensor(self) -> bool:
        """Whether one scale serves the whole kernel."""
        return self.scale.size == 1

    @property
    def sparsity(self) -> float:
        """Fraction of zero weights."""
        return float(np.mean(self.integers == 0))

    @property
    def histogram(self) -> np.ndarray:
        """Number of weights on each level, from -(2^(bits-1)-1) to +(2^(bits-1)-1), int64."""
        limit = 2 ** (self.bits - 1) - 1
        return np.bincount(self.integers.astype(np.int64).ravel() + limit, minlength=2 * limit + 1)

    @property
    def entropy_bits(self) -> float:
        """Zeroth-order entropy of the levels in bits per weight (Shannon 1948)."""
        counts = self.histogram[self.histogram > 0]
        probability = counts / counts.sum()
        return float(-(probability * np.log2(probability)).sum())


def save_kernels(kernels: Mapping[str, QuantizedKernel], path: Union[str, pathlib.Path]) -> None:
    """Writes the record ``{weight key: grid}`` as one compressed .npz (read it back with `load_kernels`)."""
    arrays = {}
    for key, kernel in kernels.items():
        arrays[f"{key}|integers"] = kernel.integers
        arrays[f"{key}|scale"] = kernel.scale
        arrays[f"{key}|bits"] = np.asarray(kernel.bits)
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_kernels(path: Union[str, pathlib.Path]) -> dict[str, QuantizedKernel]:
    """Reads what `save_kernels` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        keys = [name.rsplit("|", 1)[0] for name in arrays.files if name.endswith("|integers")]
        return {
            key: QuantizedKernel(arrays[f"{key}|integers"], arrays[f"{key}|scale"], int(arrays[f"{key}|bits"])) for key in keys
        }


def fit_scale(kernel: np.ndarray, bits: int, axes: tuple[int, ...]) -> np.ndarray:
    """Returns the step of a symmetric uniform grid with the least squared error.

    The step is searched among shares of max|w| / (2^(bits-1)-1): clipping the few largest weights buys a finer grid for
    the many small ones (cf. Banner et al. 2019, arXiv 1810.05723).

    Args:
        kernel: The weights.
        bits: Bit-width, 2 to 8.
        axes: Channel axes that get a step each; () for one step per tensor.

    Returns:
        Positive steps, float32, broadcastable to `kernel`. A channel of zeros gets the mean step of the others.
    """
    limit = 2 ** (bits - 1) - 1
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    largest = np.abs(kernel).max(axis=others, keepdims=True).astype(np.float64)
    dead = largest == 0
    largest[dead] = largest[~dead].mean() if (~dead).any() else 1.0
    best = largest / limit
    least = np.full(largest.shape, np.inf)
    for share in np.linspace(1.0, 0.4, 16) if bits < 8 else [1.0]:
        step = share * largest / limit
        error = np.square(np.clip(np.round(kernel / step), -limit, limit) * step - kernel).sum(axis=others, keepdims=True)
        better = error < least
        best, least = np.where(better, step, best), np.where(better, error, least)
    return best.astype(np.float32)


def quantize(kernel: np.ndarray, bits: int, scale: np.ndarray) -> QuantizedKernel:
    """Returns `kernel` rounded to the nearest level of the grid with step `scale`."""
    limit = 2 ** (bits - 1) - 1
    integers = np.clip(np.round(kernel / scale), -limit, limit).astype(np.int8)
    return QuantizedKernel(integers, scale.astype(np.float32), bits)
