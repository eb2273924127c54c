"""What an interpreter can be asked to do, and how what it did is told."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import Any, Callable, Optional

import numpy as np

from .adapters import JobError, Lite, arbitrary, module_of, open_file, quantize, version_of
from .digests import digest
from .host import MACHINE, START, end_with_parent, limit_memory, peak_since, reset_peak, take_stdout, tell

CHUNK = 256  # samples quantized at a time

WARM_UP = 5


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Runs every sample on its own, as a device does."""
    arrays = [np.load(path, mmap_mode="r") for path in job["inputs"]]
    interpreter = open_file(job)
    limit_memory(job["memory"])
    before = reset_peak()
    interpreter.prepare([a.shape[1:] for a in arrays])
    for i, (array, detail) in enumerate(zip(arrays, interpreter.inputs)):
        if tuple(detail["shape"]) != (1, *array.shape[1:]):
            raise JobError(
                "data",
                f"input {i} of the file takes {tuple(detail['shape'])}, one sample of the data is {(1, *array.shape[1:])}",
            )

    def load(start: int, count: int) -> list[np.ndarray]:
        parts = [np.asarray(a[start : start + count], np.float32) for a in arrays]
        if job["scale"] != 1.0 or job["offset"] != 0.0:
            parts = [p * np.float32(job["scale"]) + np.float32(job["offset"]) for p in parts]
        return [quantize(p, d) for p, d in zip(parts, interpreter.inputs)]

    first = load(0, 1)
    _set(interpreter, first, 0)
    interpreter.invoke()
    peak = peak_since(before)
    results = []
    for i in range(len(interpreter.outputs)):
        one = interpreter.get(i)
        shape = one.shape[1:] if one.ndim and one.shape[0] == 1 else one.shape
        results.append(np.empty((len(arrays[0]), *shape), one.dtype))
    _loop(interpreter, load, results)
    latency = _latency(interpreter, first, job["latency_runs"])
    for path, result in zip(job["outputs"], results):
        np.save(path, result)
    return {
        "version": version_of(interpreter.runtime),
        "latency": latency,
        "peak_memory": peak,
        "outputs": interpreter.outputs,
        "delegated": interpreter.delegated(),
    }


def race(job: dict[str, Any]) -> dict[str, Any]:
    """Runs several files in turn, so that what else the machine does slows all of them alike."""
    racers: list[Any] = []
    for model in job["models"]:
        job["model"] = model  # which errors name
        interpreter = open_file(job)
        interpreter.prepare([])
        for i, detail in enumerate(interpreter.inputs):
            interpreter.set(i, arbitrary(detail["shape"], np.dtype(detail["dtype"])))
        racers.append(interpreter)
    times: list[list[float]] = [[] for _ in racers]
    reported = time.monotonic()
    for k in range(WARM_UP + job["latency_runs"]):
        for interpreter, own in zip(racers, times):
            start = time.perf_counter_ns()
            interpreter.invoke()
            own.append((time.perf_counter_ns() - start) / 1e6)
        if time.monotonic() - reported > 0.2:
            reported = time.monotonic()
            tell(str(k + 1))
    return {
        "version": version_of(racers[0].runtime),
        "latency": [_percentiles(own[WARM_UP:]) for own in times],
        "delegated": [interpreter.delegated() for interpreter in racers],
    }


