"""The yardstick that needs no data: |w|."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_xaic.errors import ModelError
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.relevance.container import Relevance, layer_scores

if TYPE_CHECKING:
    from keras_xaic._keras import Model


def magnitude(model: Model, seed: int = 0) -> Relevance:
    """Returns |w| of every weight of the model as it stands, and the L2 norm of every filter (Han et al. 2015).

    Args:
        model: A functional or sequential Keras model.
        seed: Kept with the result.

    Raises:
        ModelError: If weights are not finite.
    """
    weights, filters = {}, {}
    for kernel in weighted_kernels(model):
        value = np.abs(kernel.value)
        if not np.all(np.isfinite(value)):
            raise ModelError(f"the weights {kernel.key!r} hold NaN or infinity", "finite weights", "Train the model again")
        weights[kernel.key] = value
        others = tuple(axis for axis in range(value.ndim) if axis not in kernel.channel_axes)
        name = kernel.key if kernel.attribute == "depthwise_kernel" else kernel.path
        filters[name] = np.sqrt(np.sum(np.square(value), axis=others)).reshape(-1)
    total = float(sum(np.sum(scores, dtype=np.float64) for scores in filters.values()))
    return Relevance(weights, filters, layer_scores(filters, total), rule="magnitude", target="none", start="none", seed=seed)
