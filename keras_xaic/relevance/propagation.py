"""LRP through everything that has no weights: how relevance of an operation's output goes to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_xaic._keras import Layer, Tensor, tf
from keras_xaic.models.masking import mask_of, with_mask
from keras_xaic.models.operations import Operation
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.rules import divide, stabilised

Function = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""An operation as a function of its distinct inputs."""


def as_function(operation: Operation) -> tuple[list[str], Function]:
    """Returns the keys of an operation's distinct inputs, and the operation as a function of them."""
    keys = list(dict.fromkeys(operation.inputs))

    def function(xs: Sequence[Tensor]) -> Sequence[Tensor]:
        return operation.call(dict(zip(keys, xs)))

    return keys, function


def copy_of(x: Tensor) -> Tensor:
    """A tensor of its own for the same values, so that gradients end there; a Keras mask goes with it."""
    return with_mask(tf.identity(x), mask_of(x))


def share_of_sum(function: Function, xs: Sequence[Tensor], relevances: Sequence[Tensor], epsilon: float) -> list[Tensor]:
    """z-rule through a linear function: ``R_i = x_i sum_j dy_j/dx_i R_j / (y_j + sign(y_j) epsilon mean|y|)``.

    What chooses (conditions, numbers of rows) gets nothing.
    """
    xs = [copy_of(x) for x in xs]
    ys = function(xs)
    signals = [divide(relevance, stabilised(y, epsilon)) if y.dtype.is_floating else y for y, relevance in zip(ys, relevances)]
    found = gradients_among_floats(ys, xs, signals)
    return [tf.cast(x, tf.float32) * g for x, g in zip(xs, found)]


def follow_values(function: Function, xs: Sequence[Tensor], relevances: Sequence[Tensor]) -> list[Tensor]:
    """Relevance goes where the value came from (max, reshape, pad, concatenate, nearest up-sampling ...)."""
    xs = [copy_of(x) for x in xs]
    return _gradients(function(xs), xs, relevances)


