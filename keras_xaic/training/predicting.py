"""The outputs of a model, batch by batch; one that is being trained is traced once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_xaic._keras import Model, tf
from keras_xaic.data import Samples, concatenated, joined
from keras_xaic.models.ports import ports_of

BATCH = 256
_traced: dict[int, Any] = {}
"""The compiled calls of models that are being trained, by the `id` of the model."""


def predict(model: Model, samples: Samples) -> Any:
    """Returns the model's outputs, (N, ...) float32, batch by batch; of several outputs `Parts`."""
    call = _traced.get(id(model)) or _compiled(model)
    names, parts = ports_of(model).outputs, []
    for start in range(0, len(samples), BATCH):
        feeds = [tf.constant(one) for one in samples.feeds(slice(start, start + BATCH))]
        outputs = tf.nest.flatten(call(feeds if len(feeds) > 1 else feeds[0]))
        parts.append(joined([np.asarray(one) for one in outputs], names if len(names) > 1 else ()))
    return concatenated(parts)


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


def _compiled(model: Model) -> Any:
    return tf.function(lambda x: model(x, training=False), reduce_retracing=True)
