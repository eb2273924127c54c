"""Runs a .tflite file on an edge interpreter in a process of its own."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

import numpy as np

from keras_xaic.data import Array, arrays_of, joined
from keras_xaic.edge.delegation import Delegation, read_delegation
from keras_xaic.edge.exposing import with_outputs
from keras_xaic.edge.file_ram import predict_arena
from keras_xaic.edge.inspect_file import FileInfo, GraphInfo, read_file
from keras_xaic.edge.installed import judge
from keras_xaic.edge.interpreters import AUTO, get_interpreter
from keras_xaic.edge.process import Limits, run_child
from keras_xaic.edge.structure import check_micro, check_structure
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.files import PathLike
from keras_xaic.npz import release
from keras_xaic.temporary import temporary_directory

PIECE = 1 << 22
"""Bytes that are written at a time."""
_CONVERTING = ("QUANTIZE", "DEQUANTIZE", "CUSTOM:TFLM_DECODE")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one invocation after warm-up, the threads that were allowed, and the milliseconds of the fastest one."""

    median: float
    p90: float
    threads: int = 1
    least: float = 0.0


@dataclass(frozen=True)
class Arena:
    """What TensorFlow Lite Micro needs of RAM, in bytes, on this host (pointers of 8 bytes; less on a 32-bit device).

    Attributes:
        minimum: Smallest arena with which the file runs, by bisection in steps of 16 bytes.
        total: The allocation report's total; preparation can need more for a moment, so `minimum` can be larger.
        head: Of which activations.
        tail: Of which what lives as long as the interpreter.
    """

    minimum: int
    total: int
    head: int
    tail: int


@dataclass(frozen=True)
class EdgeResult:
    """What an edge interpreter made of a file.

    Attributes:
        interpreter: Its name.
        version: Its version.
        outputs: One array (N, ...) float32 per output, dequantized.
        raw: The same as the file gives them (int8, uint8, int16, float32, ...).
        latency: None unless asked for.
        peak_memory_bytes: What loading and one invocation added to the process; None where the system does not tell.
        arena: For TensorFlow Lite Micro only.
        delegation: What its delegate takes of the file; None where it has none or does not tell.
    """

    interpreter: str
    version: str
    outputs: list[np.ndarray]
    raw: list[np.ndarray]
    latency: Optional[Latency] = None
    peak_memory_bytes: Optional[int] = None
    arena: Optional[Arena] = None
    delegation: Optional[Delegation] = None

    @property
    def together(self) -> Array:
        """The output, or all of several as `Parts`."""
        made: Array = joined(self.outputs)
        return made

    @property
    def arena_bytes(self) -> Optional[int]:
        """Smallest arena with which the file runs under TensorFlow Lite Micro; None for other interpreters."""
        return self.arena.minimum if self.arena else None


def run_file(
    path: PathLike,
    inputs: Union[Array, Sequence[np.ndarray]],
    *,
    interpreter: str = AUTO,
    scale: float = 1.0,
    offset: float = 0.0,
    threads: int = 1,
    latency_runs: int = 0,
    timeout: float = 120.0,
    memory: Optional[int] = 2_000_000_000,
    progress: Optional[Callable[[int], None]] = None,
) -> EdgeResult:
    """Runs every sample through a .tflite file, one at a time as a device does.

    Args:
        path: The .tflite file.
        inputs: (N, ...) array, or `Parts` or a list with one per input of the file, in its order: real values in any numeric
            dtype, as the Keras model takes them. They are quantized as the file's inputs say.
        interpreter: ``auto`` for the one that judges, or a name of `INTERPRETERS`; ``builtin-ref`` has reference kernels, which
            are those of TensorFlow Lite Micro but for the rounding of a few values.
        scale: The model sees ``inputs * scale + offset``.
        offset: See `scale`.
        threads: Threads of the interpreter; 1 is what the report quotes.
        latency_runs: How many timed invocations, after the data and a warm-up; 0 for none.
        timeout: Seconds without progress after which the interpreter counts as hung.
        memory: Bytes that the interpreter may take; None for no limit.
        progress: Called with the number of finished samples, a few times a second.

    Returns:
        The outputs and what was measured.

    Raises:
        EdgeError: If the file is damaged, or the interpreter is missing, refuses it, crashes, hangs or runs out of memory.
        DataError: If there is no such file or the inputs do not fit it.
    """
    interpreter = _named(interpreter)
    given = list(inputs) if isinstance(inputs, (list, tuple)) else arrays_of(inputs)
    arrays: list[Any] = [a if hasattr(a, "shape") else np.asarray(a) for a in given]
    _check_inputs(arrays)
    limits = Limits(timeout, memory)
    info = read_or_quote(path, interpreter, limits)
    if len(arrays) != len(info.inputs):
        raise DataError(f"{info.name} has {len(info.inputs)} inputs, {len(arrays)} were given", "one array per input")
    job = {
        **job_of("run", path, interpreter, info),
        "scale": scale,
        "offset": offset,
        "threads": threads,
        "latency_runs": latency_runs,
    }
    answer, raw = _run(job, arrays, len(info.outputs), limits, progress)
    timing = answer["latency"]
    return EdgeResult(
        interpreter=interpreter,
        version=answer["version"],
        outputs=[dequantize(r, d["scale"], d["zero_point"]) for r, d in zip(raw, answer["outputs"])],
        raw=raw,
        latency=Latency(timing["median"], timing["p90"], threads, timing["least"]) if timing else None,
        peak_memory_bytes=answer["peak_memory"],
        arena=measure_arena(path, timeout=timeout, memory=memory) if interpreter == "tflm" else None,
        delegation=None if answer["delegated"] is None else read_delegation(info, answer["delegated"], interpreter),
    )


