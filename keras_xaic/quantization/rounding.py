"""Rounding without training: what one weight's rounding does to a layer's outputs, the weights after it make up for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Optional

import numpy as np

from keras_xaic.data import Samples
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models.kernels import Kernel, layer_kernels
from keras_xaic.models.operations import Operations
from keras_xaic.quantization.input_moments import Moments, can_take_patches, moments

if TYPE_CHECKING:
    from keras_xaic._keras import Model

LARGEST_GRAM = 4096
"""Kernels with more inputs per output than this are rounded to nearest: the work grows with the cube of the inputs."""
DAMPING = 0.01
"""Share of its mean that is added to a Gram matrix's diagonal: inputs that never vary would make it singular."""
BLOCK = 128
"""Rows whose errors are handed on together; changes the speed, not the result."""
LARGEST_TENSOR = 2**24
"""Most numbers in one activation tensor; fewer samples are taken for larger models."""


def round_by_outputs(
    model: Model,
    kernels: Mapping[str, QuantizedKernel],
    reference: Model,
    samples: Samples,
    masks: Optional[Mapping[str, np.ndarray]] = None,
) -> dict[str, QuantizedKernel]:
    """Rounds kernels again so that layer outputs, not weights, stay close to those of `reference`.

    In network order, each kernel sees the inputs that the rounded layers in front of it make. Its integers are those of
    `compensate`; its bias takes up what is left of the shift of the mean output (Nagel et al. 2019, arXiv 1906.04721, section
    4.2). Transposed, grouped and separable convolutions stay as they are.

    Args:
        model: A canonical model on its grids; kernels and biases are replaced in place.
        kernels: Kernel key -> bits and steps to round to.
        reference: The same model before rounding (and before pruning).
        samples: Calibration data.
        masks: Kernel key -> boolean mask; False weights stay zero.

    Returns:
        Kernel key -> the new grid; the model's kernels equal their `values` bit for bit.
    """
    ours, theirs = Operations(model), Operations(reference)
    largest = max(int(np.prod([size or 1 for size in shape[1:]])) for shape in ours.shapes.values())
    inputs = samples.feeds(slice(0, max(16, LARGEST_TENSOR // largest)))
    rounded, exact = (one.start(inputs) for one in (ours, theirs))
    last_reader = {key: number for number, operation in enumerate(ours) for key in operation.inputs}
    result: dict[str, QuantizedKernel] = {}
    for number, (mine, other) in enumerate(zip(ours, theirs)):
        found = layer_kernels(mine.layer, mine.path)
        if len(found) == 1 and found[0].key in kernels and found[0].key not in result and can_take_patches(found[0]):
            key = found[0].key
            original = layer_kernels(other.layer, other.path)[0]
            mask = None if masks is None else masks.get(key)
            seen, meant = np.asarray(rounded[mine.inputs[0]]), np.asarray(exact[other.inputs[0]])
            result[key] = _round_kernel(found[0], kernels[key], original, seen, meant, mask)
        for operation, tensors in ((mine, rounded), (other, exact)):
            tensors.update(zip(operation.outputs, operation.call(tensors)))
            for key in {key for key in operation.inputs if last_reader[key] == number and key not in ours.outputs}:
                del tensors[key]
    return {key: result.get(key, grid) for key, grid in kernels.items()}


def _round_kernel(
    kernel: Kernel, grid: QuantizedKernel, original: Kernel, seen: np.ndarray, meant: np.ndarray, mask: Optional[np.ndarray]
) -> QuantizedKernel:
    weights = original.value
    fan_in = weights.size // kernel.channels
    small = fan_in <= LARGEST_GRAM
    measured = moments(kernel, seen, gram=small)
    if small:
        grid = replace(grid, integers=_compensated(kernel, weights, grid, measured, mask))
        kernel.variable.assign(grid.values)
    if kernel.has_bias:
        shift = _mean_output(kernel, weights, moments(original, meant, gram=False)) - _mean_output(
            kernel, grid.values, measured
        )
        kernel.layer.bias.assign_add(shift.astype(np.float32))
    return grid


def _compensated(
    kernel: Kernel, weights: np.ndarray, grid: QuantizedKernel, measured: Moments, mask: Optional[np.ndarray]
) -> np.ndarray:
    assert measured.gram is not None
    limit = 2 ** (grid.bits - 1) - 1
    steps = np.broadcast_to(grid.scale, weights.shape).astype(np.float64)
    keep = np.ones(weights.shape, bool) if mask is None else mask
    if kernel.kind != "depthwise":
        rows = (-1, weights.shape[-1])
        flat = compensate(weights.reshape(rows), steps.reshape(rows)[0], limit, measured.gram, keep.reshape(rows))
        return flat.reshape(weights.shape)
    integers = np.empty(weights.shape, np.int8)  # one small problem for each input channel
    for channel in range(weights.shape[-2]):
        part = (..., channel, slice(None))
        rows = (-1, weights.shape[-1])
        flat = compensate(
            weights[part].reshape(rows), steps[part].reshape(rows)[0], limit, measured.gram[channel], keep[part].reshape(rows)
        )
        integers[part] = flat.reshape(weights[part].shape)
    return integers


def _mean_output(kernel: Kernel, weights: np.ndarray, measured: Moments) -> np.ndarray:
    """The mean over samples and positions of what a kernel adds up, (channels,) float64."""
    if kernel.kind != "depthwise":
        return measured.mean @ weights.reshape(-1, weights.shape[-1]).astype(np.float64)
    taps = weights.reshape(-1, *weights.shape[-2:]).astype(np.float64)
    return np.einsum("ct,tcm->cm", measured.mean, taps).ravel()


def compensate(
    weights: np.ndarray, steps: np.ndarray, limit: int, gram: np.ndarray, keep: Optional[np.ndarray] = None
) -> np.ndarray:
    """Returns integers q that make ``||x w - x (q * steps)||^2`` small over inputs x.

    Input by input, the one with the most energy first, weights are rounded to the nearest level, and the weights that are
    not rounded yet are moved by the least-squares solution to the error (Frantar et al. 2022, arXiv 2210.17323, algorithm 1;
    with zeros: Frantar & Alistarh 2023, arXiv 2301.00774). With uncorrelated inputs this is rounding to nearest.

    Args:
        weights: (inputs, outputs).
        steps: (outputs,) or (1,) steps of the grid.
        limit: Largest level.
        gram: (inputs, inputs) mean of ``x^T x``.
        keep: (inputs, outputs) boolean; False weights become zero. None keeps all.

    Returns:
        (inputs, outputs) int8, within +-limit.
    """
    count = len(weights)
    damped = gram + np.eye(count) * max(DAMPING * float(np.trace(gram)) / count, 1e-12)
    order = np.argsort(-np.diag(gram), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = weights[order].astype(np.float64)
    kept = np.ones(left.shape, bool) if keep is None else keep[order]
    levels = np.zeros(left.shape)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        errors = np.empty((stop - start, left.shape[1]))
        for row in range(start, stop):
            levels[row] = np.clip(np.round(left[row] / steps), -limit, limit) * kept[row]
            errors[row - start] = (left[row] - levels[row] * steps) / upper[row, row]
            left[row + 1 : stop] -= np.outer(upper[row, row + 1 : stop], errors[row - start])
        left[stop:] -= upper[start:stop, stop:].T @ errors
    integers = np.empty(left.shape, np.int8)
    integers[order] = levels.astype(np.int8)
    return integers
