"""BatchNorm statistics measured again, after what comes before a BatchNorm has changed."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor, layers, tf
from keras_xaic.data import Samples
from keras_xaic.models.operations import Operation, Operations

MOST_SAMPLES = 1024
MOST_BYTES = 1 << 28
"""No tensor of the network is held for more samples than fit into this."""


def remeasure_batchnorm(model: Model, samples: Samples, batch_size: int = 64) -> bool:
    """Sets every BatchNorm's moving mean and variance to those of its input, in place, and returns whether there are any.

    Removing channels and a few steps of training move the inputs of every BatchNorm away from its moving averages, which
    follow only slowly. Layers are run one after the other in inference mode over all samples, so that each sees what the
    layers in front of it give with *their* new statistics: mean and variance are exact, pooled over batches (more than the
    batch statistics of Wu & Johnson 2021, arXiv 2105.07576, section 3, in one pass, too).

    Args:
        model: A functional or sequential model. BatchNorm layers that are frozen, or called more than once, keep their
            statistics.
        samples: Training samples, of which up to a thousand are used, evenly spread.
        batch_size: Samples at a time.
    """
    operations = Operations(model)
    calls = Counter(operation.path for operation in operations)
    wanted = [one for one in operations if _has_statistics(one) and calls[one.path] == 1 and one.path not in operations.frozen]
    if not wanted:
        return False
    largest = max(math.prod(size or 1 for size in shape[1:]) for shape in operations.shapes.values())
    count = min(len(samples), MOST_SAMPLES, max(batch_size, MOST_BYTES // (4 * largest)))
    samples = samples.take(np.linspace(0, len(samples) - 1, count).astype(int))  # all classes of data that lies class by class
    starts = range(0, len(samples), batch_size)
    tensors = [operations.start(samples.feeds(slice(start, start + batch_size))) for start in starts]
    last_use = {key: number for number, operation in enumerate(operations) for key in operation.inputs}
    last = max(number for number, operation in enumerate(operations) if operation in wanted)
    for number, operation in enumerate(operations):
        if operation in wanted:
            _measure(operation.layer, [batch[operation.inputs[0]] for batch in tensors])
        if number == last:
            break
        for batch in tensors:
            batch.update(zip(operation.outputs, operation.call(batch)))
            for key in operation.inputs:
                if last_use[key] == number:
                    batch.pop(key, None)
    return True


def _has_statistics(operation: Operation) -> bool:
    return isinstance(operation.layer, layers.BatchNormalization)


def _measure(layer: Layer, batches: list[Tensor]) -> None:
    kept = {axis % len(batches[0].shape) for axis in tf.nest.flatten(layer.axis)}
    over = tuple(axis for axis in range(len(batches[0].shape)) if axis not in kept)
    values = [np.asarray(batch, np.float64) for batch in batches]
    count = sum(value.size for value in values) / layer.moving_mean.shape.num_elements()
    mean = sum(value.sum(axis=over, keepdims=True) for value in values) / count
    variance = sum(np.square(value - mean).sum(axis=over, keepdims=True) for value in values) / count
    layer.moving_mean.assign(mean.reshape(layer.moving_mean.shape))
    layer.moving_variance.assign(variance.reshape(layer.moving_variance.shape))
