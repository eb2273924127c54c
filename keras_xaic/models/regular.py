"""Models of others made regular before any work: float32, fixed shapes, no augmentation, nothing that only rounding keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import numpy as np

from keras_xaic._keras import Model, layers
from keras_xaic.models.canonical import canonicalize, input_dtype
from keras_xaic.models.folding import IDENTITIES, Wiring, as_float32, find_forward
from keras_xaic.models.kernels import Kernel, weighted_kernels
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import Operations
from keras_xaic.models.ports import keep_ports, ports_of

VANISHED = 1e-9
"""Filters whose largest weight is below this share of their kernel's largest one are zeros: float32 sums do not see them."""

_STAY = (layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)


def regularize(model: Model, shapes: Sequence[tuple[int, ...]] = ()) -> Model:
    """Returns the model as the rest of the package wants it: itself where it is regular, else a flat clone of the same outputs.

    The clone computes in float32, has no augmentation and noise layers, holds zeros for filters that vanished, and takes inputs
    of fixed shapes. Every BatchNorm that nothing in front of it takes up, and other factors of channels (of a layer
    normalisation, of a `Rescaling`, of arithmetic with constants), are in the layers behind them, where that is exact. It takes
    and gives lists where the model has dictionaries.

    Args:
        model: A built functional or sequential model. It is not changed.
        shapes: Per input the shape of one sample; it takes the place of free dimensions.

    Raises:
        ModelError: See `canonicalize`.
    """
    wanted: list[tuple[Optional[int], ...]] = [tuple(tensor.shape) for tensor in model.inputs]
    samples = [*shapes[: len(wanted)], *([()] * (len(wanted) - len(shapes)))]
    fixed = [_filled(shape, sample) for shape, sample in zip(wanted, samples)]
    operations = Operations(model)
    odd = any(isinstance(one.layer, IDENTITIES) and not isinstance(one.layer, _STAY) for one in operations)
    other = any(one.layer._compute_dtype not in (None, "float32") and one.layer.weights for one in operations)
    other = other or any(as_float32(tensor.dtype.name) != tensor.dtype.name for tensor in model.outputs)
    other = other or any(a.dtype.name != input_dtype(operations, key) for a, key in zip(model.inputs, operations.inputs))
    other = other or isinstance(model.input, Mapping) or isinstance(model.output, Mapping)
    folds = bool(find_forward(Wiring(operations)))
    if not (odd or other or folds or fixed != wanted or any(gone.any() for _, gone in _vanished(model))):
        return model
    folded = canonicalize(model, fold_into=(), fold_forward=True, shapes=fixed)
    while find_forward(Wiring(Operations(folded.model))):  # behind what was taken up, there may be more in front
        folded = canonicalize(folded.model, fold_into=(), fold_forward=True, shapes=fixed)
    for kernel, gone in _vanished(folded.model):
        if gone.any():
            kernel.variable.assign(np.where(gone, np.float32(0), kernel.value))
    keep_ports(folded.model, ports_of(model))
    carry_losses(model, folded.model)
    return folded.model


def _filled(shape: tuple[Optional[int], ...], sample: tuple[int, ...]) -> tuple[Optional[int], ...]:
    """The shape of an input, batch first, with a sample's sizes where it is free."""
    if len(shape) != len(sample) + 1:
        return shape
    return (shape[0], *(size or given for size, given in zip(shape[1:], sample)))


def _vanished(model: Model) -> Iterator[tuple[Kernel, np.ndarray]]:
    """Yields every kernel with which of its filters, broadcastable to it, are too small to be seen, and not zero."""
    for kernel in weighted_kernels(model):
        others = tuple(axis for axis in range(len(kernel.shape)) if axis not in kernel.channel_axes)
        largest = np.abs(kernel.value).max(axis=others, keepdims=True)
        yield (
            kernel,
            (largest > 0) & (largest <= max(VANISHED * float(largest.max()), float(np.finfo(np.float32).tiny) * 2**40)),
        )
