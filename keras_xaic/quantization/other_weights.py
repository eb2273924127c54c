"""Matrices that are in no kernel, on coarser grids: those of recurrent, attention and embedding layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from keras_xaic._keras import Model
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.models.kernels import other_matrices

LEAST = 256
"""Matrices of fewer weights are left alone."""
PLAIN_LEVEL = 127
"""Largest level of the grid that a matrix lies on in every file of integers."""


def hold_rounded(model: Model, bits: Mapping[str, int]) -> list[str]:
    """Rounds matrices and freezes their layers: the rest of the model is to be trained to live with them.

    Args:
        model: A flat model; changed in place.
        bits: Layer path -> bits of its matrices, as `Plan.rounded` has them.

    Returns:
        Names of the layers that were not frozen before, for `release`.
    """
    round_others(model, bits)
    held = [layer for layer in model.layers if layer.name in bits and layer.trainable]
    for layer in held:
        layer.trainable = False
    return [layer.name for layer in held]


def release(model: Model, names: Collection[str]) -> None:
    """Makes layers that `hold_rounded` froze as they were, in this model or a clone of it."""
    for layer in model.layers:
        if layer.name in names:
            layer.trainable = True


def round_others(model: Model, bits: Mapping[str, int]) -> None:
    """Rounds matrices to one uniform grid each, in place; what lies on so few levels already stays as it is.

    Args:
        model: A model.
        bits: See `hold_rounded`.
    """
    for path, matrices in other_matrices(model).items():
        for one in matrices if path in bits else ():
            value = one.numpy()
            if has_bytes(value) and bits_of(value) > bits[path]:
                one.assign(quantize(value, bits[path], fit_scale(value, bits[path], ())).values)


def has_bytes(value: np.ndarray) -> bool:
    """Returns whether rounding a matrix saves bytes: not that of biases, of scales along several axes, of whole numbers."""
    return value.size >= LEAST and np.issubdtype(value.dtype, np.floating) and bool(np.isfinite(value).all())


def bits_of(value: np.ndarray) -> int:
    """Returns the fewest bits, 2 to 8, of a grid with as many levels as a matrix has values."""
    return min(8, max(2, len(np.unique(value)).bit_length()))


def coded_bytes(value: np.ndarray, bits: int) -> float:
    """Returns about how many bytes the download needs for a matrix: the entropy of its levels.

    Args:
        value: The matrix.
        bits: Of its grid; 8 is that of a file of integers.
    """
    if bits < bits_of(value):
        levels = quantize(value, bits, fit_scale(value, bits, ())).integers
    else:
        levels = np.round(value * (PLAIN_LEVEL / max(float(np.abs(value).max(initial=0.0)), 1e-30)))
    counts = np.unique(levels, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum() * value.size / 8)
