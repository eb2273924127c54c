"""What rounding one kernel does to a model's outputs, measured on a few samples."""

from __future__ import annotations

import itertools
import math
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Model, Tensor, tf
from keras_xaic.data import Data, Samples, arrays_of
from keras_xaic.metrics import IGNORED, Task
from keras_xaic.models.kernels import Kernel, kernels_in
from keras_xaic.models.masking import mask_of
from keras_xaic.models.operations import Operations
from keras_xaic.models.task import fitted, infer_task
from keras_xaic.output_tasks import Tasks
from keras_xaic.progress import Counted, Progress, silent
from keras_xaic.tasks import with_task

BATCH = 32
"""Samples at a time."""
HELD = 2**26
"""Most numbers in all tensors of a batch, which are held while kernels change; of large models batches are smaller."""
LARGEST = 2**23
"""Most numbers in one tensor where several variants of a kernel go through the model side by side."""
PROBES = 16
"""Random vectors for every batch of a Hessian trace."""


def measured_damage(
    model: Model, rounded: Mapping[tuple[str, int], np.ndarray], samples: Samples, progress: Progress = silent
) -> dict[tuple[str, int], float]:
    """Returns how far the outputs move when a single kernel is rounded, for every kernel and bit-width.

    For classes ``KL(p || p')`` of the outputs before and after, mean over samples (Cai et al. 2020, ZeroQ, arXiv 2001.00281,
    eq. 2); for values the squared difference over the variance of the outputs. Several outputs add up, each times its weight.
    Only operations behind the kernel are computed again.

    Args:
        model: A canonical model; unchanged afterwards.
        rounded: (kernel key, bits) -> weights on the grid.
        samples: Calibration data.
        progress: Told how far the work is.
    """
    operations, (samples, tasks, weights) = Operations(model), _judged(model, samples)
    kernels = {kernel.key: kernel for kernel in kernels_in(operations)}
    totals = [dict.fromkeys(rounded, 0.0) for _ in tasks]
    exact_outputs: list[list[np.ndarray]] = [[] for _ in tasks]
    works, last = _works(operations, kernels), _last_uses(operations)
    size = _batch_size(operations)
    batches = math.ceil(len(samples) / size)
    tell = Counted(progress, "measure", batches * sum(works[key] for key, _ in rounded))
    for start in range(0, len(samples), size):
        exact: dict[str, Any] = operations.start(samples.feeds(slice(start, start + size)))
        for operation in operations:
            exact.update(zip(operation.outputs, operation.call(exact)))
        before = [np.asarray(exact[key], np.float64) for key in operations.outputs]
        for kept, one in zip(exact_outputs, before):
            kept.append(one)
        together = _together(operations, exact, len(before[0]))
        for key, choices in _in_groups(rounded, together):
            for choice, after in zip(
                choices, _outputs_behind(operations, exact, kernels[key], [rounded[one] for one in choices], last)
            ):
                for total, task, one, moved in zip(totals, tasks, before, after):
                    total[choice] += _divergence(task, one, moved)
            tell(len(choices) * works[key], "what bit-widths do")
    found = dict.fromkeys(rounded, 0.0)
    for task, weight, total, kept in zip(tasks, weights, totals, exact_outputs):
        scale = float(np.concatenate(kept).var()) * kept[0][0].size if task.is_values else 1.0
        for choice, moved_by in total.items():
            found[choice] += weight * max(0.0, moved_by) / (len(samples) * max(scale, 1e-30))
    return found


