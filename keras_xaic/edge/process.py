"""Starts the child process, watches it, and turns every way it can die into one clear error."""

from __future__ import annotations

import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from keras_xaic.errors import DataError, EdgeError
from keras_xaic.units import format_size

CHILD = pathlib.Path(__file__).with_name("child.py")
LITERT_PYTHON = "XAIC_LITERT_PYTHON"
_NOISE = ("INFO:", "WARNING: Attempting to use a delegate")
_SIGNALS = {
    "SIGABRT": "it gave up (SIGABRT)",
    "SIGBUS": "it read outside the file (SIGBUS)",
    "SIGFPE": "it divided by zero (SIGFPE)",
    "SIGILL": "this processor lacks an instruction it needs (SIGILL)",
    "SIGKILL": "the system ended it (SIGKILL), most likely for want of memory",
    "SIGSEGV": "it read or wrote outside its memory (SIGSEGV)",
}


class MissingInterpreter(EdgeError):
    """The interpreter that was asked for is not installed."""


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        timeout: Seconds without a sign of progress.
        memory: Bytes beyond what Python, numpy and the inputs hold; None for no limit.
    """

    timeout: float = 120.0
    memory: Optional[int] = 2_000_000_000


def python_of(interpreter: str) -> str:
    """Returns the Python that runs `interpreter`: this one, or for LiteRT the one that ``XAIC_LITERT_PYTHON`` names."""
    return (os.environ.get(LITERT_PYTHON) if interpreter == "litert" else None) or sys.executable


def run_child(
    job: Mapping[str, Any], scratch: pathlib.Path, limits: Limits, progress: Optional[Callable[[int], None]] = None
) -> tuple[dict[str, Any], str]:
    """Runs one job of `child.py`.

    Args:
        job: What to do; see `child.py`. Names the interpreter and the model.
        scratch: A private directory for the job, the answer and stderr.
        limits: Time and memory.
        progress: Called with the number of finished samples, a few times a second.

    Returns:
        The child's answer, and what was written to stderr.

    Raises:
        EdgeError: If the interpreter is missing, refuses, crashes, hangs or runs out of memory.
        DataError: If the inputs do not fit the file.
    """
    interpreter, name = job["interpreter"], pathlib.Path(job["model"]).name
    answer, request, errors = scratch / "answer.json", scratch / "job.json", scratch / "stderr.txt"
    answer.unlink(missing_ok=True)
    request.write_text(json.dumps({**job, "result": str(answer), "memory": limits.memory}), encoding="utf-8")
    python = python_of(interpreter)
    # One thread for numpy's own algebra: it has none to do here, and its threads would reserve address space.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with errors.open("wb") as stderr:
        try:
            child = subprocess.Popen(
                [python, str(CHILD), str(request)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        except OSError as error:
            raise EdgeError(f"{python} cannot be started ({error.strerror})", "a Python", f"Set {LITERT_PYTHON}") from None
        try:
            hung = not _watch(child, limits.timeout, progress)
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
    said = errors.read_text(encoding="utf-8", errors="replace")
    if hung:
        raise EdgeError(
            f"{interpreter} did not answer within {limits.timeout:g} s on {name}{_quote(said)}",
            "",
            "Allow more time, or check the file",
        )
    if not answer.is_file():
        raise EdgeError(f"{interpreter} crashed on {name}: {_death(child.returncode, limits)}{_quote(said)}")
    result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise _refusal(result, interpreter, name, said, limits)
    return result, said


def private_directory() -> tempfile.TemporaryDirectory[str]:
    """Returns a directory that only this user can read, removed when its context ends."""
    return (
        tempfile.TemporaryDirectory(prefix="xaic-edge-", ignore_cleanup_errors=True)
        if sys.version_info >= (3, 10)
        else (tempfile.TemporaryDirectory(prefix="xaic-edge-"))
    )


def words(said: str, most: int = 400) -> str:
    """Returns what an interpreter wrote to stderr as one line, without its small talk and repetitions."""
    lines = [line.strip() for line in said.splitlines()]
    kept = list(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
    text = "; ".join(kept)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _watch(child: subprocess.Popen[bytes], timeout: float, progress: Optional[Callable[[int], None]]) -> bool:
    """Waits for the child to end; False if it shows no sign of life for `timeout` seconds."""
    assert child.stdout is not None
    last = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, last + timeout - time.monotonic())):
                return False
            line = child.stdout.readline()
            if not line:
                break
            last = time.monotonic()
            if progress is not None and line.strip().isdigit():
                progress(int(line))
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True


def _refusal(result: Mapping[str, Any], interpreter: str, name: str, said: str, limits: Limits) -> Exception:
    text = str(result["error"]).strip()
    if result["kind"] == "data":
        return DataError(f"{name}: {text}", "", "Use data of the shape that the model was exported for")
    if result["kind"] == "missing":
        return MissingInterpreter(f"{interpreter} is not installed ({text})", "", how_to_install(interpreter))
    if result["kind"] == "memory":
        return EdgeError(f"{interpreter} ran out of memory on {name}{_within(limits)}{_quote(said)}", "", "Allow more memory")
    spoken = words(f"{said}\n{text}")
    return EdgeError(f"{interpreter} refused {name}: {spoken!r}")


def how_to_install(interpreter: str) -> str:
    """Returns what to do where `interpreter` is missing."""
    if interpreter == "litert":
        return f"pip install ai-edge-litert, here or in an environment of its own whose python {LITERT_PYTHON} names"
    return "pip install tflite-micro (Python 3.10 or newer)" if interpreter == "tflm" else "pip install tflite-runtime"


def _death(code: int, limits: Limits) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return _SIGNALS.get(name, f"it was ended by {name}") + (_within(limits) if name in ("SIGABRT", "SIGKILL") else "")


def _within(limits: Limits) -> str:
    return f" (the limit is {format_size(limits.memory)})" if limits.memory is not None else ""


def _quote(said: str) -> str:
    text = words(said)
    return f"; it said {text!r}" if text else ""
