"""What a model does, read from its output, the loss that it carries, shapes and targets together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Optional, Union

import numpy as np

from keras_xaic.data.classes import check_named
from keras_xaic.data.parts import Parts, arrays_of
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError
from keras_xaic.metrics import DEFAULT, IGNORED, KINDS, Family, Metric, Task, TaskKind, get_metric, metric_of

CLASS_LOSSES = frozenset(
    (
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "categorical_hinge",
        "kl_divergence",
    )
)
"""Losses of classes that exclude each other."""
YES_NO_LOSSES = frozenset(("binary_crossentropy", "binary_focal_crossentropy", "hinge", "squared_hinge"))
"""Losses of outputs that say yes or no, each by itself."""
VALUE_LOSSES = frozenset(
    (
        "mean_squared_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
        "huber",
        "log_cosh",
        "poisson",
        "cosine_similarity",
    )
)
"""Losses of values."""
WORDS: dict[TaskKind, str] = {
    "classification": "one of several classes",
    "binary": "yes or no",
    "multi-label": "several labels, each yes or no",
    "segmentation": "a class for every position",
    "regression": "values",
    "reconstruction": "the input again",
}
_CHECKED = 64
"""Samples on which targets are compared with inputs."""


@dataclass(frozen=True)
class Head:
    """What is known of an output of a model without looking at data.

    Attributes:
        shape: Of one sample's output; None where free.
        activation: What it ends in: ``softmax``, ``sigmoid``, ``linear``, ...; empty where that is not known.
        loss: Name of the loss that the model carries, as Keras writes it in ``snake_case``; empty where there is none.
        inputs: Shape of one sample's input.
        name: Of the output, for messages.
    """

    shape: tuple[Optional[int], ...]
    activation: str = ""
    loss: str = ""
    inputs: tuple[Optional[int], ...] = ()
    name: str = "output"

    @property
    def width(self) -> int:
        """Size of the last axis."""
        return (self.shape[-1] or 1) if self.shape else 1

    @property
    def is_flat(self) -> bool:
        """Whether there is one output vector per sample, not one per position."""
        return len(self.shape) <= 1

    @property
    def losses(self) -> Union[Family, Literal[""]]:
        """``classes``, ``yes_no`` or ``values``: what the loss is for; empty where that is not known."""
        families: tuple[tuple[Family, frozenset[str]], ...] = (
            ("classes", CLASS_LOSSES),
            ("yes_no", YES_NO_LOSSES),
            ("values", VALUE_LOSSES),
        )
        return next((name for name, losses in families if self.loss in losses), "")

    def facts(self) -> dict[str, Any]:
        """Returns plain values, for the check kit."""
        return {"shape": self.shape, "activation": self.activation, "loss": self.loss, "inputs": self.inputs}

    @classmethod
    def of(cls, facts: Any) -> Head:
        """Returns the head that `facts` described.

        Raises:
            DataError: If they describe none.
        """
        try:
            shapes = [tuple(None if size is None else int(size) for size in facts[name]) for name in ("shape", "inputs")]
            return cls(shapes[0], str(facts["activation"]), str(facts["loss"]), shapes[1])
        except (KeyError, TypeError, ValueError):
            raise DataError(
                "the bundle does not say what its model does (check/task.json)", "a bundle of this version", "write it again"
            ) from None

    def __str__(self) -> str:
        """What messages say of it."""
        said = f"{self.name} of shape {_show(self.shape)}"
        said += f" that ends in {self.activation}" if self.activation else ""
        return said + (f", trained with {self.loss}" if self.loss else "")


@dataclass(frozen=True)
class _Targets:
    """What targets look like."""

    shape: tuple[int, ...]
    integer: bool
    whole: bool
    zero_one: bool
    in_unit: bool
    signs: bool
    one_hot: bool
    inputs_again: bool

    @classmethod
    def of(cls, samples: Optional[Samples]) -> Optional[_Targets]:
        if samples is None or samples.y is None:
            return None
        x, y = samples.x, np.asarray(samples.y)
        zero_one = bool(np.all((y == 0) | (y == 1)))
        again = False
        if y.shape == x.shape:
            first = np.asarray(y[:_CHECKED], np.float32)
            again = np.allclose(first, samples.inputs(slice(_CHECKED)), atol=1e-5)
        return cls(
            shape=y.shape[1:],
            integer=y.dtype.kind in "biu",
            whole=y.dtype.kind in "biu" or bool(np.all(y == np.round(y))),
            zero_one=zero_one,
            in_unit=bool(np.all((y >= 0) & (y <= 1))),
            signs=not zero_one and bool(np.all((y == -1) | (y == 1))),
            one_hot=zero_one and y.ndim > 1 and y.shape[-1] > 1 and bool(np.all(y.sum(axis=-1) == 1)),
            inputs_again=again,
        )

    def __str__(self) -> str:
        kind = "whole numbers" if self.whole else "real numbers"
        kind = "one-hot rows" if self.one_hot else "zeros and ones" if self.zero_one else kind
        return f"targets of shape {('N', *self.shape)} ({kind})".replace("'N'", "N")


def infer(
    head: Head, data: Data, task: Optional[str] = None, metric: Union[str, Metric, None] = None, strict: bool = True
) -> Task:
    """Returns what an output does, after checking that the targets fit it.

    Args:
        head: What is known of the output.
        data: `Data`; its targets are read, those of the test part where the training part has none.
        task: The user's word for it; None infers it.
        metric: Name of the metric, or one of the user's own; None: the task's usual one.
        strict: Whether what can be read in two ways is refused; else the first reading is taken.

    Raises:
        DataError: If the task is ambiguous, in one line that names both readings, or if the targets do not fit.
    """
    judge = None if metric is None else get_metric(metric)
    check_named(data, max(2, head.width) if head.is_flat else None)
    targets = _Targets.of(data.train) or _Targets.of(data.test)
    if task is not None:
        kinds = [_named(task, head)]
    else:
        kinds = _readings(head, targets)
        if not kinds:
            raise _misfit(head, targets, data.name)
        if data.classes:
            kinds = [kind for kind in kinds if kind in ("classification", "binary")] or kinds
        if judge is not None:
            judged = [kind for kind in kinds if kind in judge.tasks] or [kind for kind in kinds if _judges(judge, kind, head)]
            kinds = judged or kinds[:1]
    if len(kinds) > 1 and strict:
        raise DataError(
            f"{data.name}: {head} and {targets or 'no targets'} can be read as {kinds[0]} ({WORDS[kinds[0]]}) "
            f"or as {kinds[1]} ({WORDS[kinds[1]]})",
            "one of the two",
            "; ".join(f"say {{task={kind}}} or {{metric={DEFAULT[kind]}}}" for kind in kinds[:2]),
        )
    kind = kinds[0]
    sizes = [size or 1 for size in head.shape]
    outputs = int(np.prod(sizes)) if kind in ("regression", "reconstruction") else head.width
    made = Task(kind, outputs, head.activation or "linear").judged_by("" if judge is None else judge)
    check_targets(made, head, data)
    return made


def check_targets(task: Task, head: Head, data: Data) -> None:
    """Refuses data whose targets a task cannot judge.

    Raises:
        DataError: Naming the key and what differs.
    """
    check_named(data, max(2, task.outputs) if task.classifies else None)
    first = _firsts((task,), data)[0]
    for part, samples in data.parts():
        if samples.y is not None:
            _check_targets(task, head, from_zero(np.asarray(samples.y), first), f"{data.name}: y_{part}", max(0, first))


def _judges(metric: Metric, kind: TaskKind, head: Head) -> bool:
    """Whether it does under another name (see `metric_of`)."""
    try:
        return bool(metric_of(metric.name, kind, head.width))
    except DataError:
        return False


def _named(task: str, head: Head) -> TaskKind:
    said = str(task).lower().replace("_", "-").replace("multilabel", "multi-label")
    kind = next((one for one in KINDS if one == said), None)
    if kind is None:
        raise DataError(f"task {task!r} is not known", ", ".join(KINDS))
    fits = {
        "classification": head.is_flat and head.width > 1,
        "binary": head.is_flat and head.width == 1,
        "multi-label": head.width > 1,
        "segmentation": not head.is_flat,
    }
    if not fits.get(kind, True):
        possible = ", ".join(one for one in KINDS if fits.get(one, True))
        raise DataError(f"task {kind} does not fit {head}", f"one of {possible}")
    return kind


def _readings(head: Head, targets: Optional[_Targets]) -> list[TaskKind]:
    """The kinds of tasks that head and targets can be, the likeliest first; empty where they do not fit each other."""
    many: TaskKind = "classification" if head.is_flat else "segmentation"
    single: TaskKind = "binary" if head.is_flat else "segmentation"
    values: TaskKind = "reconstruction" if head.shape == head.inputs and not head.is_flat else "regression"
    if targets is None:
        return _without_targets(head, many, single)
    if targets.inputs_again and _fits(targets.shape, head.shape):
        return ["reconstruction"]
    return _of_vectors(head, targets, many, values) if head.width > 1 else _of_numbers(head, targets, single, values)


def _of_vectors(head: Head, targets: _Targets, many: TaskKind, values: TaskKind) -> list[TaskKind]:
    """The readings of an output with several values at each position."""
    if _fits(targets.shape, head.shape[:-1]) or _fits(targets.shape, (*head.shape[:-1], 1)):
        return [many] if targets.whole else []
    if not _fits(targets.shape, head.shape):
        return []
    if head.activation == "softmax" or (head.losses == "classes" and targets.in_unit):
        return [many]
    if targets.one_hot:
        if head.activation == "sigmoid" or head.losses == "yes_no":
            return [many, "multi-label"]
        return [many, "regression"] if head.losses == "values" else [many]
    if targets.zero_one:
        return _two_ways(head, targets, "multi-label", values)
    return [values]


def _of_numbers(head: Head, targets: _Targets, single: TaskKind, values: TaskKind) -> list[TaskKind]:
    """The readings of an output with one value at each position."""
    if not _fits(targets.shape, head.shape) and not _fits(targets.shape, head.shape[:-1]):
        return []
    if targets.zero_one or (targets.signs and (head.losses == "yes_no" or head.activation == "sigmoid")):
        return _two_ways(head, targets, single, values)
    if head.losses == "yes_no":
        return [single] if targets.in_unit else ["regression", single]
    if head.activation == "sigmoid" and not targets.in_unit and head.losses != "values":
        return ["regression", single]
    return [values]


def _two_ways(head: Head, targets: _Targets, yes_no: TaskKind, values: TaskKind) -> list[TaskKind]:
    """Zeros and ones: decisions or values, by what the output ends in and the loss; their type decides if both are silent."""
    if head.activation == "sigmoid" or head.losses == "yes_no":
        return [yes_no]
    if head.losses == "values":
        return [values, yes_no]
    return [yes_no] if targets.integer else [yes_no, values]


def _without_targets(head: Head, many: TaskKind, single: TaskKind) -> list[TaskKind]:
    again = head.shape == head.inputs
    if head.width > 1 and (head.activation == "softmax" or head.losses == "classes"):
        return [many]
    if again and head.losses != "classes":
        return ["reconstruction"]
    if head.activation == "sigmoid" or head.losses == "yes_no":
        if head.losses == "values":
            return ["regression"]
        return ["multi-label"] if head.width > 1 else [single]
    if head.losses == "values" or head.width == 1 or head.activation not in ("linear", ""):
        return ["regression"]
    return ["regression", many]


def _misfit(head: Head, targets: Optional[_Targets], name: str) -> DataError:
    positions = _show(head.shape[:-1]).strip("(,)")
    before = f", {positions}" if positions else ""
    forms = [f"values or labels (N, {_show(head.shape).strip('(,)')})"]
    if head.width > 1:
        forms.insert(0, f"class numbers (N{before}) as whole numbers")
        forms.insert(1, "one-hot rows of the outputs' shape")
    return DataError(f"{name}: {targets} do not fit the {head}", ", ".join(forms))


def _check_targets(task: Task, head: Head, y: np.ndarray, where: str, first: int) -> None:
    """Refuses targets that the task cannot judge; `first` is what the user calls class 0.

    Raises:
        DataError: Naming the key and what differs.
    """
    shape = (len(y), *(given if size is None else size for size, given in zip(head.shape, _free(head.shape, y.shape[1:]))))
    try:
        task.truth(y[:1], (1, *shape[1:]))
    except DataError:
        raise DataError(
            f"{where} has shape {y.shape} and dtype {y.dtype}", f"targets for the task {task.kind} of the {head}"
        ) from None
    if task.is_values:
        return
    flat = y.reshape(len(y), -1)
    if task.family == "classes" and y.shape == shape:
        empty = np.flatnonzero((y.max(axis=-1) <= 0).reshape(len(y), -1).any(axis=1))
        if len(empty):
            instead = f"class numbers, {IGNORED} where a position does not count" if task.ignores else "a class for every one"
            raise DataError(f"{where}[{empty[0]}] is 0 for every class", instead, "Leave out what has no label")
    elif task.family == "classes":
        if y.dtype.kind not in "biu" and not np.all(flat == np.round(flat)):
            raise DataError(f"{where} has dtype {y.dtype} and values between whole numbers", "class numbers")
        least = IGNORED if task.ignores else 0
        wrong = np.flatnonzero(((flat < least) | (flat >= task.outputs)).any(axis=1))
        if len(wrong):
            row = flat[wrong[0]]
            value = row[(row < least) | (row >= task.outputs)][0]
            raise DataError(
                f"{where}[{wrong[0]}] is class {value + first:g}",
                f"classes {first} to {task.outputs - 1 + first}: the model has {task.outputs} outputs"
                + (f" ({IGNORED} where a position does not count)" if task.ignores else ""),
            )
    elif task.family == "yes_no":
        low = -1 if "hinge" in head.loss else 0
        wrong = np.flatnonzero(((flat < low) | (flat > 1)).any(axis=1))
        if len(wrong):
            row = flat[wrong[0]]
            raise DataError(
                f"{where}[{wrong[0]}] is {row[(row < low) | (row > 1)][0]:g}",
                f"0 or 1 for the task {task.kind}",
                "say {task=regression} if the targets are values",
            )


def _free(shape: Sequence[Optional[int]], given: Sequence[int]) -> Sequence[int]:
    """Sizes to put where an output's shape is free: those of targets with as many axes, or one axis less."""
    return [given[i] if i < len(given) else 1 for i in range(len(shape))]


