"""The outputs of a model, batch by batch; one that is being trained is traced once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_xaic._keras import Model, tf
from keras_xaic.data import Samples, concatenated, joined
from keras_xaic.models.ports import ports_of

BATCH = 256
LARGEST = 2**26
"""Most numbers in one tensor between layers; of large models batches are smaller."""
FEW = 2
"""Batches that take less time than tracing a model does."""
_traced: dict[int, Any] = {}
"""The compiled calls of models that are being trained, by the `id` of the model."""


def predict(model: Model, samples: Samples) -> Any:
    """Returns the model's outputs, (N, ...) float32, batch by batch; of several outputs `Parts`."""
    names, parts, size = ports_of(model).outputs, [], _batch_size(model)
    call = _traced.get(id(model)) or (_calling if len(samples) <= FEW * size else _compiled)(model)
    for start in range(0, len(samples), size):
        feeds = [tf.constant(one) for one in samples.feeds(slice(start, start + size))]
        outputs = tf.nest.flatten(call(feeds if len(feeds) > 1 else feeds[0]))
        parts.append(joined([np.asarray(one) for one in outputs], names if len(names) > 1 else ()))
    return concatenated(parts)


def _batch_size(model: Model) -> int:
    """Returns how many samples go through the model at a time."""
    given = [tensor for layer in model.layers for node in layer.inbound_nodes for tensor in tf.nest.flatten(node.outputs)]
    largest = max((int(np.prod([size or 1 for size in tensor.shape[1:]])) for tensor in given), default=1)
    return max(1, min(BATCH, LARGEST // max(1, largest)))


@contextlib.contextmanager
def traced_once(model: Model) -> Iterator[None]:
    """Has `predict` trace `model` once in all; training changes its variables, not what it computes with them."""
    before = _traced.get(id(model))
    _traced[id(model)] = before or _compiled(model)
    try:
        yield
    finally:
        if before is None:
            del _traced[id(model)]


def _calling(model: Model) -> Callable[[Any], Any]:
    return lambda x: model(x, training=False)


def _compiled(model: Model) -> Any:
    return tf.function(_calling(model), reduce_retracing=True)
