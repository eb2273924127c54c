"""Where relevance starts: which outputs, and with how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional

import numpy as np

from keras_xaic._keras import Tensor, tf
from keras_xaic.data import Samples
from keras_xaic.errors import DataError
from keras_xaic.relevance.choices import STARTS, Start, Target

TargetKind = Literal["class", "classes", "predicted", "all"]


@dataclass(frozen=True)
class Targets:
    """The outputs that relevance starts from.

    Attributes:
        kinds: Per output ``"class"`` (one class per sample), ``"classes"`` (any number of them), ``"predicted"``, or ``"all"``.
        values: Per output an array with one entry per sample: class numbers, a 1 for every class it has, or what the squared
            error is taken to; zeros where nothing is needed.
        start: ``"one"``, ``"logit"`` or ``"squared_error"``.
        heads: Per output the activation that was left away.
    """

    kinds: tuple[TargetKind, ...]
    values: tuple[np.ndarray, ...]
    start: Start
    heads: tuple[Optional[str], ...]

    @property
    def classes(self) -> Optional[np.ndarray]:
        """Class of every sample at the first output, where there is one."""
        return self.values[0] if self.kinds[0] == "class" and self.values[0].ndim == 1 else None

    def selection(self, outputs: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """Returns per output a tensor that is 1 at the outputs meant, else 0; -1 for the class 0 of a single sigmoid unit."""
        return [self._select(i, output, value) for i, (output, value) in enumerate(zip(outputs, values))]

    def relevance(self, outputs: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """Returns per output the relevance that LRP starts with (see `attribute`)."""
        starts = []
        for i, (output, selected, value) in enumerate(zip(outputs, self.selection(outputs, values), values)):
            if self.start == "squared_error":
                starts.append(tf.square(self.as_shown(i, output) - tf.cast(value, tf.float32)))
            elif self.start == "logit":
                starts.append(selected * output)
            elif self.kinds[i] == "all":
                axes = tuple(range(1, output.shape.rank))
                starts.append(tf.math.divide_no_nan(output, tf.reduce_sum(tf.abs(output), axes, keepdims=True)))
            else:
                starts.append(selected)
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
            losses.append(tf.reduce_sum(loss, axis=tuple(range(1, loss.shape.rank))))
        return tf.add_n(losses)

    def as_shown(self, index: int, output: Tensor) -> Tensor:
        """An output with the activation that was left away."""
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

    def repeated(self, times: int) -> BatchTargets:
        """The same targets for every sample repeated `times` in a row."""
        values = [tf.repeat(value, times, axis=0) for value in self.values]
        return BatchTargets(self.targets, values, tf.repeat(self.weights, times))

    def _weighted(self, part: Tensor) -> Tensor:
        return part * tf.reshape(self.weights, (-1, *[1] * (part.shape.rank - 1)))


def find_targets(
    target: Target,
    start: Start,
    y: Optional[Sequence[Any]],
    x: Sequence[Samples],
    shapes: Sequence[Sequence[Optional[int]]],
    heads: Sequence[Optional[str]],
    needs_values: bool = False,
) -> Targets:
    """Turns what the user asked for into targets.

    Args:
        target: See `attribute`.
        start: See `attribute`.
        y: Per output the labels or target values of the samples; None where there are none.
        x: The inputs, which are the target values of an auto-encoder.
        shapes: Shapes of the outputs.
        heads: Activations that were left away at the outputs.
        needs_values: Whether the rule compares outputs with target values even for ``start="one"`` (taylor).

    Raises:
        DataError: If labels are needed and missing, or do not fit the outputs.
    """
    if start not in STARTS:
        raise DataError(f"start is {start!r}", f"one of {', '.join(STARTS)}")
    if not (target in ("true", "predicted", "all") or _is_class(target)):
        raise DataError(f"target is {target!r}", '"true", "predicted", "all" or a class number')
    count, kinds, values = len(x[0]), [], []
    kind: TargetKind
    for i, (shape, head) in enumerate(zip(shapes, heads)):
        given = None if y is None or y[i] is None else np.asarray(y[i])
        labels = _labels(given, shape, head)
        if start == "squared_error" or target == "all":
            kind, value = "all", np.zeros(count, np.float32)
        elif target == "predicted":
            kind, value = "predicted", np.zeros(count, np.int32)
        elif target != "true":
            kind, value = "class", _fixed_class(int(target), count, shape, i)
        elif labels is not None:
            kind, value = "class", labels
        elif head == "sigmoid" and _is_multi_hot(given, shape):
            kind, value = "classes", np.asarray(given, np.float32)
        elif head is None:  # no classes: regression or an auto-encoder
            kind, value = "all", np.zeros(count, np.float32)
        else:
            raise DataError(
                f'target is "true" but y has no labels for output {i}'
                + ("" if given is None else f" (shape {given.shape}, dtype {given.dtype})"),
                "y with integer or one-hot labels",
                'Give y, or use target="predicted" or a class number',
            )
        if kind == "all" and (start == "squared_error" or needs_values):
            value = _compared(given, x, shape, i)
        kinds.append(kind)
        values.append(value)
    return Targets(tuple(kinds), tuple(values), start, tuple(heads))


def _is_class(target: Any) -> bool:
    return isinstance(target, (int, np.integer)) and not isinstance(target, bool)


def _labels(y: Optional[np.ndarray], shape: Sequence[Optional[int]], head: Optional[str]) -> Optional[np.ndarray]:
    """Class numbers, int32, one per sample (and position, where the output has positions), or None."""
    if y is None or shape[-1] is None:
        return None
    classes = 2 if shape[-1] == 1 else int(shape[-1])
    if shape[-1] == 1 and head != "sigmoid":
        return None
    whole = np.issubdtype(y.dtype, np.integer) or y.dtype == bool or bool(np.all(y == np.round(y)))
    if y.ndim == len(shape) and y.shape[-1] == shape[-1] and shape[-1] != 1:
        one_hot = whole and bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(-1) == 1))
        return y.argmax(-1).astype(np.int32) if one_hot else None
    if y.ndim == len(shape) and y.shape[-1] == 1:
        y = y[..., 0]
    if y.ndim != len(shape) - 1 or not whole:
        return None
    if len(y) and (y.min() < 0 or y.max() >= classes):
        raise DataError(f"y has the class {y.max() if y.max() >= classes else y.min()}", f"classes 0 to {classes - 1}")
    return y.astype(np.int32)


def _is_multi_hot(y: Optional[np.ndarray], shape: Sequence[Optional[int]]) -> bool:
    return y is not None and y.ndim == len(shape) and y.shape[-1] == shape[-1] and bool(np.all((y == 0) | (y == 1)))


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
