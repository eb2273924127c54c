"""Weights exactly on a grid: what training promises and what export must reproduce bit for bit."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from keras_xaic.errors import DataError, ExportError
from keras_xaic.files import save_arrays
from keras_xaic.npz import Npz


@dataclass(frozen=True)
class QuantizedKernel:
    """A kernel whose every weight is ``integers * scale``: uniform levels, or the few that a codebook names; zero point 0.

    Attributes:
        integers: Levels k, int8, in the kernel's Keras shape, within +-(2^(bits-1)-1), with a codebook within +-127.
        scale: Positive, float32, broadcastable to `integers`: one element (per tensor) or one per output channel,
            e.g. (1, 1, 1, filters) for Conv2D, (1, 1, channels, multiplier) for DepthwiseConv2D.
        bits: Bit-width, 2 to 8; of the index into the codebook if there is one.
        codebook: The levels that weights may take, int8, ascending along the last axis, 0 among them; None for a uniform
            grid. At most 2^bits levels: of shape (levels,) for the whole kernel, or ``(*scale.shape, levels)`` where every
            scale has its own.
    """

    integers: np.ndarray
    scale: np.ndarray
    bits: int
    codebook: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ExportError(f"bit-width {self.bits}", "2 to 8")
        if not (np.all(self.scale > 0) and np.all(np.isfinite(self.scale))):
            raise ExportError("a grid has a scale that is not positive and finite", "positive finite scales")
        if self.integers.size and int(np.abs(self.integers.astype(np.int16)).max()) > self.limit:
            raise ExportError(
                f"a {self.level_bits}-bit grid holds a level beyond +-{self.limit}", f"levels within +-{self.limit}"
            )
        if self.codebook is not None:
            _check_codebook(self.integers, self.codebook, self.bits)

    @property
    def level_bits(self) -> int:
        """Bits that the levels themselves take: 8 with a codebook, whose levels may lie anywhere in int8."""
        return self.bits if self.codebook is None else 8

    @property
    def limit(self) -> int:
        """Largest level that the grid may hold."""
        return int(2 ** (self.level_bits - 1) - 1)

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
        integers = (self.integers * sign).astype(np.int8)
        codebook = self.codebook
        if codebook is not None and np.any(sign < 0):  # from here on every channel has levels of its own
            turned = codebook * np.where(sign < 0, -1, 1).astype(np.int8)[..., None]
            codebook = np.sort(np.broadcast_to(turned, (*scale.shape, codebook.shape[-1])), axis=-1)
        return QuantizedKernel(integers, scale.astype(np.float32), self.bits, codebook)

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
        """Number of weights on each level, from -`limit` to +`limit`, int64."""
        return np.bincount(self.integers.astype(np.int64).ravel() + self.limit, minlength=2 * self.limit + 1)

    @property
    def entropy_bits(self) -> float:
        """Zeroth-order entropy of the levels in bits per weight (Shannon 1948)."""
        counts = self.histogram[self.histogram > 0]
        probability = counts / counts.sum()
        return float(-(probability * np.log2(probability)).sum())

    @property
    def record(self) -> dict[str, Any]:
        """What a machine needs to check the grid: plain numbers, ready for JSON.

        Holds ``grid`` (``uniform`` or ``codebook``), ``bits``, ``scale`` (flat list), ``levels`` (the levels in use),
        ``histogram`` (weights on each of them), ``entropy_bits`` and ``sparsity``.
        """
        levels = np.flatnonzero(self.histogram)
        return {
            "grid": "uniform" if self.codebook is None else "codebook",
            "bits": self.bits,
            "scale": [float(step) for step in self.scale.ravel()],
            "levels": (levels - self.limit).tolist(),
            "histogram": self.histogram[levels].tolist(),
            "entropy_bits": self.entropy_bits,
            "sparsity": self.sparsity,
        }


def _check_codebook(integers: np.ndarray, codebook: np.ndarray, bits: int) -> None:
    if not 1 <= codebook.shape[-1] <= 2**bits:
        raise ExportError(f"a codebook of {codebook.shape[-1]} levels for {bits} bits", f"1 to {2**bits} levels")
    if np.any(np.diff(codebook.astype(np.int16), axis=-1) < 0) or not np.all(np.any(codebook == 0, axis=-1)):
        raise ExportError("a codebook is not ascending or lacks 0", "ascending levels, 0 among them")
    member = np.zeros(integers.shape, bool)
    for place in range(codebook.shape[-1]):
        member |= integers == codebook[..., place]
    if not member.all():
        raise ExportError(f"{int((~member).sum())} weights are not on their codebook", "levels of the codebook only")


def save_kernels(kernels: Mapping[str, QuantizedKernel], path: Union[str, pathlib.Path]) -> None:
    """Writes the record ``{weight key: grid}`` as one compressed .npz (read it back with `load_kernels`)."""
    arrays = {}
    for key, kernel in kernels.items():
        arrays[f"{key}|integers"] = kernel.integers
        arrays[f"{key}|scale"] = kernel.scale
        arrays[f"{key}|bits"] = np.asarray(kernel.bits)
        if kernel.codebook is not None:
            arrays[f"{key}|codebook"] = kernel.codebook
    save_arrays(path, arrays)


def load_kernels(path: Union[str, pathlib.Path]) -> dict[str, QuantizedKernel]:
    """Reads what `save_kernels` wrote.

    Raises:
        DataError: If it is something else.
    """
    expected = "grids.npz as `xaic compress` writes it"
    arrays = Npz(path, expected)
    kernels = {}
    for key in [name.rsplit("|", 1)[0] for name in arrays if name.endswith("|integers")]:
        try:
            kernels[key] = _kernel(arrays, key)
        except (KeyError, ValueError, ExportError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "found", error)
            raise DataError(f"{path}: the grid of {key} cannot be used: {said}", expected) from None
    return kernels


def _kernel(arrays: Mapping[str, np.ndarray], key: str) -> QuantizedKernel:
    integers, scale, bits = (arrays[f"{key}|{name}"] for name in ("integers", "scale", "bits"))
    codebook = arrays.get(f"{key}|codebook")
    if integers.dtype != np.int8 or scale.dtype != np.float32 or bits.shape != () or bits.dtype.kind not in "iu":
        raise ValueError(f"integers {integers.dtype}, scale {scale.dtype}, bits {bits.dtype} {bits.shape}")
    if np.broadcast_shapes(integers.shape, scale.shape) != integers.shape:
        raise ValueError(f"integers {integers.shape} and scale {scale.shape}")
    if codebook is None:
        return QuantizedKernel(integers, scale, int(bits))
    if codebook.dtype != np.int8 or codebook.ndim == 0 or codebook.shape[:-1] not in ((), scale.shape):
        raise ValueError(f"codebook {codebook.dtype} {codebook.shape}")
    return QuantizedKernel(integers, scale, int(bits), codebook)


_SHARES = {bits: np.geomspace(1.0, least, 16) for bits, least in {2: 0.04, 3: 0.15, 4: 0.3, 5: 0.4, 6: 0.4, 7: 0.4}.items()}
"""Scales to try, as shares of the one at which nothing is clipped."""


def fit_scale(kernel: np.ndarray, bits: int, axes: tuple[int, ...]) -> np.ndarray:
    """Returns the scale of a symmetric uniform grid with the least squared error.

    The scale is searched among shares of max|w| / (2^(bits-1)-1): clipping the few largest weights buys a finer grid for
    the many small ones (cf. Banner et al. 2019, arXiv 1810.05723), down to a small share where there are few levels. Then it
    is refined to ``sum(w k) / sum(k^2)``, the best scale for the levels k that it gave.

    Args:
        kernel: The weights.
        bits: Bit-width, 2 to 8.
        axes: Channel axes that get a scale each; () for one per tensor.

    Returns:
        Positive scales, float32, broadcastable to `kernel`. A channel of zeros gets the mean scale of the others.
    """
    limit = 2 ** (bits - 1) - 1
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    largest = np.abs(kernel).max(axis=others, keepdims=True).astype(np.float64)
    dead = largest == 0
    largest[dead] = largest[~dead].mean() if (~dead).any() else 1.0
    best = largest / limit
    least = np.full(largest.shape, np.inf)

    def consider(step: np.ndarray) -> None:
        nonlocal best, least
        error = np.square(np.clip(np.round(kernel / step), -limit, limit) * step - kernel).sum(axis=others, keepdims=True)
        better = error < least
        best, least = np.where(better, step, best), np.where(better, error, least)

    for share in _SHARES.get(bits, [1.0]):
        consider(share * largest / limit)
    for _ in range(2 if bits < 8 else 0):
        level = np.clip(np.round(kernel / best), -limit, limit)
        power = np.square(level).sum(axis=others, keepdims=True)
        consider(np.where(power > 0, (kernel * level).sum(axis=others, keepdims=True) / np.maximum(power, 1.0), best))
    return np.asarray(best, np.float32)


def quantize(kernel: np.ndarray, bits: int, scale: np.ndarray) -> QuantizedKernel:
    """Returns `kernel` rounded to the nearest level of the grid."""
    limit = 2 ** (bits - 1) - 1
    integers = np.clip(np.round(kernel / scale), -limit, limit).astype(np.int8)
    return QuantizedKernel(integers, scale.astype(np.float32), bits)
