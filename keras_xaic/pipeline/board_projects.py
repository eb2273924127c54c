"""From a bundle to a board: a whole project for a build system, around the files in ``micro/``."""

from __future__ import annotations

import math
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_xaic import edge
from keras_xaic.arguments import a_path, checked
from keras_xaic.bundle import Bundle, undisturbed
from keras_xaic.device_files import device_files
from keras_xaic.errors import DataError, PlanError, XaicWarning, require_one
from keras_xaic.files import PathLike, tells_machine_errors, write_atomic
from keras_xaic.json_files import read_text
from keras_xaic.npz import Npz
from keras_xaic.ownership import output
from keras_xaic.settings import SYSTEMS
from keras_xaic.tflite.flatbuffer import ModelT, load
from keras_xaic.tflite.micro_kit import c_source, keeps_state, resolver_calls

SOURCES = {"cmake": ("", ".cc"), "arduino": ("src", ".cpp"), "esp-idf": ("main", ".cc"), "zephyr": ("src", ".cc")}
"""Build system -> where sources lie, and how the names of C++ files end."""
MICRO = "tflm"
SAMPLES = 4
MOST_VALUES = 16_384
"""Inputs of all samples of a self-test; fewer samples where one has many."""
MARGIN, SPARE = 1.25, 2048
"""Of the measured arena: optimized kernels (CMSIS-NN, ESP-NN) ask for more memory than the measured reference kernels."""
UNKNOWN_ARENA = 64 * 1024
LEVELS = 2.0
"""Levels of an output's scale that kernels may differ by."""
FLOATS, LEAST = 1e-3, 1e-6
"""The same for outputs without a scale, as a share of the largest expected value; at least what float32 rounds at 1."""
TYPES = ("float32", "int32", "uint8", "int16", "int8")
"""Of inputs and outputs that `xaic_predict` knows."""


@checked(bundle=a_path)
@tells_machine_errors
@checked(bundle=a_path)
def write_project(bundle: PathLike, system: str, out: PathLike, *, overwrite: bool = False) -> pathlib.Path:
    """Writes a project that builds the model of a bundle for a board and runs a self-test.

    Args:
        bundle: A bundle with a ``micro/``.
        system: ``cmake``, ``arduino``, ``esp-idf`` or ``zephyr``.
        out: Directory to write.
        overwrite: Replace a project that is there and holds no other file.

    Returns:
        The directory.

    Raises:
        DataError: If the bundle has no ``micro/``, or no samples.
        EdgeError: If TensorFlow Lite Micro refuses the model, or its outputs are not those of the Keras model.
        PlanError: If there is no such build system.
        ExportError: If the directory may not be written.
    """
    require_one("system", system, SYSTEMS, PlanError)
    given = Bundle(pathlib.Path(bundle))
    model = given.micro / "model.tflite"
    if not model.is_file():
        found = f"{given.path} holds no micro/model.tflite"
        raise DataError(found, "a bundle for TensorFlow Lite Micro", "Compress or export with the target micro or both")
    with undisturbed(given):
        _check_proof(given, model)
        files = project_files(given, system)
    with output(out, "project", overwrite=overwrite, inputs=[given.path]) as place, place.fresh() as scratch:
        for name, text in files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(scratch / name, text)
    return pathlib.Path(out)


def project_files(bundle: Bundle, system: str) -> dict[str, str]:
    """Returns the files of a project, by name."""
    content = (bundle.micro / "model.tflite").read_bytes()
    file = load(content)
    _check_types(bundle.micro / "model.tflite")
    filled = {**_ports(file), **_arena(bundle), "SAID": _said(file)}
    calls = resolver_calls(file)
    filled.update(OPS_COUNT=str(len(calls)), OPS_ADD_CALLS="\n".join(f"  resolver.{call}();" for call in calls))
    folder, ending = SOURCES[system]
    templates = device_files() / "boards"
    made = {name: _filled(path, filled) for name, path in _templates(templates / system)}
    sources = {name: _filled(path, filled) for name, path in _templates(templates / "source")}
    sources["model_data.h"] = read_text(bundle.micro / "model_data.h", "the header that was written with the bundle")
    sources["model_data.cc"] = c_source(content)
    sources["xaic_samples.h"] = _samples(bundle, file)
    for name, text in sources.items():
        made[str(pathlib.PurePosixPath(folder, name.replace(".cc", ending)))] = text
    return made


