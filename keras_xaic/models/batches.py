"""Models that fix the size of their batches: here they take batches of any size."""

from __future__ import annotations

import numpy as np

from keras_xaic._keras import Layer, Model, tf
from keras_xaic.errors import ModelError, XaicError, first_line
from keras_xaic.models.operations import Operation
from keras_xaic.models.rebuilding import rebuilt, with_layers
from keras_xaic.models.stateless import freed

_TOLERANCE = 1e-5
"""Largest difference of outputs, as a share of the largest one, that comes of sums in another order."""


def for_any_batch(model: Model) -> Model:
    """Returns the model for batches of any size: itself where it takes them, else a flat clone.

    Training, relevance and interpreters each take the samples at a time that suit them.

    Args:
        model: A built model. It is not changed.

    Raises:
        ModelError: If an operation in it needs batches of one size.
    """
    size = next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0] is not None), None)
    if size is None:
        return model
    try:
        made = with_layers(model, _freed, any_batch=True)
        wrong = "" if _is_same(model, made, size) else "it gives other outputs without them"
    except XaicError:
        raise
    except Exception as error:  # whatever an operation raises on a batch of another size
        wrong = first_line(error)
    if wrong:
        raise ModelError(
            f"model {model.name!r} needs batches of {size} samples ({wrong})",
            "a model for batches of any size",
            "Give its inputs no batch size, and shapes inside it -1 in its place",
        )
    return made


def _freed(operation: Operation) -> Layer:
    return rebuilt(operation.layer, freed({**operation.layer.get_config(), "name": operation.path}))


def _is_same(model: Model, made: Model, size: int) -> bool:
    """Whether both give the same for a batch, and the second one for half of it, and for one and a half."""
    random = np.random.default_rng(0)
    xs = [random.uniform(size=(size, *(one or 4 for one in tensor.shape[1:]))) for tensor in model.inputs]
    wanted = _outputs(model, xs)
    for order in (np.arange(size), np.arange(size)[: (size + 1) // 2], np.resize(np.arange(size), size + (size + 1) // 2)):
        for one, found in zip(wanted, _outputs(made, [x[order] for x in xs])):
            one = one[order]
            if one.shape != found.shape or not np.allclose(one, found, 0, _TOLERANCE * max(1.0, float(np.abs(one).max()))):
                return False
    return True


def _outputs(model: Model, xs: list[np.ndarray]) -> list[np.ndarray]:
    given = [tf.cast(tf.constant(x), tensor.dtype) for x, tensor in zip(xs, model.inputs)]
    return [np.asarray(one, np.float32) for one in tf.nest.flatten(model(tf.nest.pack_sequence_as(model.input, given)))]
