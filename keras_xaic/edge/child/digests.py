"""Digests of what a file computes on inputs that are the same every time: equal files give equal ones."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from typing import Any, Callable, Optional

import numpy as np

from .adapters import JobError, Lite, Micro, module_of, open_file, quantize, version_of
from .host import in_copy, limit_memory, tell

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


def digest(job: dict[str, Any]) -> dict[str, Any]:
    """Runs a file on inputs that are the same every time and gives digests of what comes out: equal files give equal ones.

    Every case is run in a copy of this process, so that one that kills the interpreter costs no other. Values of a case are
    one text per sample; None is a case or a sample that the interpreter does not run. After ``seconds`` cases are cut short or
    left out. With ``twice``, ``again`` is what comes out the second time, of cases that are not edge values.
    """
    module = module_of(job["interpreter"])
    limit_memory(job["memory"])
    facts = json.loads(in_copy(lambda: json.dumps(_facts(job)).encode()) or b"null")
    cases: dict[str, Any] = {INTERFACE: facts and [facts["interface"]]}
    again: dict[str, Any] = {}
    for found, wanted in ((cases, _cases(job, facts)), (again, _cases(job, facts, edges=False) if job["twice"] else [])):
        end = time.monotonic() + job["seconds"]
        for name, case in wanted:
            if time.monotonic() > end:
                break
            given = in_copy(lambda end=end, case=case: json.dumps(_digests(job, end, *case)).encode())  # type: ignore[misc]
            found[name] = json.loads(given or b"null")
            tell(str(len(found)))
    return {"version": version_of(module), "cases": cases, "again": again}


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
    interpreter = open_file(job)
    rows = [np.load(path, mmap_mode="r") for path in job["inputs"]] if samples[0].startswith("data") else []
    details: dict[Any, Any]
    call: Callable[[dict[Any, np.ndarray]], list[np.ndarray]]
    if signature:
        runner = interpreter.interpreter.get_signature_runner(signature)
        details = {name: Lite.described(detail) for name, detail in runner.get_input_details().items()}
        call = functools.partial(_by_name, runner)
    else:
        if size > 1:
            _resize(interpreter.interpreter, size)
        interpreter.prepare([array.shape[1:] for array in rows])
        details = dict(enumerate(interpreter.inputs))
        call = functools.partial(_by_number, interpreter, keeps_state)
    found: list[Optional[str]] = []
    for sample in samples:
        values = {key: _sample(sample, place, details[key], rows) for place, key in enumerate(sorted(details))}
        try:
            outputs = call(values)
        except (RuntimeError, ValueError):  # an input that the file refuses
            found.append(None)
        else:
            found.append(" ".join(_digest_of(output) for output in outputs))
        tell("0")
        if time.monotonic() > end:
            break
    return found


def _resize(interpreter: Any, size: int) -> None:
    """Gives the free dimensions of all inputs a size."""
    for detail in interpreter.get_input_details():
        free = [int(n) for n in detail["shape_signature"]]
        shape = [n if n != -1 else min(size, 2) if axis == 0 else size for axis, n in enumerate(free)]
        if np.prod(shape, dtype=np.float64) > MOST_VALUES:
            raise JobError("data", "inputs that take long")
        interpreter.resize_tensor_input(detail["index"], shape, strict=bool(shape))


def _by_name(runner: Any, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of a signature."""
    given = runner(**values)
    return [np.asarray(given[name]) for name in sorted(given)]


def _by_number(interpreter: Any, keeps_state: bool, values: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Outputs of the file itself."""
    if not keeps_state:
        interpreter.forget()
    for place, value in values.items():
        interpreter.set(place, value)
    interpreter.invoke()
    return [interpreter.get(place) for place in range(len(interpreter.outputs))]


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