def _batch_size(operations: Operations) -> int:
    """Returns how many samples go through the model at a time."""
    held = sum(int(np.prod([size or 1 for size in shape[1:]])) for shape in operations.shapes.values())
    return max(1, min(BATCH, HELD // max(1, held)))


def _works(operations: Operations, kernels: Mapping[str, Kernel]) -> dict[str, int]:
    """Returns kernel key -> how many operations are computed again when it changes."""
    works = {}
    for key, kernel in kernels.items():
        behind: set[str] = set()
        works[key] = 0
        for one in operations:
            if one.layer is kernel.layer or not behind.isdisjoint(one.inputs):
                behind.update(one.outputs)
                works[key] += 1
    return works


def _last_uses(operations: Operations) -> dict[str, int]:
    """Returns tensor -> number of the operation that reads it last, without the model's outputs."""
    last = {key: number for number, operation in enumerate(operations) for key in operation.inputs}
    return {key: number for key, number in last.items() if key not in operations.outputs}


def _judged(model: Model, samples: Samples) -> tuple[Samples, list[Task], Sequence[float]]:
    """Returns samples in the model's order, and task and weight of each output."""
    data = fitted(model, Data(samples))
    task = infer_task(model, data, strict=False)
    data = with_task(data, task)
    return (data.train, list(task.tasks), task.weights) if isinstance(task, Tasks) else (data.train, [task], (1.0,))


def hessian_traces(model: Model, samples: Samples, seed: int = 0) -> dict[str, float]:
    """Returns the trace of the loss's Hessian for every kernel, by Hutchinson's estimator.

    ``tr(H) = E[v^T H v]`` over vectors v of random signs (Dong et al. 2020, HAWQ-V2, arXiv 1911.03852). The loss, summed over
    outputs and averaged over samples, is cross-entropy with the labels (the model's own outputs where there are none); for
    values the squared distance from the outputs as they are; of several outputs the weighted sum, values over their variance.
    One vector serves all kernels: what couples them has mean zero.

    Args:
        model: A canonical model.
        samples: Calibration data.
        seed: Seed of the vectors.
    """
    samples, tasks, weights = _judged(model, samples)
    operations = Operations(model)
    kernels, factors = kernels_in(operations), _loss_factors(operations, samples, tasks, weights)
    variables, random = [kernel.variable for kernel in kernels], np.random.default_rng(seed)

    def products(inputs: Any, targets: list[Tensor], signs: list[Tensor]) -> list[Tensor]:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                outputs = tf.nest.flatten(model(inputs, training=False))
                losses = [_loss(*one) for one in zip(tasks, outputs, targets)]
                loss = losses[0] if len(losses) == 1 else tf.add_n([a * b for a, b in zip(factors, losses)])
            slopes = inner.gradient(loss, variables, unconnected_gradients="zero")
            along = tf.add_n([tf.reduce_sum(slope * sign) for slope, sign in zip(slopes, signs)])
        curved = outer.gradient(along, variables, unconnected_gradients="zero")
        return [tf.reduce_sum(curve * sign) for curve, sign in zip(curved, signs)]

    compiled = tf.function(products, reduce_retracing=True)
    totals = np.zeros(len(kernels))
    for start in range(0, len(samples), BATCH):
        part = samples.take(slice(start, start + BATCH))
        fed = list(operations.start(part.feeds()).values())
        inputs = fed if len(fed) > 1 else fed[0]
        outputs = [np.asarray(one) for one in tf.nest.flatten(model(inputs, training=False))]
        truths = [None] * len(tasks) if part.y is None else arrays_of(part.y)
        targets = [tf.constant(_targets(*one)) for one in zip(tasks, truths, outputs)]
        for _ in range(PROBES):
            signs = [tf.constant(random.choice((-1.0, 1.0), size=kernel.shape), tf.float32) for kernel in kernels]
            totals += np.array([float(value) for value in compiled(inputs, targets, signs)]) / PROBES
    return {kernel.key: float(total / len(samples)) for kernel, total in zip(kernels, totals)}


def _loss_factors(operations: Operations, samples: Samples, tasks: Sequence[Task], weights: Sequence[float]) -> list[float]:
    """Returns what the loss of each output is multiplied by, so that several add up: values are in units of their variance."""
    if len(tasks) == 1:
        return [1.0]
    start = operations.start(samples.feeds(slice(BATCH)))
    outputs = [np.asarray(one) for one in tf.nest.flatten(operations.model(list(start.values()), training=False))]
    spreads = [max(float(one.var()) * one[0].size, 1e-30) if task.is_values else 1.0 for task, one in zip(tasks, outputs)]
    return [weight / spread for weight, spread in zip(weights, spreads)]


def _in_groups(rounded: Iterable[tuple[str, int]], most: int) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Yields kernel keys with the choices of that kernel, at most so many at a time."""
    for key, choices in itertools.groupby(rounded, key=lambda choice: choice[0]):
        left = list(choices)
        for start in range(0, len(left), most):
            yield key, left[start : start + most]


def _together(operations: Operations, exact: Mapping[str, Tensor], count: int) -> int:
    """Returns how many variants of a kernel may go through the model side by side, as a batch so many times as long.

    One where a tensor that the model computes has not one row of values for each sample, as sizes have not, or carries a mask.
    """
    largest = 1
    for key, tensor in exact.items():
        is_rows = tensor.shape.rank > 0 and tensor.shape[0] == count
        is_values = tensor.dtype.is_floating or key in operations.inputs
        if not (is_rows and is_values) or mask_of(tensor) is not None:
            return 1
        largest = max(largest, int(np.prod(tensor.shape)))
    return max(1, LARGEST // largest)


def _outputs_behind(
    operations: Operations,
    exact: Mapping[str, Tensor],
    kernel: Kernel,
    variants: Sequence[np.ndarray],
    last: Mapping[str, int],
) -> list[list[np.ndarray]]:
    """Returns for every variant of a kernel the model's outputs, float64; only what is behind the kernel is computed again.

    A tensor is kept until the operation that reads it last (see `_last_uses`).
    """
    count, original = len(variants), kernel.value
    repeated = _Repeated(exact, count)
    changed: dict[str, Any] = {}
    for place, operation in enumerate(operations):
        if operation.layer is kernel.layer:
            made = []
            for number, value in enumerate(variants):
                kernel.variable.assign(value)
                parts: dict[str, Any] = {
                    key: one if count == 1 else tf.split(one, count)[number]  # a part has no mask
                    for key, one in changed.items()
                    if key in operation.inputs
                }
                made.append(operation.call(ChainMap(parts, dict(exact))))
            kernel.variable.assign(original)
            changed.update(zip(operation.outputs, made[0] if count == 1 else (tf.concat(one, 0) for one in zip(*made))))
        elif any(key in changed for key in operation.inputs):
            changed.update(zip(operation.outputs, operation.call(ChainMap(changed, repeated))))
        for key in (key for key in operation.inputs if last.get(key) == place):
            changed.pop(key, None)
            repeated.pop(key, None)
    tensors = ChainMap(changed, repeated)
    outputs = [np.asarray(tensors[key], np.float64) for key in operations.outputs]
    return [list(parts) for parts in zip(*(np.split(one, count) for one in outputs))]


class _Repeated(dict[str, Any]):
    """Tensors of a batch, each repeated when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], count: int) -> None:
        super().__init__()
        self.tensors, self.count = tensors, count

    def __missing__(self, key: str) -> Tensor:
        tensor = self.tensors[key]
        if self.count > 1:
            tensor = tf.tile(tensor, [self.count, *[1] * (tensor.shape.rank - 1)])
        self[key] = tensor
        return tensor


