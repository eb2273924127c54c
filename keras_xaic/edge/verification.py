"""Measures a bundle from its files: size, accuracy on the whole test set, latency and memory."""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional, Union

from keras_xaic.arguments import keyword_only
from keras_xaic.bundle import Bundle, open_bundle
from keras_xaic.data import Array, Samples, as_data, renamed
from keras_xaic.edge.bundle_facts import BundleFacts
from keras_xaic.edge.delegation import Delegation
from keras_xaic.edge.installed import deployed_interpreters, judge
from keras_xaic.edge.interpreters import get_interpreter
from keras_xaic.edge.running import EdgeResult, Latency, run_file
from keras_xaic.errors import EdgeError
from keras_xaic.files import PathLike
from keras_xaic.metrics import Metric
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.settings import DataOptions
from keras_xaic.tasks import with_task


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

    @property
    def error(self) -> Optional[EdgeError]:
        """The first interpreter's failure, None if all ran."""
        return next((run.error for run in self.runs.values() if run.error is not None), None)

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
        return next((run.agreement for run in self.runs.values() if run.error is None), None)

    @property
    def outputs(self) -> Optional[Array]:
        """The outputs of the first interpreter that ran, (N, ...) float32, `Parts` of several."""
        return next((run.outputs for run in self.runs.values() if run.error is None), None)

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


def verify(
    bundle: Union[Bundle, PathLike],
    data: Any,
    *,
    interpreters: Union[str, Sequence[str]] = "auto",
    reference: Optional[Array] = None,
    options: Optional[DataOptions] = None,
    latency_runs: int = 50,
    threads: int = 1,
    timeout: float = 120.0,
    progress: Optional[Callable[[str, int, int], None]] = None,
) -> Verification:
    """Measures a bundle on edge interpreters, from the files themselves.

    Args:
        bundle: A bundle or its directory.
        data: As `keras_xaic.data.as_data` takes it; its test part is used, or all of it where there is none.
        interpreters: Names, ``all`` for those that are installed and that users run on devices, or ``auto`` for the one that
            judges. TensorFlow Lite Micro gets micro/model.tflite; ``all`` leaves it out where there is none.
        reference: (N, ...) outputs of the original model for the same samples, for the agreement.
        options: Task, metric and scaling of the inputs where they are not what the data or the bundle says.
        latency_runs: Timed invocations per interpreter; 0 for none.
        threads: Threads of the interpreter.
        timeout: Seconds without progress after which an interpreter counts as hung.
        progress: Called with the interpreter's name, the finished and all samples.

    Returns:
        What was measured. If only some of several interpreters failed, `Verification.error` holds the first failure.

    Raises:
        EdgeError: If no interpreter could run the bundle.
        DataError: If there is no bundle or the data does not fit.
    """
    options = options or DataOptions()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    names = _names(opened, interpreters)
    facts = BundleFacts(opened)
    loaded = as_data(data, *facts.scaling(options.scale, options.offset), options.image_size)
    loaded = renamed(loaded, opened.class_names())
    loaded = facts.in_order(loaded)
    does = facts.task(loaded, options.task, options.metric)
    loaded = with_task(loaded, does)
    samples, part = loaded.judging, "train" if loaded.test is None else "test"
    digest = file_sha256(opened.model)
    stored = facts.report.get("sha256")
    stored = stored.get(opened.model.name) if isinstance(stored, dict) else stored
    runs = {}
    for interpreter in names:
        report = None if progress is None else _Progress(progress, interpreter, len(samples))
        try:
            result = run_file(
                _file_for(opened, interpreter),
                samples.x,
                interpreter=interpreter,
                scale=samples.scale,
                offset=samples.offset,
                threads=threads,
                latency_runs=latency_runs,
                timeout=timeout,
                progress=report,
            )
        except EdgeError as error:
            runs[interpreter] = InterpreterRun(interpreter, error=error)
        else:
            runs[interpreter] = _judge(result, samples, does, reference)
    verification = Verification(
        path=opened.path,
        task=does,
        samples=len(samples),
        part=part,
        flash_bytes=opened.model.stat().st_size,
        micro_flash_bytes=_size(opened.micro / "model.tflite"),
        download_bytes=_size(opened.download),
        sha256=digest,
        changed=None if stored is None else stored != digest,
        runs=runs,
    )
    if isinstance(does, Tasks) and verification.judge is not None and verification.judge.value is not None:
        originals = facts.originals(does)
        drops = () if originals is None else does.drops(originals, verification.judge.value, samples.y)
        does = does.headed(does.worst(drops)) if drops else does
        verification = replace(verification, task=does, originals=originals, drops=drops)
    if verification.error is not None and all(run.error is not None for run in runs.values()):
        raise verification.error
    return verification


def deployed_on(bundle: Bundle) -> tuple[str, ...]:
    """Returns the installed interpreters that a bundle is made for; TensorFlow Lite Micro only with a file of its own."""
    micro = (bundle.micro / "model.tflite").is_file()
    return tuple(name for name in deployed_interpreters() if name != "tflm" or micro)


def with_judge(bundle: Bundle, interpreters: Union[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns the interpreters that `verify` would take for `interpreters`, the one that judges first."""
    return tuple(dict.fromkeys((judge(), *_names(bundle, interpreters))))


def file_sha256(path: PathLike) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def latency_entry(latency: Latency, delegation: Optional[Delegation] = None) -> dict[str, Any]:
    """Returns a latency as report.json holds it: milliseconds, and how much of the file the delegate computes."""
    told = {} if delegation is None else delegation.as_dict()
    return {"median": latency.median, "p90": latency.p90, "threads": latency.threads, **told}


@dataclass(frozen=True)
class _Progress:
    report: Callable[[str, int, int], None]
    interpreter: str
    total: int

    def __call__(self, done: int) -> None:
        self.report(self.interpreter, done, self.total)


def _names(bundle: Bundle, interpreters: Union[str, Sequence[str]]) -> tuple[str, ...]:
    if interpreters == "all":
        return deployed_on(bundle) or (judge(),)
    if interpreters == "auto":
        return (judge(),)
    names = (interpreters,) if isinstance(interpreters, str) else tuple(interpreters)
    if not names:
        raise EdgeError("no interpreter was named")
    for name in names:
        get_interpreter(name)
    return names


def _file_for(bundle: Bundle, interpreter: str) -> pathlib.Path:
    micro = bundle.micro / "model.tflite"
    return micro if interpreter == "tflm" and micro.is_file() else bundle.model


def _judge(result: EdgeResult, samples: Samples, task: AnyTask, reference: Any) -> InterpreterRun:
    outputs: Any = result.together
    return InterpreterRun(
        interpreter=result.interpreter,
        version=result.version,
        value=task.value(outputs, samples),
        agreement=task.agreement(outputs, reference) if reference is not None else None,
        latency=result.latency,
        delegation=result.delegation,
        arena_bytes=result.arena_bytes,
        peak_memory_bytes=result.peak_memory_bytes,
        outputs=outputs,
    )


def _size(path: pathlib.Path) -> Optional[int]:
    return path.stat().st_size if path.is_file() else None
