"""The interpreters, each behind the same few methods."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata as metadata
import os
from typing import Any, Optional

import numpy as np

from .host import in_copy


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
        module = self.runtime = module_of(job["interpreter"])
        resolver = module.OpResolverType.BUILTIN_REF if job["interpreter"] == "builtin-ref" else module.OpResolverType.AUTO
        self.interpreter = module.Interpreter(
            model_path=utf8_name(job["model"]),
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
        self.inputs = [self.described(d) for d in self.interpreter.get_input_details()]
        self.outputs = [self.described(d) for d in self.interpreter.get_output_details()]

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
    def described(detail: dict[str, Any]) -> dict[str, Any]:
        """Returns what a job needs to know of an input or output."""
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

    modules = ("tflite_micro.python.tflite_micro.runtime",)
    arenas = (1 << 22, 1 << 25, 1 << 28, 1 << 30)

    def __init__(self, job: dict[str, Any]) -> None:
        self.runtime = module_of(job["interpreter"])
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
        return in_copy(lambda: self.compute(arena))

    def compute(self, arena: int) -> bytes:
        """Builds the interpreter on `arena` bytes and returns what it makes of inputs that are the same every time."""
        self.build(arena)
        self.describe()
        for i, detail in enumerate(self.inputs):
            self.set(i, arbitrary(detail["shape"], np.dtype(detail["dtype"])))
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


def arbitrary(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """Values that mean nothing; whole numbers of 32 bits are zeros, since they may be numbers of rows in a table."""
    if dtype.kind in "iu" and dtype.itemsize >= 4:
        return np.zeros(shape, dtype)
    values = np.random.default_rng(0).uniform(-1.0, 1.0, shape)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip((values + 1.0) / 2.0 * (float(limits.max) - limits.min) + limits.min, limits.min, limits.max)
    return values.astype(dtype)


def open_file(job: dict[str, Any]) -> Any:
    """Returns a job's interpreter with its file, not yet prepared."""
    return Micro(job) if job["interpreter"] == "tflm" else Lite(job)


def utf8_name(path: str) -> str:
    """Returns a name of the file that is UTF-8, which interpreters insist on: files may be called something else."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
    return path


def module_of(interpreter: str) -> Any:
    """Imports the first module of an interpreter that is installed."""
    *others, last = Lite.modules.get(interpreter, Micro.modules)
    for module in others:
        with contextlib.suppress(JobError):
            return _import(module)
    return _import(last)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        kind = "missing" if error.name == module.split(".", 1)[0] else "broken"
        raise JobError(kind, str(error)) from error
    except Exception as error:  # what lacks a symbol or fits another numpy raises all kinds
        raise JobError("broken", f"{type(error).__name__}: {error}") from error


def version_of(module: Any) -> str:
    """Returns the version of the package that a module is part of."""
    package = module.__name__.split(".", 1)[0]
    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))
