"""What a model with several outputs does: a task per output, and how they count together.

`Tasks` does what `keras_xaic.metrics.Task` does, for `Parts` instead of arrays: metric values come as one number per
output, a drop is that of the output that lost most (each in the unit of its own metric), and epochs are chosen by a weighted
mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Optional, Union

import numpy as np

from keras_xaic.data.parts import Array, Parts, arrays_of
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError
from keras_xaic.metrics import Metric, NoValue, Task
from keras_xaic.tasks import Head, check_targets, infer

Values = tuple[float, ...]
"""A metric value per output."""
PerOutput = Union[None, str, Metric, Mapping[str, Any], Sequence[str]]
"""What is said for all outputs, or by name of the output: a mapping, or text such as ``digit=accuracy,box=mae``."""


@dataclass(frozen=True)
class Tasks:
    """What the outputs of a model do, in the model's order.

    Attributes:
        tasks: One per output.
        names: Of the outputs.
        weights: How much each counts in training, planning, relevance and the choice of epochs; 0 for not at all.
        headline: Number of the output whose metric stands for all where only one can.
    """

    tasks: tuple[Task, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    headline: int = 0

    @property
    def metric(self) -> Metric:
        """The headline's metric."""
        return self.tasks[self.headline].metric

    @property
    def metric_name(self) -> str:
        """Name of the headline's metric."""
        return self.tasks[self.headline].metric_name

    @property
    def kind(self) -> str:
        """Kind of the headline's task."""
        return self.tasks[self.headline].kind

    @property
    def classifies(self) -> bool:
        """Whether each sample as a whole gets one class: not with several outputs."""
        return False

    @property
    def is_values(self) -> bool:
        """Whether all outputs are values, not decisions."""
        return all(task.is_values for task in self.tasks)

    def own_metrics(self) -> Optional[dict[str, Metric]]:
        """Returns the user's own functions by output, None where there are none (see `Task.own_metrics`)."""
        return {name: task.own for name, task in zip(self.names, self.tasks) if task.own is not None} or None

    @property
    def counted(self) -> list[int]:
        """Numbers of the outputs that count."""
        return [number for number, weight in enumerate(self.weights) if weight > 0]

    def headed(self, number: int) -> Tasks:
        """Returns the same with another headline."""
        return replace(self, headline=number)

    def shown(self, values: Optional[Values]) -> Optional[float]:
        """Returns the headline's value."""
        return None if values is None else values[self.headline]

    def score(self, outputs: Parts, targets: Parts) -> Values:
        """Returns the metric value of every output.

        Raises:
            DataError: If outputs and targets do not belong together.
        """
        found = zip(self.tasks, self._parts(outputs), self._parts(targets))
        return tuple(task.score(given, truth) for task, given, truth in found)

    def value(self, outputs: Parts, samples: Samples) -> Optional[Values]:
        """Returns the metric values against the targets of `samples`; None where they have none."""
        return None if samples.y is None else self.score(outputs, samples.y)

    def goodness(self, outputs: Parts, samples: Samples) -> float:
        """Returns one number that is better the higher it is: the weighted mean over outputs; NaN without targets.

        Metrics in [0, 1] and those of the user's own count as they are, errors negative, and the usual ones as a share of that
        of the best constant.
        """
        if samples.y is None:
            return float("nan")
        try:
            values, total = self.score(outputs, samples.y), 0.0
        except NoValue:
            if self.own_metrics() is None:
                raise
            return -math.inf
        for task, value, truth, weight in zip(self.tasks, values, self._parts(samples.y), self.weights):
            one = -value if task.metric.is_error else value
            if task.metric.is_error and not task.metric.is_own:
                one /= task.constant_error(truth) or 1.0
            total += weight * one
        return total / sum(self.weights)

    def drops(
        self, original: Optional[Values], compressed: Optional[Values], targets: Optional[Parts] = None
    ) -> tuple[Optional[float], ...]:
        """Returns how much worse each output is, each in the unit of its metric (see `Task.drop`)."""
        if original is None or compressed is None:
            return (None,) * len(self.tasks)
        truths: list[Any] = [None] * len(self.tasks) if targets is None else list(self._parts(targets))
        return tuple(task.drop(*one) for task, one in zip(self.tasks, zip(original, compressed, truths)))

    def drop(
        self, original: Optional[Values], compressed: Optional[Values], targets: Optional[Parts] = None
    ) -> Optional[float]:
        """Returns the largest drop of an output that counts; None where values are missing or one cannot be told."""
        found = [self.drops(original, compressed, targets)[number] for number in self.counted]
        return None if None in found else max(one for one in found if one is not None)

    def worst(self, lost: Sequence[Optional[float]]) -> int:
        """Returns the number of the output that lost most among those that count; one that cannot be told comes first."""
        ranked = [math.inf if one is None else one for one in lost]
        return max(self.counted, key=lambda number: ranked[number])

    def agreements(self, outputs: Parts, reference: Parts) -> tuple[Optional[float], ...]:
        """Returns per output the share of decisions that are the same (see `Task.agreement`)."""
        return tuple(task.agreement(*one) for task, *one in zip(self.tasks, self._parts(outputs), self._parts(reference)))

    def agreement(self, outputs: Parts, reference: Parts) -> Optional[float]:
        """Returns the smallest agreement of an output; None where all are values."""
        found = [one for one in self.agreements(outputs, reference) if one is not None]
        return min(found) if found else None

    def labelled(self, samples: Samples, answers: Parts) -> Samples:
        """Returns the samples with targets: their own, else what `answers`, the outputs of a model on them, decide."""
        if samples.y is not None:
            return samples
        decided = [task.decisions(one) for task, one in zip(self.tasks, self._parts(answers))]
        truths = [one if made is None else made for one, made in zip(answers.arrays, decided)]
        return replace(samples, y=Parts(truths, self.names))

    def explained(self, samples: Samples) -> Literal["true", "predicted"]:
        """Returns where attributions start: the true classes, the predicted ones without labels; all of values."""
        return "predicted" if samples.y is None else "true"

    def doubt(self, outputs: Parts, targets: Parts, whose: str = "The original model's") -> Optional[str]:
        """Returns a warning where an output is worth no more than chance (see `Task.doubt`); else None."""
        found = zip(self.names, self.tasks, self._parts(outputs), self._parts(targets))
        said = [(name, task.doubt(given, truth, whose)) for name, task, given, truth in found]
        return next((f"Output {name}: {text}" for name, text in said if text is not None), None)

    def facts(self) -> dict[str, Any]:
        """Returns plain values, for the check kit."""
        listed = zip(self.names, self.weights, self.tasks)
        return {"parts": [{"name": name, "weight": weight, **task.facts()} for name, weight, task in listed]}

    @classmethod
    def of(cls, facts: object) -> Optional[Tasks]:
        """Returns what `facts` described; None where they describe none."""
        parts = facts.get("parts") if isinstance(facts, dict) else None
        if not isinstance(parts, list) or len(parts) < 2:
            return None
        tasks = [Task.of(one) for one in parts]
        try:
            found = cls(
                tuple(task for task in tasks if task is not None),
                tuple(str(one["name"]) for one in parts),
                tuple(float(one["weight"]) for one in parts),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        usable = all(0 <= weight < math.inf for weight in found.weights) and sum(found.weights) > 0
        return found if len(found.tasks) == len(parts) and usable else None

    def _parts(self, value: Array) -> list[np.ndarray]:
        arrays = arrays_of(value)
        if len(arrays) != len(self.tasks):
            raise DataError(f"there are {len(arrays)} arrays for {len(self.tasks)} outputs", "one array per output")
        return [np.asarray(one) for one in arrays]


AnyTask = Union[Task, Tasks]
"""What a model does: with one output, or with several."""


def task_of(facts: object) -> Optional[AnyTask]:
    """Returns the task, or tasks, that `facts` described; None where they describe none."""
    return Tasks.of(facts) or Task.of(facts)


def infer_all(
    heads: Sequence[Head],
    data: Data,
    task: PerOutput = None,
    metric: PerOutput = None,
    weights: PerOutput = None,
    strict: bool = True,
) -> AnyTask:
    """Returns what the outputs of a model do (see `keras_xaic.tasks.infer`); one head gives a `Task`.

    Args:
        heads: What is known of each output.
        data: In the model's order.
        task: Kind of the task, for all outputs or by name.
        metric: Name of the metric, for all outputs or by name.
        weights: How much each output counts; names without a number count 1, outputs that are not named 0; None: 1 each.
        strict: As for `infer`.

    Raises:
        DataError: If a task is ambiguous, targets do not fit, or an output that is named does not exist.
    """
    names = [head.name for head in heads]
    kinds, metrics = by_output("task", task, names), by_output("metric", metric, names)
    counts = output_weights(weights, names)
    several, found = len(heads) > 1, []
    for number, head in enumerate(heads):
        own = data
        if several or isinstance(data.train.x, Parts):
            own = data.changed(functools.partial(_of_output, number=number, head=head))
        if not several:
            return infer(head, own, kinds[0], metrics[0], strict)
        try:
            found.append(infer(head, own, kinds[number], metrics[number], strict))
        except DataError as error:
            fix = error.fix.replace("{task=", f"{{task={head.name}=").replace("{metric=", f"{{metric={head.name}=")
            raise DataError(f"output {head.name}: {error.found}", error.expected, fix) from None
    return Tasks(tuple(found), tuple(names), counts)


def check_all_targets(task: AnyTask, heads: Sequence[Head], data: Data) -> None:
    """Refuses data whose targets a task, or one of several, cannot judge.

    Raises:
        DataError: Naming the output, the key and what differs.
    """
    for number, (one, head) in enumerate(zip(getattr(task, "tasks", (task,)), heads)):
        check_targets(one, head, data.changed(functools.partial(_of_output, number=number, head=head)))


def _of_output(part: str, samples: Samples, number: int, head: Head) -> Samples:
    """Returns samples as if the model had this output alone, with the input that it may give again."""
    y = None if samples.y is None else arrays_of(samples.y)
    if y is not None and number >= len(y):
        raise DataError(f"there are targets for {len(y)} outputs", "targets for each output")
    inputs = arrays_of(samples.x)
    x = next((one for one in inputs if tuple(one.shape[1:]) == head.inputs), inputs[0])
    return replace(samples, x=x, y=None if y is None else y[number], task=None)


def by_output(what: str, value: PerOutput, names: Sequence[str]) -> list[Any]:
    """Returns per output what is said of it: the same for all, or by name.

    >>> by_output("task", "digit=classification", ["digit", "box"])
    ['classification', None]

    Raises:
        DataError: If there is no such output.
    """
    if value is None or isinstance(value, Metric) or (isinstance(value, str) and "=" not in value):
        return [value] * len(names)
    return [_pairs(what, value, names, None).get(name) for name in names]


def said_of_outputs(value: PerOutput) -> list[Any]:
    """Returns what is said, of all outputs or of some, without their names.

    >>> said_of_outputs("digit=accuracy,box=mae"), said_of_outputs("mae"), said_of_outputs(None)
    (['accuracy', 'mae'], ['mae'], [])
    """
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, str) and "=" in value:
        return [one.rpartition("=")[2].strip() for one in value.split(",") if "=" in one]
    return [] if value is None else [value]


