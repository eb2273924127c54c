"""What a bundle remembers of its model: task and metric, scaling and order of inputs, metric values of the original."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

from keras_xaic.bundle import Bundle
from keras_xaic.data import Data, Parts, with_channels, without_lone_class
from keras_xaic.edge.inspect_file import FileInfo, read_file
from keras_xaic.errors import DataError
from keras_xaic.json_files import read_json
from keras_xaic.metrics import Metric, Task
from keras_xaic.output_tasks import AnyTask, PerOutput, Tasks, by_output, check_all_targets, infer_all, task_of
from keras_xaic.tasks import Head, infer


class BundleFacts:
    """What the files of a bundle say.

    Attributes:
        bundle: The bundle.
        kit: ``check/task.json``; empty for bundles without it.
        report: ``report.json``; empty where there is none.

    Raises:
        DataError: If one of them is damaged.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.report = _entries(bundle.report)
        self.kit = _entries(bundle.check / "task.json")

    def in_order(self, data: Data) -> Data:
        """Returns data in the order of the file's inputs and outputs, by the names that the bundle remembers."""
        ports, data = self.bundle.ports(), without_lone_class(data)
        if data.images:
            data = with_channels(data, [tensor.shape for tensor in read_file(self.bundle.model).inputs])
        if ports is not None:
            return data.ordered(*ports)
        alone = [one.names or ("0",) if isinstance(one, Parts) else ("0",) for one in (data.train.x, data.train.y)]
        return data.ordered(alone[0][:1], alone[1][:1])

    def originals(self, task: Tasks) -> Optional[tuple[float, ...]]:
        """Returns what report.json says of the original's outputs, if it speaks of the same metrics."""
        listed = self.report.get("outputs")
        listed = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        found = []
        for name, one in zip(task.names, task.tasks):
            value = next((facts.get("original") for facts in listed if facts.get("name") == name), None)
            metric = next((facts.get("metric") for facts in listed if facts.get("name") == name), None)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or metric != one.metric_name:
                return None
            if not abs(value) < 1e300:
                return None
            found.append(float(value))
        return tuple(found)

    def scaling(self, scale: Optional[float], offset: Optional[float]) -> tuple[float, float]:
        """Returns how the model sees inputs: as asked for, else as the bundle remembers it."""
        inputs = self.kit.get("inputs") or self.report.get("inputs")
        inputs = inputs if isinstance(inputs, dict) else {}
        found = []
        for name, given, usual in (("scale", scale, 1.0), ("offset", offset, 0.0)):
            value = inputs.get(name, usual) if given is None else given
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise DataError(f"the bundle's {name} is {value!r}", "a number")
            found.append(float(value))
        return found[0], found[1]

    def task(self, data: Data, task: PerOutput, metric: Any) -> AnyTask:
        """Returns what the model does: as asked for, else as the bundle remembers it, else as output and targets say."""
        ports = self.bundle.ports()
        if ports is not None:
            return self._tasks(ports[1], data, task, metric)
        known, task, metric = Task.of(self.kit), _alone(task), _alone(metric)
        head = Head.of(self.kit["head"]) if "head" in self.kit else _head(read_file(self.bundle.model))
        if known is not None and task in (None, known.kind):
            check_all_targets(known, [head], data)
            return known if metric is None else known.judged_by(metric)
        if task is None and metric is None:  # report.json is all there is for bundles without check/task.json
            told = self.report.get("metric")
            name = told.get("name") if isinstance(told, dict) else told
            task, metric = self.report.get("task"), name if isinstance(name, str) else None
        return infer(head, data, _alone(task), _alone(metric))

    def _tasks(self, names: Sequence[str], data: Data, task: PerOutput, metric: PerOutput) -> AnyTask:
        """Returns the same for a model with several inputs or outputs."""
        known, facts, info = task_of(self.kit), self.kit.get("heads"), read_file(self.bundle.model)
        if len(info.outputs) != len(names):
            raise DataError(f"{self.bundle.model} has {len(info.outputs)} outputs", f"{len(names)}, as check/task.json says")
        heads = [_head(info, number) for number in range(len(names))]
        if isinstance(facts, list) and len(facts) == len(names):
            heads = [Head.of(one) for one in facts]
        if known is not None and task is None:
            check_all_targets(known, heads, data)
            metrics = by_output("metric", metric, names)
            told = list(known.tasks) if isinstance(known, Tasks) else [known]
            made = [one if asked is None else one.judged_by(asked) for one, asked in zip(told, metrics)]
            return replace(known, tasks=tuple(made)) if isinstance(known, Tasks) else made[0]
        return infer_all([replace(head, name=name) for head, name in zip(heads, names)], data, task, metric)


def _entries(path: pathlib.Path) -> dict[str, Any]:
    kept = read_json(path) if path.is_file() else {}
    return kept if isinstance(kept, dict) else {}


def _alone(value: PerOutput) -> Any:
    """Returns what is said of the only output."""
    if value is None or isinstance(value, (str, Metric)):
        return value
    raise DataError(f"{value!r} for a model with one output", "one name")


def _head(info: FileInfo, number: int = 0) -> Head:
    """Returns what a file says of an output."""
    sizes = [tuple(None if n < 0 else n for n in tensor.signature[1:]) for tensor in (info.outputs[number], info.inputs[0])]
    ends = {i: operator for operator in info.main.operators for i in operator.outputs}
    last = ends.get(info.main.outputs[number])
    while last is not None and last.name in ("QUANTIZE", "DEQUANTIZE", "RESHAPE"):
        last = ends.get(last.inputs[0])
    activations = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "TANH": "tanh"}
    return Head(sizes[0], activations.get("" if last is None else last.name, "linear"), "", sizes[1])