def _divergence(task: Task, before: np.ndarray, after: np.ndarray) -> float:
    """Sum over samples, and mean over positions, of how far outputs moved."""
    if task.is_values:
        return float(np.square(after - before).sum())
    p, q = (_probabilities(task, outputs) for outputs in (before, after))
    return float((p * (np.log(p) - np.log(q))).sum()) * len(before) / (p.size // p.shape[-1])


def _probabilities(task: Task, outputs: np.ndarray) -> np.ndarray:
    """(M, classes) that add up to 1; of outputs that say yes or no each for itself (M, 2)."""
    if task.loss_family == "yes_no":
        yes = (1.0 / (1.0 + np.exp(-outputs)) if task.logits else outputs).reshape(-1, 1)
        both = np.concatenate([yes, 1.0 - yes], axis=-1)
    elif task.logits:
        powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        both = powers / powers.sum(axis=-1, keepdims=True)
    else:
        both = outputs
    return np.asarray(np.clip(both, 1e-7, 1.0))


def _targets(task: Task, truth: Optional[np.ndarray], outputs: np.ndarray) -> np.ndarray:
    if task.is_values:
        return outputs.reshape(len(outputs), -1)
    known = np.asarray(task.decisions(outputs) if truth is None else task.truth(truth, outputs.shape))
    if task.loss_family == "yes_no" and task.family == "classes":
        known = np.eye(task.outputs + 1)[:, : task.outputs][known]  # the last row, -1: IGNORED
    return known.reshape(len(outputs), -1).astype(np.int64 if task.loss_family == "classes" else np.float32)


def _loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Sum over samples, and mean over positions."""
    loss: Tensor
    if task.loss_family == "classes":
        scores = tf.reshape(outputs, (-1, task.outputs))
        logits = scores if task.logits else tf.math.log(tf.clip_by_value(scores, 1e-7, 1.0))
        numbers = tf.reshape(targets, (-1,))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(numbers, 0), logits)
        losses = tf.where(numbers == IGNORED, 0.0, losses)
        loss = tf.reduce_mean(losses) * tf.cast(tf.shape(outputs)[0], losses.dtype)
    elif task.is_values:
        loss = tf.reduce_sum(tf.square(tf.reshape(outputs, (tf.shape(outputs)[0], -1)) - targets))
    else:
        flat = tf.reshape(outputs, (tf.shape(outputs)[0], -1))
        yes = tf.clip_by_value(tf.sigmoid(flat) if task.logits else flat, 1e-7, 1.0 - 1e-7)
        loss = -tf.reduce_sum(targets * tf.math.log(yes) + (1.0 - targets) * tf.math.log(1.0 - yes))
    return loss