def once(job: dict[str, Any]) -> dict[str, Any]:
    """Runs once, on inputs that mean nothing: does the interpreter run such a file at all?"""
    interpreter = open_file(job)
    limit_memory(job["memory"])
    interpreter.prepare([])
    for i, detail in enumerate(interpreter.inputs):
        interpreter.set(i, arbitrary(detail["shape"], np.dtype(detail["dtype"])))
    interpreter.invoke()
    return {"version": version_of(interpreter.runtime)}


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Loads the file and nothing more: what does the interpreter say to it?"""
    interpreter = open_file(job)
    limit_memory(job["memory"])
    if isinstance(interpreter, Lite):
        interpreter.interpreter.allocate_tensors()
    else:
        interpreter.build(interpreter.arenas[1])
    return {"version": version_of(interpreter.runtime)}


def arena(job: dict[str, Any]) -> dict[str, Any]:
    """Measures the arena: the allocation report (on stderr, by C++), and the smallest on which the file computes the same."""
    micro = open_file(job)
    micro.prepare([])
    expected = micro.compute(micro.enough)
    sys.stderr.flush()
    micro.interpreter.print_allocations()
    # What runs on too few bytes may have written past their end: it has to compute the same, too, where that can be said.
    right = {expected, micro.probe(micro.enough)} - {None}
    is_told = len(right) == 1

    def works(size: int) -> bool:
        given = micro.probe(size)
        return given in right if is_told else given is not None

    return {"version": version_of(micro.runtime), "minimum": smallest(job["guess"], micro.enough, works)}


def smallest(guess: int, enough: int, works: Callable[[int], bool]) -> int:
    """Returns the smallest multiple of 16 that works, with few trials where it is near `guess`; `enough` works."""
    step = 16
    low, high, stride = 0, enough, step
    trial = min(max(step, guess // step * step), enough)
    while low + step < high:
        if works(trial):
            high, trial = trial, trial - stride
        else:
            low, trial = trial, trial + stride
        if not low < trial < high or (low > 0 and high < enough):
            trial = (low + high) // (2 * step) * step
        stride *= 4
    return high


def version(job: dict[str, Any]) -> dict[str, Any]:
    """Says which version would run."""
    return {"version": version_of(module_of(job["interpreter"]))}


def start(path: str) -> None:
    """Does the job in the JSON file `path`, and ends the process."""
    take_stdout()
    tell(START)
    main(path)
    sys.stderr.flush()
    os._exit(0)  # what some interpreters do at exit can hang or crash


def main(path: str) -> None:
    """Does the job in the JSON file `path`."""
    end_with_parent()
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    try:
        modes = {"run": run, "race": race, "once": once, "load": load, "arena": arena, "digest": digest, "version": version}
        result = modes[job["mode"]](job)
    except JobError as error:
        result = {"error": str(error), "kind": error.kind}
    except MemoryError:
        result = {"error": "out of memory", "kind": "memory"}
    except OSError as error:
        result = {"error": str(error), "kind": "machine", "number": _number(error), "file": str(error.filename or "")}
    except Exception as error:  # the interpreters raise all kinds on bad files; the parent says it in one line
        text = str(error).strip() or "no reason given, most likely for want of memory"
        result = {"error": f"{type(error).__name__}: {text}", "kind": "interpreter"}
    result["model"] = job["model"]
    try:
        with open(job["result"] + ".part", "w", encoding="utf-8") as file:
            json.dump(result, file)
        os.replace(job["result"] + ".part", job["result"])
    except OSError as error:  # on a full disk nothing but a number can be told
        os._exit(MACHINE + _number(error))


def _number(error: OSError) -> int:
    """Returns the number of an error of the machine; where numpy cannot write everything it says no number."""
    number = error.errno or (errno.ENOSPC if "requested and" in str(error) else errno.EIO)
    return number if number < MACHINE else errno.ENOSPC


def _loop(interpreter: Any, load: Any, results: list[np.ndarray]) -> None:
    count, reported = len(results[0]), time.monotonic()
    for start in range(0, count, CHUNK):
        parts = load(start, CHUNK)
        for k in range(min(CHUNK, count - start)):
            _set(interpreter, parts, k)
            interpreter.invoke()
            for i, result in enumerate(results):
                result[start + k] = interpreter.get(i).reshape(result.shape[1:])  # NumPy makes no number of (1,)
            if time.monotonic() - reported > 0.2:
                reported = time.monotonic()
                tell(str(start + k + 1))


def _latency(interpreter: Any, parts: list[np.ndarray], runs: int) -> Optional[dict[str, float]]:
    if runs < 1:
        return None
    times = []
    for k in range(WARM_UP + runs):
        _set(interpreter, parts, 0)
        start = time.perf_counter_ns()
        interpreter.invoke()
        if k >= WARM_UP:
            times.append((time.perf_counter_ns() - start) / 1e6)
    return _percentiles(times)


def _percentiles(times: list[float]) -> dict[str, float]:
    return {"median": float(np.median(times)), "p90": float(np.percentile(times, 90)), "least": min(times)}


def _set(interpreter: Any, parts: list[np.ndarray], k: int) -> None:
    interpreter.forget()
    for i, part in enumerate(parts):
        interpreter.set(i, part[k : k + 1])
