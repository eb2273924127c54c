"""One job on one edge interpreter, alone in a process: ``python child.py JOB.json``.

This file is run by path and imports numpy and the interpreter only: it starts quickly, and it also works in an environment of
LiteRT's own where keras_xaic is not installed. What it found goes to the file that the job names; `START` and progress (lines
with the number of finished samples) go to what is stdout at its start; what the interpreter has to say, on stdout or stderr,
goes to stderr, where the parent reads it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import importlib.metadata as metadata
import json
import os
import signal
import sys
import time
from typing import Any, Callable, Optional

import numpy as np

CHUNK = 256  # samples quantized at a time
WARM_UP = 5
START = "started"
"""First line of progress: Python and numpy work here."""
MACHINE = 64
"""Where not even the result can be written, the child ends with this plus the number of the error."""
PROGRESS = 1
"""File descriptor of progress."""


class JobError(Exception):
    """What went wrong, for the parent: `kind` says whose fault it is (data, missing, broken, interpreter)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Lite:
    """tflite-runtime and LiteRT, which share one interface."""

    modules = {
        "tflite-runtime": ("tflite_runtime.interpreter",),
        "builtin-ref": ("tflite_runtime.interpreter", "ai_edge_litert.interpreter"),
        "litert": ("ai_edge_litert.interpreter",),
    }

    def __init__(self, job: dict[str, Any]) -> None:
        module = self.runtime = _first(self.modules[job["interpreter"]])
        resolver = module.OpResolverType.BUILTIN_REF if job["interpreter"] == "builtin-ref" else module.OpResolverType.AUTO
        self.interpreter = module.Interpreter(
            model_path=job["model"],
            num_threads=job["threads"],
            experimental_op_resolver_type=resolver,
        )

    def prepare(self, samples: list[tuple[int, ...]]) -> None:
        """Makes the interpreter ready for samples of these shapes."""
        details = self.interpreter.get_input_details()
        for detail, shape in zip(details, samples):
            wanted, now = (1, *shape), tuple(detail["shape"])
            free = tuple(detail["shape_signature"])
            if now != wanted and len(free) == len(wanted) and all(f in (-1, w) for f, w in zip(free, wanted)):
                self.interpreter.resize_tensor_input(detail["index"], wanted, strict=True)
        self.interpreter.allocate_tensors()
        self.inputs = [self._describe(d) for d in self.interpreter.get_input_details()]
        self.outputs = [self._describe(d) for d in self.interpreter.get_output_details()]

    def delegated(self) -> Optional[list[dict[str, list[int]]]]:
        """Returns what each part of the graph that a delegate computes reads and gives; None if that is not said."""
        details = getattr(self.interpreter, "_get_ops_details", None)
        if details is None:
            return None
        found = [one for one in details() if one["op_name"] == "DELEGATE"]
        return [{key: [int(index) for index in one[key]] for key in ("inputs", "outputs")} for one in found]

    def forget(self) -> None:
        """Forgets the state that earlier samples left in a recurrent model."""
        self.interpreter.reset_all_variables()

    def set(self, index: int, value: np.ndarray) -> None:
        """Sets input `index`."""
        self.interpreter.set_tensor(self.inputs[index]["index"], value)

    def invoke(self) -> None:
        """Runs once."""
        self.interpreter.invoke()

    def get(self, index: int) -> np.ndarray:
        """Returns output `index`."""
        return np.asarray(self.interpreter.get_tensor(self.outputs[index]["index"]))

    @staticmethod
    def _describe(detail: dict[str, Any]) -> dict[str, Any]:
        scale, zero_point = detail["quantization"]
        return {
            "index": detail["index"],
            "shape": [int(n) for n in detail["shape"]],
            "dtype": np.dtype(detail["dtype"]).name,
            "scale": float(scale),
            "zero_point": int(zero_point),
        }


