"""Whether a model gives for a sample what it gives for it alone, as a file does, which sees one sample at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_xaic._keras import Model, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.operations import Operations

_TOLERANCE = 1e-3
"""Largest difference, as a share of the largest value: sums of batches come in another order."""


def require_alone(model: Model) -> Model:
    """Returns the model, if its outputs depend on nothing but the sample.

    Args:
        model: A built functional or sequential model. Models for batches of one size are looked at where that is freed.

    Raises:
        ModelError: Naming the layer that draws random numbers, or looks at the other samples of a batch.
    """
    if any(tensor.shape[0] is not None for tensor in model.inputs):
        return model
    random = np.random.default_rng(0)
    xs = [_some(tensor, random) for tensor in model.inputs]
    try:
        with _untouched(model):
            (first, again), single = (_outputs(model, xs) for _ in range(2)), _outputs(model, [x[:1] for x in xs])
    except Exception:  # free dimensions that took a wrong size, a layer that does not compute here: said where it is used
        return model
    is_random = not _are_close(first, again)
    if not is_random and _are_close([one[:1] for one in first], single):
        return model
    trained = _in_training(model)
    if trained:
        raise ModelError(
            f"layer {trained[0]!r} of model {model.name!r} is called with training=True: what it gives depends on chance, or "
            "on the other samples of a batch",
            "a model that gives for a sample what it gives for it alone",
            "Make the model without training=True, and give it the weights: new.set_weights(model.get_weights())",
        )
    if is_random:
        raise draws_random(model.name)
    raise ModelError(
        f"model {model.name!r} gives for a sample what depends on the other samples of a batch{_first_of(model, xs)}",
        "outputs that depend on the sample alone: files see one at a time",
        "Give the model without it, with a constant in the place of what is computed of a batch",
    )


def draws_random(name: str) -> ModelError:
    """Returns the error of a model with unlike outputs for the same inputs."""
    found = f"the model {name!r} draws random numbers: twice the same inputs give unlike outputs"
    return ModelError(found, "outputs that depend on inputs alone", "Give the model without them, the mean in place of samples")


def _some(tensor: Any, random: np.random.Generator) -> np.ndarray:
    values = random.uniform(0, 2, (3, *(size or 4 for size in tensor.shape[1:])))
    return np.asarray(values.astype(tensor.dtype.as_numpy_dtype))


def _outputs(model: Model, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    given = model(tf.nest.pack_sequence_as(model.input, [tf.constant(x) for x in xs]), training=False)
    return [np.asarray(one, np.float32) for one in tf.nest.flatten(given)]


def _are_close(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(
        a.shape == b.shape and np.allclose(a, b, 0, _TOLERANCE * float(np.abs(a).max(initial=0)) + 1e-6, equal_nan=True)
        for a, b in zip(some, others)
    )


@contextlib.contextmanager
def _untouched(model: Model) -> Iterator[None]:
    """Gives statistics back that calls in training mode move."""
    before = [(one, one.numpy()) for one in model.non_trainable_weights]
    try:
        yield
    finally:
        for variable, value in before:
            if not np.array_equal(variable.numpy(), value, equal_nan=value.dtype.kind == "f"):
                variable.assign(value)


def _in_training(model: Model) -> list[str]:
    """Returns the layers that are called in training mode, those of nested models included."""
    found = []
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            known, given = node.layer._call_spec, (node.call_args, node.call_kwargs)
            if known.arg_was_passed("training", *given, inputs_in_args=True):
                value = known.get_arg_value("training", *given, inputs_in_args=True)
                found += [node.layer.name] if isinstance(value, (bool, int)) and value else []
            if hasattr(node.layer, "_nodes_by_depth"):
                found += _in_training(node.layer)
    return found


def _first_of(model: Model, xs: Sequence[np.ndarray]) -> str:
    """Returns the first layer whose outputs depend on other samples, for a message; empty where none is found."""
    operations = Operations(model)
    whole, single = operations.start(xs), operations.start([x[:1] for x in xs])
    for operation in operations:
        for tensors in (whole, single):
            tensors.update(zip(operation.outputs, operation.call(tensors)))
        for key in operation.outputs:
            both = [np.asarray(tensors[key]) for tensors in (whole, single)]
            alike = len(both[0]) == len(xs[0]) and both[0].dtype.kind in "iuf" and both[0].ndim > 0
            if not alike or not _are_close([both[0][:1]], [both[1]]):
                return f", by layer {operation.path!r}"
    return ""
