"""Which output stands for all in a report, and what the report says of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from keras_xaic.data import arrays_of
from keras_xaic.edge import InterpreterRun
from keras_xaic.metrics import Task
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.pipeline.reference import deviation_in_percent

_Values = Optional[tuple[float, ...]]
_PLACES = ("edge", "keras")


@dataclass(frozen=True)
class OutputTable:
    """What each output lost; the one that lost most is the headline.

    Attributes:
        task: What the model does, with that headline.
        whole: Metric value of the original that drops are measured against; of several outputs one for each.
        original: By place (``edge``, ``keras``) the metric values of the original per output.
        compressed: The same of the compressed model.
        drops: Per output, in the unit of its metric; without targets in percent of the variance of values.
        agreements: Per output with the original.
        targets: What judged; None without.
    """

    task: AnyTask
    whole: Any
    original: Mapping[str, _Values]
    compressed: Mapping[str, _Values]
    drops: tuple[Optional[float], ...]
    agreements: tuple[Optional[float], ...]
    targets: Any

    @classmethod
    def of(
        cls,
        task: AnyTask,
        original: Mapping[str, Any],
        reference: str,
        judge: Optional[InterpreterRun],
        keras: Any,
        outputs: tuple[Any, Any],
        targets: Any,
    ) -> OutputTable:
        """Returns the table.

        Args:
            task: What the model does.
            original: Facts of the original (see `metric_facts`).
            reference: Which of its values drops are measured against.
            judge: What the judge made of the file.
            keras: Metric value of the compressed Keras model.
            outputs: Of the original and of the file.
            targets: What judged; None without.
        """
        edge = None if judge is None else judge.value
        befores = {place: _values_of(task, original, place) for place in _PLACES}
        afters = {place: _as_tuple(task, value) for place, value in zip(_PLACES, (edge, keras))}
        whole = befores[reference]
        each = list(task.tasks) if isinstance(task, Tasks) else [task]
        pairs = list(zip(each, arrays_of(outputs[0]), arrays_of(outputs[1])))
        agreements = tuple(one.agreement(after, before) for one, before, after in pairs)
        if targets is None:
            drops = tuple(deviation_in_percent(after, before) if one.is_values else None for one, before, after in pairs)
            lost = [
                drop if drop is not None else None if agreed is None else 100 * (1 - agreed)
                for drop, agreed in zip(drops, agreements)
            ]
        else:
            truths = [np.asarray(one) for one in arrays_of(targets)]
            both = zip(each, whole or (None,) * len(each), afters["edge"] or (None,) * len(each), truths)
            drops = tuple(one.drop(before, after, truth) for one, before, after, truth in both)
            lost = list(drops)
        if isinstance(task, Tasks):
            task, whole_ = task.headed(task.worst(lost)), whole
        else:
            whole_ = None if whole is None else whole[0]  # type: ignore[assignment]
        return cls(task, whole_, befores, afters, drops, agreements, targets)

    @property
    def main(self) -> Task:
        """The headline's task."""
        return self.task.tasks[self.task.headline] if isinstance(self.task, Tasks) else self.task

    @property
    def drop(self) -> Optional[float]:
        """The headline's drop; without targets the largest of values."""
        if self.targets is None:
            known = [one for one in self.drops if one is not None]
            return max(known) if known else None
        return self.drops[self.task.headline if isinstance(self.task, Tasks) else 0]

    def drop_of(self, baseline: Mapping[str, Any]) -> Optional[float]:
        """Returns what a baseline lost, as `drop`: of several outputs the most."""
        if not isinstance(self.task, Tasks):
            return self.task.drop(self.whole, baseline["edge_metric"], self.targets)
        return self.task.drop(self.whole, _values_of(self.task, baseline, "edge"), self.targets)

    def headlined(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Returns facts with the headline's metric value where they hold one for each output."""
        found = {key: value for key, value in facts.items() if key not in ("edge_values", "keras_values")}
        for place in _PLACES:
            if f"{place}_values" in facts and isinstance(self.task, Tasks):
                values = _values_of(self.task, facts, place)
                value = self.task.shown(values)
                accuracy = value if self.task.metric_name == "accuracy" else None
                found.update({f"{place}_metric": value, f"{place}_accuracy": accuracy})
        return found

    def edge_facts(self, judge: Optional[InterpreterRun]) -> dict[str, Any]:
        """Returns what `headlined` takes, of the file on the judge."""
        value = None if judge is None else judge.value
        if isinstance(self.task, Tasks):
            return {"edge_values": None if value is None else dict(zip(self.task.names, value))}
        return {"edge_metric": value, "edge_accuracy": value if self.task.metric_name == "accuracy" else None}

    def metric_facts(self) -> dict[str, Any]:
        """Returns what report.json says of the headline's metric."""
        facts: dict[str, Any] = self.task.metric.facts()
        return {**facts, "output": self.task.names[self.task.headline]} if isinstance(self.task, Tasks) else facts

    def facts(self, baselines: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns report.json's ``outputs``, the one that lost most first."""
        several = isinstance(self.task, Tasks)
        each = self.task.tasks if isinstance(self.task, Tasks) else (self.task,)
        names = self.task.names if isinstance(self.task, Tasks) else ("output",)
        weights = self.task.weights if isinstance(self.task, Tasks) else (1.0,)
        others = {name: _values_of(self.task, facts, "edge") for name, facts in baselines.items()} if several else {}

        def at(values: _Values, number: int) -> Optional[float]:
            return None if values is None else values[number]

        found = [
            {
                "name": names[number],
                "task": task.kind,
                "metric": None if self.targets is None else task.metric_name,
                "weight": weights[number],
                "original": at(_tuple(self.whole), number),
                "compressed": at(self.compressed["edge"], number),
                "original_keras": at(self.original["keras"], number),
                "compressed_keras": at(self.compressed["keras"], number),
                "drop": self.drops[number],
                "agreement": self.agreements[number],
                "baselines": {name: at(values, number) for name, values in others.items()},
            }
            for number, task in enumerate(each)
        ]
        first = self.task.headline if isinstance(self.task, Tasks) else 0
        order = sorted(range(len(found)), key=lambda i: (i != first, -_lost(self.drops[i], self.agreements[i]), i))
        return [found[number] for number in order]


def _lost(drop: Optional[float], agreement: Optional[float]) -> float:
    return drop if drop is not None else -math.inf if agreement is None else 100 * (1 - agreement)


def _tuple(value: Union[float, tuple[float, ...], None]) -> _Values:
    return value if value is None or isinstance(value, tuple) else (value,)


def _as_tuple(task: AnyTask, value: Any) -> _Values:
    return tuple(value) if isinstance(task, Tasks) and value is not None else _tuple(value)


def _values_of(task: AnyTask, facts: Mapping[str, Any], place: str) -> _Values:
    """Returns the metric values per output that facts hold (see `metric_facts`)."""
    if not isinstance(task, Tasks):
        return _tuple(facts.get(f"{place}_metric"))
    kept = facts.get(f"{place}_values")
    return None if kept is None else tuple(float(kept[name]) for name in task.names)