def _check_proof(bundle: Bundle, model: pathlib.Path) -> None:
    """Refuses a model that computes something else than Keras did: its self-test expects what it gives, so that would pass."""
    said = bundle.why_unverified()
    if said is not None:
        warnings.warn(f"{bundle.unverified}: {said}", XaicWarning, stacklevel=4)
    if MICRO in edge.available_interpreters() and edge.knows_outputs(bundle):
        edge.measure_agreement(bundle, MICRO, model).require(str(model))


def _check_types(path: pathlib.Path) -> None:
    """Refuses a model that would compile, and then refuse to run."""
    info = edge.read_file(path)
    for role, tensors in (("input", info.inputs), ("output", info.outputs)):
        for number, tensor in enumerate(tensors):
            if tensor.dtype not in TYPES:
                found, advice = (
                    f"{role} {number} of {path} is of the type {tensor.dtype}",
                    "See micro/README.md for how to call it",
                )
                raise DataError(found, ", ".join(TYPES), advice)


_SAID = """\
It runs the samples of the bundle's `check/` and prints `xaic self-test: PASS`, or which sample is different. In your program:

```cpp
#include "xaic_predict.h"

{example}
int code = xaic_predict_all(inputs, outputs);  // XAIC_PREDICT_OK, or what xaic_predict.h says
```

Inputs are real values as the model was trained on them. The arena is larger than what was measured, because optimized kernels
need more: lower `XAIC_ARENA_BYTES` to what the self-test prints. A product needs no `xaic_samples.h` and no self-test.{state}

The sources were compiled and run against a stand-in of the interpreter; nothing here was run on a board."""
_STATE = """

The model keeps a state between calls: call `xaic_reset()` before every new sequence."""


def _said(file: ModelT) -> str:
    """Returns what every project's README says."""
    lines = []
    for role, kind in (("input", "const float*"), ("output", "float*")):
        names = [f"{role}_{i}" for i in range(len(_tensors(file, f"{role}s")))]
        lines += [f"static float {name}[XAIC_{name.upper()}_SIZE];" for name in names]
        lines.append(f"{kind} {role}s[] = {{{', '.join(names)}}};")
    return _SAID.format(example="\n".join(lines), state=_STATE if keeps_state(file) else "")


def _templates(directory: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path


def _filled(path: pathlib.Path, values: dict[str, str]) -> str:
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda place: values[place[1]], path.read_text(encoding="utf-8"))


def _ports(file: ModelT) -> dict[str, str]:
    """Returns what templates need to know of inputs and outputs."""
    inputs, outputs = ([_size(tensor) for tensor in _tensors(file, role)] for role in ("inputs", "outputs"))
    sizes = [f"#define XAIC_INPUT_{i}_SIZE {size}" for i, size in enumerate(inputs)]
    sizes += [f"#define XAIC_OUTPUT_{i}_SIZE {size}" for i, size in enumerate(outputs)]
    single = len(inputs) == len(outputs) == 1
    return {
        "INPUTS": str(len(inputs)),
        "OUTPUTS": str(len(outputs)),
        "SIZES": "\n".join([*sizes, ""]),
        "INPUT_SIZES": ", ".join(map(str, inputs)),
        "OUTPUT_SIZES": ", ".join(map(str, outputs)),
        "SINGLE": _SINGLE * single,
        "SINGLE_CODE": _SINGLE_CODE * single,
        "BUFFERS": "\n".join(f"float output_{i}[XAIC_OUTPUT_{i}_SIZE];" for i in range(len(outputs))),
        "BUFFER_NAMES": ", ".join(f"output_{i}" for i in range(len(outputs))),
    }


_SINGLE = """
// The same for the one input and the one output.
int xaic_predict(const float* input, float* output);
"""
_SINGLE_CODE = """
extern "C" int xaic_predict(const float* input, float* output) {
  const float* inputs[] = {input};
  float* outputs[] = {output};
  return xaic_predict_all(inputs, outputs);
}
"""


def _tensors(file: ModelT, role: str) -> list[Any]:
    graph = file.subgraphs[0]
    return [graph.tensors[index] for index in getattr(graph, role)]


def _size(tensor: Any) -> int:
    return int(np.prod(tensor.shape)) if tensor.shape is not None else 1