def output_weights(value: PerOutput, names: Sequence[str]) -> tuple[float, ...]:
    """Returns how much each output counts.

    >>> output_weights(None, ["digit", "box"]), output_weights("box", ["digit", "box"])
    ((1.0, 1.0), (0.0, 1.0))

    Raises:
        DataError: If there is no such output, or a weight is not usable.
    """
    if value is None:
        return (1.0,) * len(names)
    said, found = _pairs("weights of outputs", value, names, 1.0), []
    for name in names:
        try:
            found.append(float(said.get(name, 0.0)))
        except (TypeError, ValueError, OverflowError):
            found.append(math.nan)
        if not 0 <= found[-1] < math.inf:
            raise DataError(f"the weight of output {name} is {said[name]!r}", "a number, 0 or more")
    if sum(found) <= 0:
        raise DataError("all outputs have the weight 0", "at least one that counts")
    return tuple(found)


def _pairs(what: str, value: PerOutput, names: Sequence[str], alone: Any) -> dict[str, Any]:
    if isinstance(value, str):
        pairs = [one.strip().rpartition("=") for one in value.split(",") if one.strip()]
        said = {name or text: (text if name else alone) for name, _, text in pairs}
    else:
        named = () if value is None or isinstance(value, Metric) else value
        keys = list(named) if isinstance(named, Iterable) and getattr(named, "ndim", None) != 0 else [named]
        said = (
            dict(named) if isinstance(named, Mapping) else {(key if isinstance(key, str) else repr(key)): alone for key in keys}
        )
    unknown = [name for name in said if name not in names]
    if unknown or (alone is None and None in said.values()):
        named = unknown[0] if unknown else next(name for name, one in said.items() if one is None)
        raise DataError(f"{what} of {named!r}", f"NAME=VALUE with names of outputs: {', '.join(names)}")
    return said