class Micro:
    """TensorFlow Lite Micro: fixed shapes, one arena."""

    arenas = (1 << 22, 1 << 25, 1 << 28, 1 << 30)

    def __init__(self, job: dict[str, Any]) -> None:
        self.runtime = _import("tflite_micro.python.tflite_micro.runtime")
        with open(job["model"], "rb") as file:
            self.content = file.read()
        self.alternate = int(job.get("alternate_bytes", 0))
        self.config = self.runtime.InterpreterConfig.kAllocationRecording
        self.counts = job["tensors"]

    def prepare(self, samples: list[tuple[int, ...]]) -> None:
        """Builds the interpreter on an arena that is large enough; where none is, the largest says why."""
        self.enough = next((size for size in self.arenas if self.probe(size) is not None), self.arenas[-1])
        self.build(self.enough)
        self.describe()

    def probe(self, arena: int) -> Optional[bytes]:
        """Returns what the file computes on `arena` bytes, None where it does not run.

        It is tried in a copy of this process: while kernels prepare, an arena that is too small ends in a crash as often as in
        an error.
        """
        return _in_copy(lambda: self.compute(arena))

    def compute(self, arena: int) -> bytes:
        """Builds the interpreter on `arena` bytes and returns what it makes of inputs that are the same every time."""
        self.build(arena)
        self.describe()
        for i, detail in enumerate(self.inputs):
            self.set(i, _arbitrary(detail["shape"], np.dtype(detail["dtype"])))
        self.invoke()
        return b"".join(self.get(i).tobytes() for i in range(len(self.outputs)))

    def build(self, arena: int) -> None:
        """Builds the interpreter on `arena` bytes."""
        self.interpreter = self.runtime.Interpreter.from_bytes(
            self.content, arena_size=arena, intrepreter_config=self.config, alt_decompression_memory_size=self.alternate
        )

    def describe(self) -> None:
        """Asks the interpreter what its inputs and outputs are."""
        self.inputs = [self._describe(self.interpreter.get_input_details(i)) for i in range(self.counts[0])]
        self.outputs = [self._describe(self.interpreter.get_output_details(i)) for i in range(self.counts[1])]

    def delegated(self) -> None:
        """There are no delegates here."""

    def forget(self) -> None:
        """Forgets the state that earlier samples left in a recurrent model."""
        self.interpreter.reset()

    def set(self, index: int, value: np.ndarray) -> None:
        """Sets input `index`."""
        self.interpreter.set_input(value, index)

    def invoke(self) -> None:
        """Runs once."""
        self.interpreter.invoke()

    def get(self, index: int) -> np.ndarray:
        """Returns output `index`."""
        return np.asarray(self.interpreter.get_output(index))

    @staticmethod
    def _describe(detail: dict[str, Any]) -> dict[str, Any]:
        quantization = detail["quantization_parameters"]
        scales, zero_points = list(quantization["scales"]), list(quantization["zero_points"])
        return {
            "shape": [int(n) for n in detail["shape"]],
            "dtype": np.dtype(detail["dtype"]).name,
            "scale": float(scales[0]) if scales else 0.0,
            "zero_point": int(zero_points[0]) if zero_points else 0,
        }


def quantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Returns float32 `values` as the tensor that `detail` describes takes them; halves round away from 0 as in QUANTIZE."""
    dtype = np.dtype(detail["dtype"])
    if detail["scale"] == 0.0 or dtype.kind == "f":
        return values.astype(dtype)
    scaled = (values / np.float32(detail["scale"])).astype(np.float64)  # float32 has no room for the half
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) + detail["zero_point"]
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(rounded, limits.min, limits.max).astype(dtype))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Runs every sample on its own, as a device does."""
    arrays = [np.load(path, mmap_mode="r") for path in job["inputs"]]
    interpreter, version = _open(job)
    _limit_memory(job["memory"])
    before = _reset_peak()
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
    peak = _peak(before)
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
        "version": version,
        "latency": latency,
        "peak_memory": peak,
        "outputs": interpreter.outputs,
        "delegated": interpreter.delegated(),
    }


def race(job: dict[str, Any]) -> dict[str, Any]:
    """Runs several files in turn, so that what else the machine does slows all of them alike."""
    racers: list[Any] = []
    for model in job["models"]:
        interpreter, version = _open({**job, "model": model})
        interpreter.prepare([])
        for i, detail in enumerate(interpreter.inputs):
            interpreter.set(i, _arbitrary(detail["shape"], np.dtype(detail["dtype"])))
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
            _tell(str(k + 1))
    return {
        "version": version,
        "latency": [_percentiles(own[WARM_UP:]) for own in times],
        "delegated": [interpreter.delegated() for interpreter in racers],
    }


