"""Measures a bundle from its files, on the interpreters that are asked for: size, metric, latency and memory."""

from __future__ import annotations

import functools
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Optional, Union

from keras_xaic.bundle import Bundle, open_bundle
from keras_xaic.data import Array, Samples, as_data, renamed
from keras_xaic.edge.bundle_facts import BundleFacts
from keras_xaic.edge.cutting import said_of_cut
from keras_xaic.edge.installed import deployed_interpreters, judge
from keras_xaic.edge.interpreters import get_interpreter
from keras_xaic.edge.measured import InterpreterRun, Verification
from keras_xaic.edge.running import EdgeResult, run_file
from keras_xaic.edge.sharing import run_on_nodes
from keras_xaic.errors import EdgeError, XaicWarning
from keras_xaic.files import PathLike, file_sha256
from keras_xaic.keras_metrics import value_if_any
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.settings import DataOptions
from keras_xaic.tasks import with_task


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
    cluster: Optional[str] = None,
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
        cluster: A Ray cluster whose nodes share the samples: ``auto`` or HOST:PORT; None: this machine. Time and memory are
            measured here all the same.
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
    decided = loaded.judging.task
    does = facts.task(loaded, options.task, options.metric)
    _say_missing(does)
    loaded = with_task(loaded, does)
    samples, part = loaded.judging, "train" if loaded.test is None else "test"
    digest = file_sha256(opened.model)
    stored = facts.report.get("sha256")
    stored = stored.get(opened.model.name) if isinstance(stored, dict) else stored
    files = {name: file_for(opened, name) for name in names}
    results = _run(files, samples, threads, latency_runs, timeout, cluster, progress)
    runs = {name: _told(name, result, samples, does, reference) for name, result in results.items()}
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
    if decided is None:  # else the original was judged before
        _say_doubt(verification, samples)
        cut = said_of_cut(opened.model, samples) if verification.outputs is not None else None
        if cut is not None:
            warnings.warn(cut, XaicWarning, stacklevel=2)
    if isinstance(does, Tasks) and verification.judge is not None and verification.judge.value is not None:
        originals = facts.originals(does)
        drops = () if originals is None else does.drops(originals, verification.judge.value, samples.y)
        does = does.headed(does.worst(drops)) if drops else does
        verification = replace(verification, task=does, originals=originals, drops=drops)
    if verification.error is not None and all(run.error is not None for run in runs.values()):
        raise verification.error
    return verification


def _say_doubt(verification: Verification, samples: Samples) -> None:
    """Says where outputs are no better than chance: labels that begin at 1, say, of which the last class is missing."""
    run = verification.judge
    if run is not None and run.outputs is not None and samples.y is not None:
        outputs: Any = run.outputs
        doubt = verification.task.doubt(outputs, samples.y, "The file's")
        if doubt is not None:
            warnings.warn(doubt, XaicWarning, stacklevel=3)


def _say_missing(does: AnyTask) -> None:
    for one in does.tasks if isinstance(does, Tasks) else (does,):
        if one.missing:
            said = (
                f"The report's {one.missing} is a function of your own, which no bundle holds: {one.metric_name} judges here. "
            )
            warnings.warn(said + "In Python, DataOptions(metric=...) takes the function.", XaicWarning, stacklevel=3)


def deployed_on(bundle: Bundle) -> tuple[str, ...]:
    """Returns the installed interpreters that a bundle is made for; TensorFlow Lite Micro only with a file of its own."""
    micro = (bundle.micro / "model.tflite").is_file()
    return tuple(name for name in deployed_interpreters() if name != "tflm" or micro)


def with_judge(bundle: Bundle, interpreters: Union[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns the interpreters that `verify` would take for `interpreters`, the one that judges first."""
    return tuple(dict.fromkeys((judge(), *_names(bundle, interpreters))))


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


def file_for(bundle: Bundle, interpreter: str) -> pathlib.Path:
    """Returns the file of a bundle that an interpreter runs."""
    micro = bundle.micro / "model.tflite"
    return micro if interpreter == "tflm" and micro.is_file() else bundle.model


def _run(
    files: Mapping[str, pathlib.Path],
    samples: Samples,
    threads: int,
    latency_runs: int,
    timeout: float,
    cluster: Optional[str],
    progress: Optional[Callable[[str, int, int], None]],
) -> dict[str, Union[EdgeResult, EdgeError]]:
    """Returns what each interpreter makes of its file, or why it failed."""

    def tell(name: str, done: int) -> None:
        if progress is not None:
            progress(name, done, len(samples))

    how: dict[str, Any] = {"scale": samples.scale, "offset": samples.offset, "threads": threads, "timeout": timeout}
    inputs = samples.x if cluster is None else samples.x[:1]
    results: dict[str, Union[EdgeResult, EdgeError]] = {}
    for name, file in files.items():
        said = functools.partial(tell, name) if cluster is None else None
        try:
            results[name] = run_file(file, inputs, interpreter=name, latency_runs=latency_runs, progress=said, **how)
        except EdgeError as error:
            results[name] = error
    ran = {name: result for name, result in results.items() if isinstance(result, EdgeResult)}
    if cluster is not None and ran:
        results.update(run_on_nodes(cluster, files, samples.x, ran, how, tell))
    return results


def _told(
    interpreter: str, result: Union[EdgeResult, EdgeError], samples: Samples, task: AnyTask, reference: Any
) -> InterpreterRun:
    if isinstance(result, EdgeError):
        return InterpreterRun(interpreter, error=result)
    outputs: Any = result.together
    return InterpreterRun(
        interpreter=result.interpreter,
        version=result.version,
        value=value_if_any(task, outputs, samples),
        agreement=task.agreement(outputs, reference) if reference is not None else None,
        latency=result.latency,
        delegation=result.delegation,
        arena_bytes=result.arena_bytes,
        peak_memory_bytes=result.peak_memory_bytes,
        outputs=outputs,
    )


def _size(path: pathlib.Path) -> Optional[int]:
    return path.stat().st_size if path.is_file() else None
