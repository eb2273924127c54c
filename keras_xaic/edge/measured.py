"""What was measured of a bundle: by each interpreter, and altogether."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass, field
from html import escape
from typing import Any, Optional

from keras_xaic.arguments import keyword_only
from keras_xaic.data import Array
from keras_xaic.edge.delegation import Delegation
from keras_xaic.edge.running import Latency
from keras_xaic.errors import EdgeError, XaicError
from keras_xaic.metrics import Metric
from keras_xaic.output_tasks import AnyTask, Tasks


@dataclass(frozen=True)
class InterpreterRun:
    """What one interpreter made of the bundle.

    Attributes:
        interpreter: Its name.
        version: Its version; None if it did not run.
        value: The metric on all samples, of several outputs one for each; None without targets or if it did not run.
        agreement: Share of decisions that are the reference's; None without a reference, and for values; of several outputs the
            smallest.
        latency: Milliseconds of one invocation; None unless measured.
        delegation: What its delegate takes of the file; None where it has none.
        arena_bytes: For TensorFlow Lite Micro.
        peak_memory_bytes: What loading and one invocation added to a Python process.
        error: What went wrong, None if it ran.
        outputs: (N, ...) float32 outputs, `Parts` of several; None if it did not run.
    """

    interpreter: str
    version: Optional[str] = None
    value: Any = None
    agreement: Optional[float] = None
    latency: Optional[Latency] = None
    delegation: Optional[Delegation] = None
    arena_bytes: Optional[int] = None
    peak_memory_bytes: Optional[int] = None
    error: Optional[EdgeError] = None
    outputs: Optional[Array] = field(default=None, repr=False, compare=False)

    def as_dict(self, task: Optional[AnyTask] = None) -> dict[str, Any]:
        """Returns the entry for report.json's ``interpreters``; of several outputs ``metric`` is the headline's."""
        value = self.value if task is None else task.shown(self.value)
        accuracy = value if task is None or task.metric.name == "accuracy" else None
        entry: dict[str, Any] = {"version": self.version, "accuracy": accuracy, "metric": value, "ran": self.error is None}
        if isinstance(task, Tasks) and self.value is not None:
            entry["outputs"] = dict(zip(task.names, self.value))
        if self.agreement is not None:
            entry["agreement"] = self.agreement
        if self.latency is not None:
            entry["latency_ms"] = latency_entry(self.latency, self.delegation)
        if self.arena_bytes is not None:
            entry["arena_bytes"] = self.arena_bytes
        if self.peak_memory_bytes is not None:
            entry["peak_memory_bytes"] = self.peak_memory_bytes
        if self.error is not None:
            entry["error"] = str(self.error)
        return entry


@keyword_only(after=0)
@dataclass(frozen=True)
class Verification:
    """What was measured of a bundle, from its files.

    Attributes:
        path: The bundle's directory.
        task: What the model does, and its metric.
        samples: How many samples were run.
        part: ``test``, or ``train`` where the data has no test part.
        flash_bytes: Size of model.tflite.
        micro_flash_bytes: Size of micro/model.tflite; None if there is none.
        download_bytes: Size of model.xaic; None if there is none.
        sha256: Of model.tflite.
        changed: Whether model.tflite differs from the one that report.json describes; None if that does not say.
        runs: By name of the interpreter.
        originals: Metric values of the original's outputs, as report.json says; None with one output, or where it does not say.
        drops: How much worse each output is, in the unit of its metric; empty where that is not known.
        faults: What else is wrong: outputs that are not those of the Keras model, files that were not written together.
    """

    path: pathlib.Path
    task: AnyTask
    samples: int
    part: str
    flash_bytes: int
    micro_flash_bytes: Optional[int]
    download_bytes: Optional[int]
    sha256: str
    changed: Optional[bool]
    runs: dict[str, InterpreterRun]
    originals: Optional[tuple[float, ...]] = None
    drops: tuple[Optional[float], ...] = ()
    faults: tuple[XaicError, ...] = ()

    def _repr_html_(self) -> str:
        """What notebooks show: what each interpreter measured."""
        shown = {name: None if run.value is None else self.task.shown(run.value) for name, run in self.runs.items()}
        rows = [
            f"<tr><td>{escape(name)}</td><td>{'-' if shown[name] is None else f'{shown[name]:.4g}'}</td>"
            f"<td>{escape('' if run.error is None else str(run.error))}</td></tr>"
            for name, run in self.runs.items()
        ]
        head = f"{escape(str(self.path))}: model.tflite {self.flash_bytes:,} B, {self.samples:,} {escape(self.part)} samples"
        titles = f"<tr><th>interpreter</th><th>{escape(self.metric.name)}</th><th></th></tr>"
        return f"<table><caption>{head}</caption>{titles}{''.join(rows)}</table>"

    @property
    def error(self) -> Optional[XaicError]:
        """The first interpreter's failure, else the first of `faults`; None where nothing is wrong."""
        return next((one for one in [*(run.error for run in self.runs.values()), *self.faults] if one is not None), None)

    @property
    def metric(self) -> Metric:
        """What was measured."""
        return self.task.metric

    @property
    def edge_metric(self) -> Optional[float]:
        """The metric on the first interpreter that ran, of several outputs the headline's; None without targets."""
        return self.task.shown(None if self.judge is None else self.judge.value)

    @property
    def edge_accuracy(self) -> Optional[float]:
        """The accuracy on the first interpreter that ran; None where the metric is another."""
        return self.edge_metric if self.metric.name == "accuracy" else None

    @property
    def judge(self) -> Optional[InterpreterRun]:
        """The first interpreter that ran: its outputs are the metric values."""
        return next((run for run in self.runs.values() if run.error is None), None)

    @property
    def agreement(self) -> Optional[float]:
        """The agreement on the first interpreter that ran."""
        return None if self.judge is None else self.judge.agreement

    @property
    def outputs(self) -> Optional[Array]:
        """The outputs of the first interpreter that ran, (N, ...) float32, `Parts` of several."""
        return None if self.judge is None else self.judge.outputs

    @property
    def arena_bytes(self) -> Optional[int]:
        """The arena that TensorFlow Lite Micro needs, None if it did not run."""
        return self.runs["tflm"].arena_bytes if "tflm" in self.runs else None

    def latency_ms(self) -> dict[str, dict[str, Any]]:
        """Returns report.json's ``latency_ms`` of the interpreters that ran."""
        return {name: latency_entry(run.latency, run.delegation) for name, run in self.runs.items() if run.latency is not None}

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, named as in report.json."""
        return {
            "path": str(self.path),
            "task": self.task.kind,
            "metric": self.metric.facts(),
            "samples": self.samples,
            "part": self.part,
            "flash_bytes": self.flash_bytes,
            "micro_flash_bytes": self.micro_flash_bytes,
            "download_bytes": self.download_bytes,
            "sha256": self.sha256,
            "changed": self.changed,
            "faults": [str(one) for one in self.faults],
            "judge": {} if self.judge is None else {"interpreter": self.judge.interpreter, "version": self.judge.version},
            "edge_metric": self.edge_metric,
            "edge_accuracy": self.edge_accuracy,
            "agreement": self.agreement,
            "interpreters": {name: run.as_dict(self.task) for name, run in self.runs.items()},
            **({"output": self.output, "outputs": self.by_output()} if self.output is not None else {}),
        }

    @property
    def output(self) -> Optional[str]:
        """Name of the output whose metric `edge_metric` is: the one that lost most; None where there is one output only."""
        return self.task.names[self.task.headline] if isinstance(self.task, Tasks) else None

    def by_output(self) -> list[dict[str, Any]]:
        """Returns what each output gives, worst first, beside what report.json says of the original; empty with one output."""
        if not isinstance(self.task, Tasks):
            return []
        values = None if self.judge is None else self.judge.value
        drops = self.drops or (None,) * len(self.task.names)
        found = [
            {
                "name": name,
                "task": task.kind,
                "metric": task.metric_name,
                "original": None if self.originals is None else self.originals[number],
                "compressed": None if values is None else values[number],
                "drop": drops[number],
            }
            for number, (name, task) in enumerate(zip(self.task.names, self.task.tasks))
        ]
        return sorted(found, key=lambda one: -math.inf if one["drop"] is None else -one["drop"])


def latency_entry(latency: Latency, delegation: Optional[Delegation] = None) -> dict[str, Any]:
    """Returns a latency as report.json holds it: milliseconds, and how much of the file the delegate computes."""
    told = {} if delegation is None else delegation.as_dict()
    return {"median": latency.median, "p90": latency.p90, "least": latency.least, "threads": latency.threads, **told}