def _arena(bundle: Bundle) -> dict[str, str]:
    """Returns the arena with its margin, from what was measured when the bundle was made."""
    readme = bundle.micro / "README.md"
    text = read_text(readme) if readme.is_file() else ""
    found = re.search(r"arena of ([\d,]+) bytes of RAM", text)
    if found is None:
        return {"ARENA_BYTES": str(UNKNOWN_ARENA), "ARENA_SAID": "RAM of the interpreter: not measured, a guess."}
    measured = int(found[1].replace(",", ""))
    size = -(-int(measured * MARGIN + SPARE) // 16) * 16
    said = f"RAM of the interpreter: {measured:,} bytes were measured with reference kernels on a 64-bit host, and a margin."
    return {"ARENA_BYTES": str(size), "ARENA_SAID": said}


def _samples(bundle: Bundle, file: ModelT) -> str:
    """Returns C source with samples, and what the file makes of them on TensorFlow Lite Micro, else on the judge."""
    kept, expected = bundle.check / "inputs.npz", bundle.check / "expected.npz"
    ports = _tensors(file, "inputs"), _tensors(file, "outputs")
    if not kept.is_file() or not expected.is_file():
        raise DataError(f"{bundle.path} holds no samples in check/", "a bundle written by `xaic compress` or `xaic export`")
    count = max(1, min(SAMPLES, MOST_VALUES // max(1, sum(map(_size, ports[0])))))
    inputs = [np.asarray(one[:count], np.float32) for one in _parts(kept, "x", len(ports[0]))]
    if MICRO in edge.available_interpreters():
        outputs: Sequence[np.ndarray] = edge.run_file(
            bundle.micro / "model.tflite", inputs if len(inputs) > 1 else inputs[0], interpreter=MICRO
        ).outputs
    else:
        outputs = [one[:count] for one in _parts(expected, "y", len(ports[1]))]
    lines = ["// Written by keras-xaic: samples of the bundle's check/, and their outputs."]
    lines += ["#include <math.h>", "", '#include "xaic_predict.h"', ""]
    lines += [f"#define XAIC_SAMPLES {len(inputs[0])}", ""]
    for role, parts in (("in", inputs), ("out", outputs)):
        lines += [_array(f"{role}_{s}_{i}", part[s]) for s in range(len(inputs[0])) for i, part in enumerate(parts)]
    for name, role, total in (("kXaicInputs", "in", "XAIC_INPUTS"), ("kXaicExpected", "out", "XAIC_OUTPUTS")):
        parts = inputs if role == "in" else outputs
        rows = ["{" + ", ".join(f"{role}_{s}_{i}" for i in range(len(parts))) + "}" for s in range(len(inputs[0]))]
        lines.append(f"static const float* const {name}[XAIC_SAMPLES][{total}] = {{{', '.join(rows)}}};")
    sizes = ", ".join(f"XAIC_OUTPUT_{i}_SIZE" for i in range(len(outputs)))
    lines.append(f"static const size_t kXaicSizes[XAIC_OUTPUTS] = {{{sizes}}};")
    tolerances = ", ".join(_number(_tolerance(*both)) for both in zip(ports[1], outputs))
    lines.append(f"static const float kXaicTolerances[XAIC_OUTPUTS] = {{{tolerances}}};")
    return "\n".join(lines) + "\n"


def _parts(path: pathlib.Path, prefix: str, count: int) -> list[np.ndarray]:
    """Returns the arrays of a file of samples, one for each input or output."""
    arrays, names = Npz(path), [f"{prefix}{i}" for i in range(count)]
    for name in names:
        if name not in arrays or not arrays[name].ndim:
            raise DataError(f"{path} has no samples {name}", "the file that was written with micro/model.tflite")
    return [arrays[name] for name in names]


def _tolerance(tensor: Any, expected: np.ndarray) -> float:
    record = tensor.quantization
    if record is not None and record.scale is not None and len(record.scale):
        return LEVELS * float(record.scale[0])
    return max(LEAST, FLOATS * float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))


def _array(name: str, values: np.ndarray) -> str:
    numbers = [_number(float(value)) for value in np.ravel(values)]
    rows = (", ".join(numbers[start : start + 8]) for start in range(0, len(numbers), 8))
    return f"static const float {name}[] = {{\n    " + ",\n    ".join(rows) + "};"


def _number(value: float) -> str:
    """Returns a float constant of C.

    >>> _number(1.0), _number(0.1), _number(float("-inf"))
    ('1.0f', '0.1f', '-INFINITY')
    """
    if not math.isfinite(value):
        return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
    text = f"{value:.9g}"
    return f"{text if re.search(r'[.e]', text) else text + '.0'}f"