def with_task(data: Data, task: object) -> Data:
    """Returns the data with `task` written on its samples and classes counted from 0 on: all who see them judge alike."""
    tasks = getattr(task, "tasks", (task,))
    firsts = _firsts(tasks, data)
    if any(firsts):
        told = tuple(replace(one, first=first) for one, first in zip(tasks, firsts))
        task = replace(task, tasks=told) if hasattr(task, "tasks") else told[0]  # type: ignore[type-var]

    def usual(y: Any) -> Any:
        if y is None or not any(firsts):
            return y
        made = [from_zero(*one) for one in zip(arrays_of(y), firsts)]
        return Parts(made, y.names) if isinstance(y, Parts) else made[0]

    return data.changed(lambda name, part: replace(part, task=task, y=usual(part.y)))


def _firsts(tasks: Sequence[Any], data: Data) -> list[int]:
    """Returns per output what its first class is called; 0 for samples that carry a task, which count from 0 on already."""
    found = _targets_of(data)
    if found is None or data.train.task is not None:
        return [0] * len(tasks)
    return [first_class(*one) or _remembered(*one) for one in zip(tasks, arrays_of(found))]


def _remembered(task: Task, y: np.ndarray) -> int:
    """Returns 1 where a task has seen classes counted from 1 on, and these may be: some of them only, in a part of the data."""
    return int(task.first == 1 and y.size == len(y) and y.dtype.kind in "iuf" and np.min(y) >= 1 and not task.is_values)