def unchanged(x: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of an element-wise function's output is that of its input; broadcast copies are summed."""
    if x.shape == relevance.shape:
        return relevance
    x = tf.identity(x)
    return tf.gradients(x + tf.zeros_like(relevance), x, grad_ys=relevance)[0]


def share_of_product(xs: Sequence[Tensor], is_gate: Sequence[bool], relevance: Tensor) -> list[Tensor]:
    """Gates get nothing, signals share equally (the first-order term of a product at zero is the same for all factors)."""
    signals = [not gate for gate in is_gate] if not all(is_gate) else [True] * len(xs)
    part = relevance / sum(signals)
    return [unchanged(x, part) if signal else tf.zeros_like(x) for x, signal in zip(xs, signals)]


def find_gates(operation: Operation, program: Program) -> list[bool]:
    """Tells for the distinct inputs of a product which are gates: broadcast, or bounded by a sigmoid-like function."""
    keys = list(dict.fromkeys(operation.inputs))
    sizes = {key: _size(program.operations.shapes[key]) for key in keys}
    largest = max(sizes.values())
    return [sizes[key] < largest or _is_bounded(key, program) for key in keys]


_BOUNDED = ("Activation(sigmoid)", "Activation(hard_sigmoid)", "Activation(relu6)", "math.sigmoid", "nn.relu6", "clip_by_value")
_RESCALES = ("scale", "route", "product")


def _is_bounded(key: str, program: Program) -> bool:
    producer = program.operations.producer
    operation = producer.get(key)
    while operation is not None and program.how[operation.name] in _RESCALES and len(set(operation.inputs)) == 1:
        operation = producer.get(operation.inputs[0])
    return operation is not None and program.called[operation.name] in _BOUNDED


def propagate(
    operation: Operation,
    program: Program,
    tensors: Mapping[str, Tensor],
    relevances: Sequence[Tensor],
    epsilon: float,
) -> dict[str, Tensor]:
    """Returns the relevance of the inputs of an operation without weights, by key.

    Args:
        operation: What to go through.
        program: The model, for how it is treated and what stands around it.
        tensors: All tensors of the forward pass.
        relevances: Relevance of the outputs, one per output.
        epsilon: Relative stabiliser.
    """
    keys, function = as_function(operation)
    xs = [tensors[key] for key in keys]
    how = program.how[operation.name]
    if is_of_whole_numbers(operation, program, tensors):
        results = through_whole_numbers(function, xs, relevances, how, program.called[operation.name])
    elif how == "layer_norm":
        results = share_of_sum(_with_constant_deviation(operation.layer), xs, relevances, epsilon)
    elif how in ("sum", "product") and len(keys) == 1 and program.called[operation.name] != "Add":
        results = [unchanged(xs[0], relevances[0])]
    elif how == "product":
        results = share_of_product(xs, find_gates(operation, program), relevances[0])
    elif how in ("activation", "scale", "identity"):
        results = [unchanged(xs[0], relevances[0])] + [tf.zeros_like(x) for x in xs[1:]]
    elif how in ("route", "winner"):
        results = follow_values(function, xs, relevances)
    elif how == "embedding":
        results = [tf.reduce_sum(relevances[0], axis=-1)]
    else:  # sum, mean, upsample, affine; and the linearisation of what has no sound rule
        results = share_of_sum(function, xs, relevances, epsilon)
    return dict(zip(keys, results))


def is_of_whole_numbers(operation: Operation, program: Program, tensors: Mapping[str, Tensor]) -> bool:
    """Whether an operation makes whole numbers or conditions, or values out of them as they are."""
    return program.called[operation.name] == "cast" or not any(tensors[key].dtype.is_floating for key in operation.outputs)


def through_whole_numbers(
    function: Function, xs: Sequence[Tensor], relevances: Sequence[Tensor], how: str, called: str
) -> list[Tensor]:
    """Relevance (or multipliers) of whole numbers, as of rows in a table: where they came from; it ends where they are made."""
    if how == "route":
        return follow_values(function, [tf.cast(x, tf.float32) for x in xs], relevances)
    if called in ("cast", "identity"):
        return [relevances[0], *(tf.zeros_like(x, tf.float32) for x in xs[1:])]
    return [tf.zeros_like(x, tf.float32) for x in xs]


def _with_constant_deviation(layer: Layer) -> Function:
    """Layer normalisation, linear because its standard deviation is held constant (Ali et al. 2022, section 4.2)."""

    def function(xs: Sequence[Tensor]) -> Sequence[Tensor]:
        (x,) = xs
        axes = [axis % x.shape.rank for axis in (layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis])]
        mean, variance = tf.nn.moments(x, axes, keepdims=True)
        shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
        y = (x - mean) * tf.stop_gradient(tf.math.rsqrt(variance + layer.epsilon))
        if layer.scale:
            y *= tf.reshape(layer.gamma, shape)
        return (y + tf.reshape(layer.beta, shape) if layer.center else y,)

    return function


def gradients_among_floats(ys: Sequence[Tensor], xs: Sequence[Tensor], signals: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of `ys`, weighted by `signals`; zeros for what chooses among values (conditions, numbers of rows)."""
    pairs = [(y, signal) for y, signal in zip(ys, signals) if y.dtype.is_floating]
    floats = [x for x in xs if x.dtype.is_floating]
    gradients = iter(_gradients([y for y, _ in pairs], floats, [signal for _, signal in pairs]))
    return [next(gradients) if x.dtype.is_floating else tf.zeros_like(x, tf.float32) for x in xs]


def _gradients(ys: Sequence[Tensor], xs: Sequence[Tensor], signals: Sequence[Tensor]) -> list[Tensor]:
    found = tf.gradients(list(ys), list(xs), grad_ys=list(signals), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(g) for g in found]


def _size(shape: Sequence[Any]) -> int:
    size = 1
    for dimension in shape[1:]:
        size *= 1 if dimension is None else dimension
    return size