def once(job: dict[str, Any]) -> dict[str, Any]:
    """Runs once, on inputs that mean nothing: does the interpreter run such a file at all?"""
    interpreter, version = _open(job)
    _limit_memory(job["memory"])
    interpreter.prepare([])
    for i, detail in enumerate(interpreter.inputs):
        interpreter.set(i, _arbitrary(detail["shape"], np.dtype(detail["dtype"])))
    interpreter.invoke()
    return {"version": version}


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Loads the file and nothing more: what does the interpreter say to it?"""
    interpreter, version = _open(job)
    _limit_memory(job["memory"])
    if isinstance(interpreter, Lite):
        interpreter.interpreter.allocate_tensors()
    else:
        interpreter.build(interpreter.arenas[1])
    return {"version": version}


def digest(job: dict[str, Any]) -> dict[str, Any]:
    """Runs a file on inputs that are the same every time and gives digests of what comes out: equal files give equal ones.

    Every case is run in a copy of this process, so that one that kills the interpreter costs no other. Values of a case are
    one text per sample; None is a case or a sample that the interpreter does not run. After ``seconds`` cases are cut short or
    left away. With ``twice``, ``again`` is what comes out the second time, of cases that are not edge values.
    """
    module = _first(Lite.modules.get(job["interpreter"], ("tflite_micro.python.tflite_micro.runtime",)))
    _limit_memory(job["memory"])
    facts = json.loads(_in_copy(lambda: json.dumps(_facts(job)).encode()) or b"null")
    cases: dict[str, Any] = {INTERFACE: facts and [facts["interface"]]}
    again: dict[str, Any] = {}
    for found, wanted in ((cases, _cases(job, facts)), (again, _cases(job, facts, edges=False) if job["twice"] else [])):
        end = time.monotonic() + job["seconds"]
        for name, case in wanted:
            if time.monotonic() > end:
                break
            given = _in_copy(lambda end=end, case=case: json.dumps(_digests(job, end, *case)).encode())  # type: ignore[misc]
            found[name] = json.loads(given or b"null")
            _tell(str(len(found)))
    return {"version": _version(module.__name__), "cases": cases, "again": again}


INTERFACE = "inputs and outputs"
"""The case that compares shapes, types, scales and names."""
SIZES = (2, 64, 4096)  # of free dimensions, beside the 1 that files begin with; the first dimension is at most 2
MOST_VALUES = 1 << 17  # of an input whose free dimensions are set
RANDOM = 8  # samples of a random case
EDGES: dict[str, Any] = {
    "zeros": 0.0,
    "ones": 1.0,
    "minus one": -1.0,
    "smallest": "min",
    "largest": "max",
    "smallest and largest": "both",
    "denormal": 1e-40,
    "infinite": float("inf"),
    "not a number": float("nan"),
}
"""Samples whose values are all the same; those of integer inputs as near as they come."""


def _facts(job: dict[str, Any]) -> dict[str, Any]:
    """What kinds of cases a file has, and what its inputs and outputs look like to programs."""
    if job["interpreter"] == "tflm":
        micro = Micro(job)
        micro.prepare([])
        return {"sizes": (), "signatures": [], "interface": repr((micro.inputs, micro.outputs))}
    interpreter = Lite(job).interpreter
    details = [*interpreter.get_input_details(), None, *interpreter.get_output_details()]
    shown = [one and {k: v for k, v in one.items() if k != "index" and (k != "name" or job["signatures"])} for one in details]
    signatures = interpreter.get_signature_list() if job["signatures"] else {}
    free = [list(detail["shape_signature"]) for detail in interpreter.get_input_details()]
    sizes = SIZES if any(-1 in shape[1:] for shape in free) else SIZES[:1] if any(-1 in shape for shape in free) else ()
    return {"sizes": sizes, "signatures": sorted(signatures), "interface": repr((shown, signatures))}


def _cases(
    job: dict[str, Any], facts: Optional[dict[str, Any]], edges: bool = True
) -> list[tuple[str, tuple[str, int, list[str], bool]]]:
    """Names of cases, each with its signature, the size of free dimensions, its samples, and whether state is kept."""
    random = [f"random {number}" for number in range(RANDOM)]
    cases: list[tuple[str, tuple[str, int, list[str], bool]]] = [("random inputs", ("", 1, random, True))]
    if facts is None:
        return cases
    for size in facts["sizes"]:
        cases.append((f"free dimensions of {size}", ("", size, random[: RANDOM if size < 64 else 2], True)))
    cases += [(f"signature {name}", (name, 1, random, True)) for name in facts["signatures"]]
    if job["inputs"]:
        count = len(np.load(job["inputs"][0], mmap_mode="r"))
        cases.append(("data", ("", 1, [f"data {number}" for number in range(count)], False)))
    cases += [(f"edge values: {edge}", ("", 1, [edge], False)) for edge in EDGES if edges]
    return cases


def _digests(
    job: dict[str, Any], end: float, signature: str, size: int, samples: list[str], keeps_state: bool
) -> list[Optional[str]]:
    """Runs one case."""
    interpreter: Any = Micro(job) if job["interpreter"] == "tflm" else Lite(job)
    runner = interpreter.interpreter.get_signature_runner(signature) if signature else None
    rows = [np.load(path, mmap_mode="r") for path in job["inputs"]] if samples[0].startswith("data") else []
    details: dict[Any, Any]
    if runner is None:
        if size > 1:
            for detail in interpreter.interpreter.get_input_details():
                free = [int(n) for n in detail["shape_signature"]]
                shape = [int(n) if n != -1 else min(size, 2) if axis == 0 else size for axis, n in enumerate(free)]
                if np.prod(shape, dtype=np.float64) > MOST_VALUES:
                    raise JobError("data", "inputs that take long")
                interpreter.interpreter.resize_tensor_input(detail["index"], shape, strict=bool(shape))
        interpreter.prepare([array.shape[1:] for array in rows])
        details = dict(enumerate(interpreter.inputs))
    else:
        details = {name: Lite._describe(detail) for name, detail in runner.get_input_details().items()}
    found: list[Optional[str]] = []
    for sample in samples:
        values = {key: _sample(sample, place, details[key], rows) for place, key in enumerate(sorted(details))}
        try:
            if runner is not None:
                given = runner(**values)
                outputs = [np.asarray(given[name]) for name in sorted(given)]
            else:
                if not keeps_state:
                    interpreter.forget()
                for place, value in values.items():
                    interpreter.set(place, value)
                interpreter.invoke()
                outputs = [interpreter.get(place) for place in range(len(interpreter.outputs))]
        except (RuntimeError, ValueError):  # an input that the file refuses
            found.append(None)
        else:
            found.append(" ".join(_digest_of(output) for output in outputs))
        _tell("0")
        if time.monotonic() > end:
            break
    return found


def _digest_of(output: np.ndarray) -> str:
    content = repr(output.tolist()).encode() if output.dtype.kind == "O" else np.ascontiguousarray(output).tobytes()
    return hashlib.sha256(f"{output.dtype} {output.shape} ".encode() + content).hexdigest()[:20]


def _sample(name: str, place: int, detail: dict[str, Any], rows: list[np.ndarray]) -> np.ndarray:
    """Returns the values of one input for the sample of this name."""
    shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
    if name.startswith("data"):
        one = np.asarray(rows[place][int(name.split()[1])])
        fits = one.dtype == dtype or not np.issubdtype(one.dtype, np.number)
        values = one.astype(dtype) if fits else quantize(one.astype(np.float32), detail)
        return np.ascontiguousarray(values).reshape(shape)
    number = int(name.split()[1]) if name.startswith("random") else 0
    rng = np.random.default_rng([number, place])
    if dtype.kind in "SUO":
        texts = [b"", b"a word", "\u00e9t\u00e9".encode(), b"7"]
        return np.array([texts[int(n)] for n in rng.integers(0, 4, shape).ravel()], object).reshape(shape)
    if name in EDGES:
        return _edge(EDGES[name], shape, dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu" and detail["scale"] == 0.0 and dtype.itemsize > 1:  # most likely indices or sizes
        return rng.integers(0, (2, 10, 2, 100)[number % 4], shape).astype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if number % 4 == 0:
        return rng.standard_normal(shape).astype(dtype)
    return rng.uniform((0, -1, 0, 0)[number % 4], (0, 1, 1, 255)[number % 4], shape).astype(dtype)


def _edge(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        value = {"min": 0.0, "max": 1.0, "both": 1.0}.get(value, value)
        return np.full(shape, value > 0)
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    known = {"min": limits.min, "max": limits.max, "both": limits.min}
    if dtype.kind in "iu" and value not in known:
        value = 0 if value != value else int(min(max(value, limits.min), limits.max)) if abs(value) < 2 else limits.max
    values = np.full(shape, known.get(value, value), dtype)
    if value == "both":
        values.flat[::2] = limits.max
    return values


def arena(job: dict[str, Any]) -> dict[str, Any]:
    """Measures the arena: the allocation report (on stderr, by C++), and the smallest on which the file computes the same."""
    micro, version = _open(job)
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

    return {"version": version, "minimum": _smallest(job["guess"], micro.enough, works)}


def _smallest(guess: int, enough: int, works: Callable[[int], bool], step: int = 16) -> int:
    """Returns the smallest multiple of `step` that works, with few trials where it is near `guess`; `enough` works."""
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
    module = _first(Lite.modules.get(job["interpreter"], ("tflite_micro.python.tflite_micro.runtime",)))
    return {"version": _version(module.__name__)}


def main(path: str) -> None:
    """Does the job in the JSON file `path`."""
    _end_with_parent()
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


def _in_copy(action: Callable[[], bytes]) -> Optional[bytes]:
    """Returns what `action` gives in a copy of this process; None where it raises or dies. What it says is lost."""
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _end_with_parent()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(b"=" + action())
        finally:
            os._exit(0)  # whatever happened: the parent's code must not run twice
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        given = pipe.read()
    os.waitpid(copy, 0)
    return given[1:] if given else None


def _end_with_parent() -> None:
    """Asks Linux to end this process when the one that started it ends, however that ends."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _arbitrary(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """Values that mean nothing; whole numbers of 32 bits are zeros, since they may be numbers of rows in a table."""
    if dtype.kind in "iu" and dtype.itemsize >= 4:
        return np.zeros(shape, dtype)
    values = np.random.default_rng(0).uniform(-1.0, 1.0, shape)
    if dtype.kind in "iu" and dtype.itemsize >= 4:
        return (values > 0).astype(dtype)  # places in a table: others may lie outside of it
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip((values + 1.0) / 2.0 * (float(limits.max) - limits.min) + limits.min, limits.min, limits.max)
    return values.astype(dtype)


def _loop(interpreter: Any, load: Any, results: list[np.ndarray]) -> None:
    count, reported = len(results[0]), time.monotonic()
    for start in range(0, count, CHUNK):
        parts = load(start, CHUNK)
        for k in range(min(CHUNK, count - start)):
            _set(interpreter, parts, k)
            interpreter.invoke()
            for i, result in enumerate(results):
                result[start + k] = interpreter.get(i)
            if time.monotonic() - reported > 0.2:
                reported = time.monotonic()
                _tell(str(start + k + 1))


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
    return {"median": float(np.median(times)), "p90": float(np.percentile(times, 90))}


def _set(interpreter: Any, parts: list[np.ndarray], k: int) -> None:
    interpreter.forget()
    for i, part in enumerate(parts):
        interpreter.set(i, part[k : k + 1])


def _open(job: dict[str, Any]) -> tuple[Any, str]:
    kind: Any = Micro if job["interpreter"] == "tflm" else Lite
    interpreter = kind(job)
    return interpreter, _version(interpreter.runtime.__name__)


def _tell(line: str) -> None:
    """Says how far the work is."""
    os.write(PROGRESS, f"{line}\n".encode())


def _first(modules: tuple[str, ...]) -> Any:
    """Imports the first of these that is installed."""
    for module in modules[:-1]:
        with contextlib.suppress(JobError):
            return _import(module)
    return _import(modules[-1])


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        kind = "missing" if error.name == module.split(".", 1)[0] else "broken"
        raise JobError(kind, str(error)) from error
    except Exception as error:  # what lacks a symbol or fits another numpy raises all kinds
        raise JobError("broken", f"{type(error).__name__}: {error}") from error


def _version(module: str) -> str:
    package = module.split(".", 1)[0]
    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def _limit_memory(limit: Optional[int]) -> None:
    """Allows `limit` bytes more than the process holds now (Python, numpy and the mapped inputs)."""
    if limit is None or not os.path.exists("/proc/self/statm"):
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = now + limit if hard == resource.RLIM_INFINITY else min(now + limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _reset_peak() -> Optional[int]:
    """Starts a new high-water mark and returns the bytes held now; None where the system does not tell."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        return _status("VmRSS")
    except (OSError, StopIteration):
        return None


def _peak(before: Optional[int]) -> Optional[int]:
    return None if before is None else max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1]) * 1024


if __name__ == "__main__":
    PROGRESS = os.dup(1)
    os.dup2(2, 1)  # what an interpreter prints is its words, not our progress
    _tell(START)
    main(sys.argv[1])
    sys.stderr.flush()
    os._exit(0)  # what some interpreters do at exit can hang or crash