def _targets_of(data: Data) -> Any:
    return next((part.y for _, part in data.parts() if part.y is not None), None)


def first_class(task: Task, y: Any) -> int:
    """Returns what the first class is called in targets: 0; 1 where `y` is counted from 1 on; -1 of labels -1 and 1.

    Classes are counted from 1 on where the largest is the number of outputs, which would be too large else, and none is 0.

    >>> task = Task("classification", 3)
    >>> first_class(task, np.array([1, 2, 3])), first_class(task, np.array([1, 2]))
    (1, 0)
    """
    if not isinstance(y, np.ndarray) or y.size == 0 or y.size != len(y) or y.dtype.kind not in "iuf" or task.is_values:
        return 0
    if np.all(np.abs(y) == 1) and np.any(y == -1):
        return -1 if task.outputs <= 2 else 0
    return int(task.outputs > 1 and y.min() == 1 and y.max() == task.outputs and bool(np.all(y == np.round(y))))


def from_zero(y: np.ndarray, first: int) -> np.ndarray:
    """Returns class numbers from 0 on, of targets whose first class is called `first` (see `first_class`)."""
    if first == 1:
        return np.asarray(y - np.ones(1, np.int64))  # bytes have no -1
    return np.where(y == -1, 0, y) if first == -1 else y


def _fits(shape: Sequence[int], expected: Sequence[Optional[int]]) -> bool:
    return len(shape) == len(expected) and all(wanted is None or size == wanted for size, wanted in zip(shape, expected))


def _show(shape: Sequence[Optional[int]]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