def try_file(path: PathLike, interpreter: str, *, timeout: float = 120.0) -> None:
    """Runs a file once on an interpreter, on inputs that mean nothing.

    Raises:
        EdgeError, DataError: As `run_file`.
    """
    get_interpreter(interpreter)
    limits = Limits(timeout)
    job = job_of("once", path, interpreter, read_or_quote(path, interpreter, limits))
    with temporary_directory() as scratch:
        run_child(job, scratch, limits)


def race(
    paths: Mapping[str, PathLike], *, interpreter: str = AUTO, runs: int = 50, timeout: float = 120.0
) -> dict[str, tuple[Latency, Optional[Delegation]]]:
    """Times several files against each other, in turn in one process: their ratios hold on a busy machine, too.

    Args:
        paths: Any name -> a .tflite file.
        interpreter: See `run_file`; not TensorFlow Lite Micro.
        runs: Timed invocations of every file.
        timeout: Seconds without progress after which the interpreter counts as hung.

    Returns:
        Name -> latency, and what a delegate takes of the file.

    Raises:
        EdgeError, DataError: As `run_file`.
    """
    interpreter = _named(interpreter)
    limits = Limits(timeout)
    infos = [read_or_quote(path, interpreter, limits) for path in paths.values()]
    first = next(iter(paths.values()))
    job = {**job_of("race", first, interpreter, infos[0]), "latency_runs": runs}
    job["models"] = [str(pathlib.Path(path).resolve()) for path in paths.values()]
    with temporary_directory() as scratch:
        answer, _ = run_child(job, scratch, limits)
    return {
        name: (
            Latency(timing["median"], timing["p90"], least=timing["least"]),
            None if parts is None else read_delegation(info, parts, interpreter),
        )
        for name, info, timing, parts in zip(paths, infos, answer["latency"], answer["delegated"])
    }


def run_layers(path: PathLike, inputs: Sequence[np.ndarray], *, interpreter: str = AUTO) -> list[np.ndarray]:
    """Returns what every computing operator of a file gives, in the order in which they run: (N, ...) float32.

    Operators that only convert (QUANTIZE, DEQUANTIZE) or make weights of what is stored are left out. The values are those of
    the kernels, and of the delegate, that compute them when the file runs.

    Args:
        path: The .tflite file.
        inputs: One (N, ...) array per input.
        interpreter: See `run_file`.

    Raises:
        EdgeError, DataError: As `run_file`.
    """
    interpreter = _named(interpreter)
    limits = Limits(120.0)
    info = read_or_quote(path, interpreter, limits)
    graph = info.main
    wanted = _computed(graph)
    with temporary_directory() as scratch:
        exposed = scratch / info.name
        exposed.write_bytes(with_outputs(info, wanted))
        job = {**job_of("run", exposed, interpreter, info), "scale": 1.0, "offset": 0.0, "latency_runs": 0}
        job["tensors"][1] = len(wanted)
        _, raw = _run(job, [np.asarray(array) for array in inputs], len(wanted), limits)
    tensors = [graph.tensors[index] for index in wanted]
    return [
        dequantize(values, float(t.scales[0]), int(t.zero_points[0])) if len(t.scales) else values.astype(np.float32)
        for values, t in zip(raw, tensors)
    ]


