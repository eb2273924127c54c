"""Where relevance starts: which outputs, and with how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Optional

import numpy as np

from keras_xaic._keras import Tensor, tf
from keras_xaic.data import Data, Samples
from keras_xaic.errors import DataError, choices, require_one
from keras_xaic.metrics import Task
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.relevance.choices import STARTS, Start, Target
from keras_xaic.tasks import Head, first_class, from_zero, infer

TARGETS = ("true", "predicted", "all")
TargetKind = Literal["class", "classes", "predicted", "all"]


@dataclass(frozen=True)
class Targets:
    """The outputs that relevance starts from.

    Attributes:
        kinds: Per output ``"class"`` (one class per sample), ``"classes"`` (any number of them), ``"predicted"``, or ``"all"``.
        values: Per output an array with one entry per sample: class numbers, a 1 for every class it has, or what the squared
            error is taken to; zeros where nothing is needed.
        start: ``"one"``, ``"logit"`` or ``"squared_error"``.
        heads: Per output the activation that was left out.
        weights: Per output how much of the relevance starts there.
    """

    kinds: tuple[TargetKind, ...]
    values: tuple[np.ndarray, ...]
    start: Start
    heads: tuple[Optional[str], ...]
    weights: tuple[float, ...]

    @property
    def classes(self) -> Optional[np.ndarray]:
        """Class of every sample at the first output that has one and counts."""
        found = zip(self.kinds, self.values, self.weights)
        return next((value for kind, value, weight in found if kind == "class" and value.ndim == 1 and weight > 0), None)

    def selection(self, outputs: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """Returns per output a tensor of its weight at the units meant, else 0; negative at a sigmoid unit for class 0."""
        return [self._weighted(i, self._select(i, output, value)) for i, (output, value) in enumerate(zip(outputs, values))]

    def relevance(self, outputs: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """Returns per output the relevance that LRP starts with (see `attribute`)."""
        starts = []
        for i, (output, value) in enumerate(zip(outputs, values)):
            if self.start == "squared_error":
                start = tf.square(self.as_shown(i, output) - tf.cast(value, tf.float32))
            elif self.start == "logit":
                start = self._select(i, output, value) * output
            elif self.kinds[i] == "all":
                axes = tuple(range(1, output.shape.rank))
                start = tf.math.divide_no_nan(output, tf.reduce_sum(tf.abs(output), axes, keepdims=True))
            else:
                start = self._select(i, output, value)
            starts.append(self._weighted(i, start))
        return starts

    def loss(self, outputs: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
        """Returns the training loss per sample, (n,): cross-entropy of the class, else half the squared error to the value."""
        losses = []
        for i, (output, value) in enumerate(zip(outputs, values)):
            if self.kinds[i] == "all":
                loss = 0.5 * tf.square(self.as_shown(i, output) - tf.cast(value, tf.float32))
            elif output.shape[-1] == 1 or self.kinds[i] == "classes":
                labels = tf.nn.relu(self._select(i, output, value))
                loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=output)
            else:
                loss = tf.nn.softmax_cross_entropy_with_logits(labels=self._select(i, output, value), logits=output)[..., None]
            losses.append(self._weighted(i, tf.reduce_sum(loss, axis=tuple(range(1, loss.shape.rank)))))
        return tf.add_n(losses)

    def _weighted(self, index: int, part: Tensor) -> Tensor:
        return part if self.weights[index] == 1.0 else part * tf.cast(self.weights[index], part.dtype)

    def as_shown(self, index: int, output: Tensor) -> Tensor:
        """An output with the activation that was left out."""
        head = self.heads[index]
        return tf.nn.softmax(output) if head == "softmax" else tf.sigmoid(output) if head == "sigmoid" else output

    def _select(self, index: int, output: Tensor, value: Tensor) -> Tensor:
        kind = self.kinds[index]
        if kind == "all":
            return tf.ones_like(output)
        if kind == "classes":
            return tf.cast(value, tf.float32)
        if output.shape[-1] == 1:
            up = output > 0 if kind == "predicted" else tf.cast(value, tf.int32)[..., None] > 0
            return tf.where(up, tf.ones_like(output), -tf.ones_like(output))
        classes = tf.argmax(output, -1, output_type=tf.int32) if kind == "predicted" else tf.cast(value, tf.int32)
        return tf.one_hot(classes, output.shape[-1])


@dataclass(frozen=True)
class BatchTargets:
    """Targets of one batch, with the samples' weights multiplied in; everything is linear in the start.

    Attributes:
        targets: Where relevance starts.
        values: Per output the batch's part of `Targets.values`.
        weights: Weight of every sample, (n,); 0 for padding.
    """

    targets: Targets
    values: Sequence[Tensor]
    weights: Tensor

    def selection(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """`Targets.selection`, weighted."""
        return [self._weighted(part) for part in self.targets.selection(outputs, self.values)]

    def relevance(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """`Targets.relevance`, weighted."""
        return [self._weighted(part) for part in self.targets.relevance(outputs, self.values)]

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """`Targets.loss`, weighted, (n,)."""
        return self.weights * self.targets.loss(outputs, self.values)

    def _weighted(self, part: Tensor) -> Tensor:
        return part * tf.reshape(self.weights, (-1, *[1] * (part.shape.rank - 1)))


def find_targets(
    target: Target,
    start: Start,
    y: Optional[Sequence[Any]],
    x: Sequence[Samples],
    shapes: Sequence[Sequence[Optional[int]]],
    heads: Sequence[Optional[str]],
    tasks: Sequence[Optional[Task]],
    needs_values: bool = False,
    weights: Sequence[float] = (),
) -> Targets:
    """Turns what the user asked for into targets.

    Args:
        target: See `attribute`.
        start: See `attribute`.
        y: Per output the labels or target values of the samples; None where there are none.
        x: The inputs, which are the target values of an auto-encoder.
        shapes: Shapes of the outputs.
        heads: Activations that were left out at the outputs.
        tasks: What the outputs do (see `tasks_of`).
        needs_values: Whether the rule compares outputs with target values even for ``start="one"`` (taylor).
        weights: How much of the relevance starts at each output; empty for 1 each.

    Raises:
        DataError: If labels are needed and missing, or do not fit the outputs.
    """
    check_start(target, start)
    count, kinds, values = len(x[0]), [], []
    kind: TargetKind
    for i, (shape, head, task) in enumerate(zip(shapes, heads, tasks)):
        given = None if y is None or y[i] is None else np.asarray(y[i])
        given = given if given is None or task is None else from_zero(given, first_class(task, given))
        values_of_several = len(shapes) > 1 and target == "predicted" and task is not None and task.is_values
        if start == "squared_error" or target == "all" or values_of_several:
            kind, value = "all", np.zeros(count, np.float32)
        elif target == "predicted":
            kind, value = "predicted", np.zeros(count, np.int32)
        elif target != "true":
            kind, value = "class", _fixed_class(int(target), count, shape, i)
        elif given is None and not (head is None if task is None else task.is_values):
            raise DataError(
                f'target is "true" but y has no labels for output {i}',
                "y with integer or one-hot labels",
                "give y; use {target=predicted} or a class number",
            )
        else:
            kind, value = _true(given, count, task, shape)
        if kind == "all" and (start == "squared_error" or needs_values):
            value = _compared(given, x, shape, i)
        kinds.append(kind)
        values.append(value)
    return Targets(tuple(kinds), tuple(values), start, tuple(heads), tuple(weights) or (1.0,) * len(shapes))


def check_start(target: object, start: Any) -> None:
    """Refuses what is not a target or not a start (see `attribute`).

    Raises:
        DataError: Naming what there is.
    """
    require_one("start", start, STARTS, DataError)
    if not _is_class(target) and not (isinstance(target, str) and target in TARGETS):
        raise DataError(f"target is {target!r}", f"a class number, or {choices(target, TARGETS)}")


def tasks_of(
    y: Optional[Sequence[Any]],
    x: Sequence[Samples],
    shapes: Sequence[Sequence[Optional[int]]],
    heads: Sequence[Optional[str]],
    losses: Sequence[str],
    known: Optional[AnyTask] = None,
) -> list[Optional[Task]]:
    """Returns what each output does, as everything else reads it (see `keras_xaic.tasks`); None where nothing says it.

    Args:
        y: Per output the targets of the samples; None where there are none.
        x: The inputs.
        shapes: Shapes of the outputs.
        heads: Activations that were left out at the outputs.
        losses: Per output the loss that the model carries.
        known: What the samples say of that; None where they do not say it.

    Raises:
        DataError: If targets do not fit their output.
    """
    said = list(known.tasks) if isinstance(known, Tasks) else [known]
    if known is not None and len(said) == len(shapes):
        return list(said)
    found: list[Optional[Task]] = []
    for i, (shape, activation, loss) in enumerate(zip(shapes, heads, losses)):
        given = None if y is None else y[i]
        if given is None:
            found.append(None)
            continue
        head = Head(tuple(shape[1:]), activation or "linear", loss, x[0].x.shape[1:], f"output {i}")
        found.append(infer(head, Data(replace(x[0], y=np.asarray(given)), name="given data"), strict=False))
    return found


def _true(
    y: Optional[np.ndarray], count: int, task: Optional[Task], shape: Sequence[Optional[int]]
) -> tuple[TargetKind, np.ndarray]:
    """The kind of target that the labels say, and its values."""
    if y is None or task is None or task.is_values:
        return "all", np.zeros(count, np.float32)
    sizes = [given if size is None else size for size, given in zip(shape[1:], (*y.shape[1:], 1))]
    truth = task.truth(y, (count, *sizes))
    return ("classes", truth.astype(np.float32)) if task.kind == "multi-label" else ("class", truth.astype(np.int32))


def _is_class(target: object) -> bool:
    return isinstance(target, (int, np.integer)) and not isinstance(target, bool)


def _fixed_class(target: int, count: int, shape: Sequence[Optional[int]], index: int) -> np.ndarray:
    classes = max(2, int(shape[-1] or 0))
    if not 0 <= target < classes:
        raise DataError(f"target is class {target}", f"0 to {classes - 1}, the classes of output {index}")
    return np.full((count, *(1 if d is None else d for d in shape[1:-1])), target, np.int32)


def _compared(y: Optional[np.ndarray], x: Sequence[Samples], shape: Sequence[Optional[int]], index: int) -> np.ndarray:
    """What a squared error is taken to: y, one-hot where y is class numbers, or the input of an auto-encoder."""
    sizes = tuple(shape[1:])
    if y is not None and y.shape[1:] == sizes:
        return y.astype(np.float32)
    if y is None:
        for part in x:
            if part.x.shape[1:] == sizes:
                return part.inputs()
    if y is not None and y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and len(sizes) == 1:
        return np.eye(int(sizes[0] or 0), dtype=np.float32)[y]
    if y is not None and y.ndim == 1 and sizes == (1,):
        return y[:, None].astype(np.float32)
    raise DataError(
        f"there is nothing to compare output {index} of shape {sizes} with",
        f"y of shape (N, {', '.join(map(str, sizes))})",
    )
