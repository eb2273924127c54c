#!/usr/bin/env python3
"""Checks on the device that the model runs here as it did where it was made.

Copy the bundle's ``check/`` folder and ``model.tflite`` to the device and run ``python3 check/edge_check.py``. Needs numpy and
either tflite_runtime or ai_edge_litert, nothing else. Ends with 0 if the model passes and with 1 if it does not.

``inputs.npz``: x0, x1, ... model inputs, float32 (N, ...). ``expected.npz``: y0, y1, ... outputs of this very file on the
interpreter of the machine that made it; keras0, keras1, ... outputs of the Keras model; targets (N, ...), if there are any
(targets0, targets1, ... of several outputs). ``task.json`` says what the model does and what several inputs and outputs are
called, all in the order of the tensors of the file; ``xaic_metrics.py`` judges by the metric of the report.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import time
import zipfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MODULES = {"tflite-runtime": "tflite_runtime.interpreter", "litert": "ai_edge_litert.interpreter"}
PACKAGES = {"tflite-runtime": "tflite-runtime", "litert": "ai-edge-litert"}
WARM_UP = 5


def main() -> int:
    """Runs the check and returns the exit code."""
    options = parse_options()
    try:
        passed = check(options)
    except CheckError as error:
        print(f"FAIL  {error}")
        return 1
    except Exception as error:  # a kernel that fails; whatever copies of these files that were cut short lead to
        print(f"FAIL  the check cannot be done: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return 1
    print("PASS" if passed else "FAIL  the outputs are not those of the machine that made the model")
    return 0 if passed else 1


def check(options: argparse.Namespace) -> bool:
    """Prints what is found, and returns whether the model passes."""
    interpreter, name = open_interpreter(options)
    inputs, expected = read_arrays(options.inputs, "x0"), read_arrays(options.expected, "y0")
    outputs, latency = run(interpreter, inputs, options.runs)
    tasks, names = read_tasks(options.expected.parent, len(outputs))
    print(f"interpreter  {name}, {options.threads} thread(s)")
    print(f"model        {options.model} ({options.model.stat().st_size:,} B)")
    for role, called in names.items():
        print(f"{role:12s} " + ", ".join(f"{number} {name}" for number, name in enumerate(called)))
    passed = compare(outputs, expected, tasks, options)
    if remembers(interpreter, inputs):
        print("state        is kept between calls: call reset_all_variables() before every new sequence, as this script does")
    if latency:
        print(f"latency      median {np.median(latency):.3g} ms, p90 {np.percentile(latency, 90):.3g} ms ({len(latency)} runs)")
    memory = peak_memory()
    if memory:
        print(f"memory       {memory / 1e6:.1f} MB at most, with Python and numpy")
    return passed


def parse_options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "model.tflite")
    parser.add_argument("--inputs", type=pathlib.Path, default=HERE / "inputs.npz")
    parser.add_argument("--expected", type=pathlib.Path, default=HERE / "expected.npz")
    parser.add_argument("--interpreter", choices=sorted(MODULES), help="default: the first that is installed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50, help="timed invocations, 0 for none")
    parser.add_argument("--agreement", type=float, default=0.9, help="share of decisions that must be the same")
    parser.add_argument(
        "--deviation", type=float, default=0.01, help="or: mean difference allowed, as a share of the outputs' range"
    )
    return parser.parse_args()


class CheckError(Exception):
    """The check cannot be done; the text says why."""


def open_interpreter(options: argparse.Namespace) -> tuple:
    """Returns the interpreter with the model loaded, and its name."""
    if not options.model.is_file():
        raise CheckError(f"{options.model} does not exist; name the file with --model")
    for name in [options.interpreter] if options.interpreter else MODULES:
        try:
            module = importlib.import_module(MODULES[name])
        except ImportError:
            continue
        try:
            interpreter = module.Interpreter(model_path=str(options.model), num_threads=options.threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise CheckError(f"{name} refuses {options.model.name}: {' '.join(str(error).split())}") from error
        return interpreter, f"{name} {version_of(name)}".rstrip()
    raise CheckError("no interpreter is installed; run: pip install ai-edge-litert (or tflite-runtime, up to Python 3.11)")


def version_of(name: str) -> str:
    """Returns the version of an interpreter's package, "" where it is not known."""
    try:
        return importlib.metadata.version(PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        return ""


def read_arrays(path: pathlib.Path, key: str) -> dict:
    """Returns the arrays of an .npz that has to hold `key`."""
    try:
        check_claims(path)
        with np.load(str(path), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # whatever a damaged file leads numpy to
        raise CheckError(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from error
    if key not in arrays:
        raise CheckError(f"{path} has no {key}")
    return arrays


def check_claims(path: pathlib.Path) -> None:
    """Checks that the arrays of an .npz have the bytes that their shapes need, before memory is taken for them."""
    with zipfile.ZipFile(str(path)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > 64000000 + 200 * path.stat().st_size:
            raise ValueError("it claims to hold far more than its size")
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                needed = dtype.itemsize
                for length in shape:
                    needed *= length
                if min(shape, default=0) < 0 or file.tell() + needed != member.file_size:
                    raise ValueError(f"{member.filename} claims the shape {shape}, its bytes are others")


def numbered(arrays: dict, letter: str) -> list:
    """Returns letter0, letter1, ... as long as there are any."""
    found = []
    while f"{letter}{len(found)}" in arrays:
        found.append(arrays[f"{letter}{len(found)}"])
    return found


def quantize(values: np.ndarray, detail: dict) -> np.ndarray:
    """Returns real values as the model's input takes them; halves round away from zero."""
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"])
    if scale == 0 or dtype.kind == "f":
        return values.astype(dtype)
    scaled = (values.astype(np.float32) / np.float32(scale)).astype(np.float64)
    codes = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) + zero_point
    return np.clip(codes, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def dequantize(codes: np.ndarray, detail: dict) -> np.ndarray:
    """Returns a model's output as real values."""
    scale, zero_point = detail["quantization"]
    return codes.astype(np.float32) if scale == 0 else (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def run(interpreter: object, inputs: dict, runs: int) -> tuple:
    """Returns the outputs of all samples, one list entry per output, and the milliseconds of the timed runs."""
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    samples = numbered(inputs, "x")
    if len(samples) != len(ins):
        raise CheckError(f"the model has {len(ins)} inputs, inputs.npz has {len(samples)}")
    for i, (array, detail) in enumerate(zip(samples, ins)):
        if tuple(detail["shape"]) != (1,) + array.shape[1:]:  # noqa: RUF005 - also for Python 3.7
            raise CheckError(f"input {i} of the model takes {tuple(map(int, detail['shape']))}, inputs.npz holds {array.shape}")
    codes = [quantize(array, detail) for array, detail in zip(samples, ins)]
    results = [[] for _ in outs]

    def feed(k: int) -> None:
        interpreter.reset_all_variables()  # recurrent models must not remember the sample before
        for array, detail in zip(codes, ins):
            interpreter.set_tensor(detail["index"], array[k : k + 1])

    for k in range(len(samples[0])):
        feed(k)
        interpreter.invoke()
        for result, detail in zip(results, outs):
            result.append(dequantize(interpreter.get_tensor(detail["index"]), detail)[0])
    times = []
    for _ in range(WARM_UP + runs if runs > 0 else 0):
        feed(0)
        start = time.perf_counter()
        interpreter.invoke()
        times.append((time.perf_counter() - start) * 1e3)
    return [np.stack(result) for result in results], times[WARM_UP:]


def remembers(interpreter: object, inputs: dict) -> bool:
    """Returns whether the same sample gives something else the second time, as recurrent models do that are not reset."""
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    samples, given = numbered(inputs, "x"), []
    interpreter.reset_all_variables()
    for _ in range(2):
        for array, detail in zip(samples, ins):
            interpreter.set_tensor(detail["index"], quantize(array[:1], detail))
        interpreter.invoke()
        given.append([interpreter.get_tensor(detail["index"]) for detail in outs])
    interpreter.reset_all_variables()
    return not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(*given))


def compare(outputs: list, expected: dict, tasks: list, options: argparse.Namespace) -> bool:
    """Prints how the outputs compare with what was expected and says whether that is good enough.

    Kernels differ between processors and versions by a level or two of the grid, which can flip near ties: most decisions
    have to be the same, or (where outputs are values) the mean difference has to be small.
    """
    reference, keras = numbered(expected, "y"), numbered(expected, "keras")
    passed = len(outputs) == len(reference)
    if not passed:
        print(f"outputs      there are {len(outputs)}, expected {len(reference)}")
    for i, (ours, theirs, task) in enumerate(zip(outputs, reference, tasks)):
        if ours.shape != theirs.shape:
            print(f"output {i}     has the shape {ours.shape}, expected {theirs.shape}")
            return False
        equal = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))  # infinity and not a number, too
        difference = np.abs(np.subtract(ours, theirs, out=np.zeros_like(theirs), where=~equal))
        span = float(np.ptp(theirs[np.isfinite(theirs)])) if np.isfinite(theirs).any() else 0.0
        same = task.agreement(ours, theirs) if task else None
        close = bool(np.isfinite(difference).all()) and float(difference.mean()) <= options.deviation * (span or 1.0)
        passed = passed and (close or (same is not None and same >= options.agreement))
        said = "identical" if equal.all() else f"differs by {difference.mean():.3g}, at most {difference.max():.3g}"
        print(f"output {i}     {said}" + ("" if same is None else f"; {100 * same:.1f} % of {ours_words(task)} are the same"))
        if same is not None and i < len(keras) and keras[i].shape == ours.shape:
            print(f"             {100 * task.agreement(ours, keras[i]):.1f} % are those of the Keras model")
        targets = expected.get("targets" if len(reference) == 1 else f"targets{i}")
        if task and targets is not None and len(targets) == len(ours):
            name = task.metric_name + ("" if len(reference) == 1 else f" {i}")
            try:
                here, there = task.score(ours, targets), task.score(theirs, targets)
                print(f"{name:12s} {here:.4g} here, {there:.4g} expected ({len(targets)} samples)")
                if task.missing:
                    print(f"             the report's {task.missing} is a function that no bundle holds")
            except ValueError as error:  # e.g. samples of one class only
                print(f"{name:12s} not known: {error}")
    return passed


def ours_words(task: object) -> str:
    """Returns what the decisions of a task are called."""
    return {"multi-label": "labels", "segmentation": "positions"}.get(task.kind, "classes")


def read_tasks(folder: pathlib.Path, count: int) -> tuple:
    """Returns what each output does, None where the bundle does not say it, and the names of several inputs and outputs."""
    script, facts = folder / "xaic_metrics.py", folder / "task.json"
    if not (script.is_file() and facts.is_file()):
        return [None] * count, {}
    spec = importlib.util.spec_from_file_location("xaic_metrics", str(script))
    module = importlib.util.module_from_spec(spec)
    sys.modules["xaic_metrics"] = module
    spec.loader.exec_module(module)
    try:
        told = json.loads(facts.read_text())
    except ValueError as error:
        raise CheckError(f"{facts} cannot be read ({error})") from error
    told = told if isinstance(told, dict) else {}
    parts = told["parts"] if isinstance(told.get("parts"), list) else [told]
    tasks = [module.Task.of(part) for part in parts]
    called = {"inputs": told.get("input_names"), "outputs": told.get("output_names")}
    names = {role: [str(name) for name in one] for role, one in called.items() if isinstance(one, list) and len(one) > 1}
    return tasks if len(tasks) == count else [None] * count, names


def peak_memory() -> int | None:
    """Returns the most bytes this process ever held, None where the system does not tell."""
    try:  # Linux: getrusage also counts what the program that started this one held
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main())