def _run(
    job: dict[str, Any], arrays: Sequence[Any], count: int, limits: Limits, progress: Optional[Callable[[int], None]] = None
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Runs samples in a child; returns what it says and what the `count` outputs are, as the file gives them."""
    with temporary_directory() as scratch:
        job["inputs"] = [store(array, scratch / f"x{i}.npy") for i, array in enumerate(arrays)]
        job["outputs"] = [str(scratch / f"y{i}.npy") for i in range(count)]
        answer, _ = run_child(job, scratch, limits, progress)
        return answer, [np.load(output) for output in job["outputs"]]


@dataclass(frozen=True)
class Scales:
    """Scales of the values in a file, 0 for float ones.

    Attributes:
        inputs: One per input.
        layers: One per array that `run_layers` returns.
    """

    inputs: tuple[float, ...]
    layers: tuple[float, ...]


def inner_scales(path: PathLike) -> Scales:
    """Returns the scales of a file's inputs and of what its operators give.

    Raises:
        EdgeError, DataError: If the file is damaged or missing.
    """
    graph = read_file(path).main

    def scales(tensors: Iterable[int]) -> tuple[float, ...]:
        return tuple(float(graph.tensors[i].scales[0]) if len(graph.tensors[i].scales) else 0.0 for i in tensors)

    return Scales(scales(graph.inputs), scales(_computed(graph)))


def _computed(graph: GraphInfo) -> list[int]:
    operators = [graph.operators[number] for number in graph.depending]
    return [operator.outputs[0] for operator in operators if operator.name not in _CONVERTING]


def measure_arena(
    path: PathLike, *, alternate_bytes: int = 0, timeout: float = 120.0, memory: Optional[int] = 2_000_000_000
) -> Arena:
    """Measures what TensorFlow Lite Micro needs of RAM for a file.

    Args:
        path: The .tflite file.
        alternate_bytes: Size of a second memory for decompressed weights; the arena then holds the rest.
        timeout: Seconds after which the interpreter counts as hung.
        memory: Bytes that the interpreter may take; None for no limit.

    Raises:
        EdgeError: As `run_file`.
        DataError: If there is no such file.
    """
    limits = Limits(timeout, memory)
    info = read_or_quote(path, "tflm", limits)
    with temporary_directory() as scratch:
        job = {**job_of("arena", path, "tflm", info), "alternate_bytes": alternate_bytes, "guess": _guess(info)}
        answer, said = run_child(job, scratch, limits)
    report = {kind: int(count) for kind, count in re.findall(r"allocation (total|head|tail) (\d+)", said)}
    if len(report) != 3:
        raise EdgeError(f"tflm gave no allocation report for {info.name}", "lines 'Arena allocation total ... bytes'")
    return Arena(answer["minimum"], report["total"], report["head"], report["tail"])


def _guess(info: FileInfo) -> int:
    try:
        return predict_arena(info).minimum
    except IndexError:  # an operator that has fewer tensors than it needs: the interpreter says what it thinks of it
        return 0


def dequantize(raw: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Returns ``(raw - zero_point) * scale`` as float32, or `raw` as float32 where `scale` is 0 (not quantized)."""
    if scale == 0.0:
        return raw.astype(np.float32)
    return (raw.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _named(interpreter: str) -> str:
    return judge() if interpreter == AUTO else get_interpreter(interpreter).name


def _check_inputs(arrays: Sequence[np.ndarray]) -> None:
    if any(a.ndim == 0 or len(a) != len(arrays[0]) or a.size == 0 for a in arrays):
        raise DataError(
            f"inputs of shapes {[a.shape for a in arrays]}", "arrays (N, ...) of equally many samples, at least one"
        )
    for array in arrays:
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            raise DataError(f"inputs of dtype {array.dtype}", "numbers")


def job_of(mode: str, path: PathLike, interpreter: str, info: Optional[FileInfo]) -> dict[str, Any]:
    """Returns what every job of the child process says."""
    return {
        "mode": mode,
        "model": str(pathlib.Path(path).resolve()),
        "interpreter": interpreter,
        "tensors": [len(info.inputs), len(info.outputs)] if info else [1, 1],
        "threads": 1,
    }


def store(array: Any, path: pathlib.Path) -> str:
    """Writes an array as .npy, piece by piece: what is given may be rows of a large one."""
    facts = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": tuple(array.shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, facts)
        step = max(1, PIECE // max(1, array[:1].nbytes))
        for start in range(0, len(array), step):
            file.write(np.ascontiguousarray(array[start : start + step]).tobytes())
            release(array)
    return str(path)


def read_or_quote(path: PathLike, interpreter: str, limits: Limits) -> FileInfo:
    """Reads and checks the file; where it is damaged, adds what the interpreter itself says to it."""
    try:
        info = read_file(path)
        check_structure(info)
    except EdgeError as damage:
        with temporary_directory() as scratch:
            try:
                run_child(job_of("load", path, interpreter, None), scratch, limits)
                opinion = f"{interpreter} would load it all the same"
            except EdgeError as error:
                opinion = error.found
        raise EdgeError(f"{damage.found}. {opinion}", damage.expected, damage.fix) from None
    if interpreter == "tflm":
        check_micro(info)
    return info
