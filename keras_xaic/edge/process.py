"""Starts the child process, watches it, and turns every way it can die into one clear error."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from keras_xaic.edge.child.host import MACHINE, START
from keras_xaic.edge.interpreters import LITERT_PYTHON, MissingInterpreter, UnusableInterpreter, get_interpreter
from keras_xaic.edge.starting import Child, start_child
from keras_xaic.errors import DataError, EdgeError, MachineError
from keras_xaic.files import machine_error
from keras_xaic.units import format_size

_NOISE = ("INFO:", "WARNING: Attempting to use a delegate")
_WITHOUT_INT16 = re.compile(r"\bINT16\b.* (is unsupported|not supported)|(unsupported|not supported).*\bINT16\b", re.IGNORECASE)
_SIGNALS = {
    "SIGABRT": "it gave up (SIGABRT)",
    "SIGBUS": "it read outside the file (SIGBUS)",
    "SIGFPE": "it divided by zero (SIGFPE)",
    "SIGILL": "this processor lacks an instruction it needs (SIGILL)",
    "SIGKILL": "the system ended it (SIGKILL), most likely for want of memory",
    "SIGSEGV": "it read or wrote outside its memory (SIGSEGV)",
}


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
    return (os.environ.get(LITERT_PYTHON) if get_interpreter(interpreter).foreign else None) or sys.executable


def run_child(
    job: Mapping[str, Any], scratch: pathlib.Path, limits: Limits, progress: Optional[Callable[[int], None]] = None
) -> tuple[dict[str, Any], str]:
    """Runs one job of `keras_xaic.edge.child`.

    Args:
        job: What to do; see `keras_xaic.edge.child.jobs`. Names the interpreter and the model.
        scratch: A `temporary_directory` for the job, the result and stderr.
        limits: Time and memory.
        progress: Called with the number of finished samples, a few times a second.

    Returns:
        The child's result, and what was written to stderr.

    Raises:
        EdgeError: If the interpreter is missing, refuses, crashes, hangs or runs out of memory.
        DataError: If the inputs do not fit the file.
        MachineError: If no process can be started, or nothing can be written.
    """
    interpreter, name = job["interpreter"], pathlib.Path(job["model"]).name
    answer, request, errors = scratch / "answer.json", scratch / "job.json", scratch / "stderr.txt"
    answer.unlink(missing_ok=True)
    request.write_text(json.dumps({**job, "result": str(answer), "memory": limits.memory}), encoding="utf-8")
    python = python_of(interpreter)
    with errors.open("wb") as stderr:
        try:
            child = start_child(python, request, stderr, _environment(python))
        except OSError as error:
            if python == sys.executable and error.errno == errno.ENOENT:
                raise machine_error(error) or error from None
            if python == sys.executable:
                raise MachineError(f"no process can be started ({error.strerror})", "", "Free memory or processes") from None
            raise _wrong_python(python, interpreter, f"it cannot be started ({error.strerror})") from None
        try:
            started, hung = _watch(child, limits.timeout, progress)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
            if child.stdout is not None:
                child.stdout.close()
    said = _read(errors)
    if answer.is_file():
        result = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in result:
            raise _refusal(result, interpreter, pathlib.Path(result["model"]).name, said, limits)
        return result, said
    if hung:
        raise EdgeError(
            f"{interpreter} did not finish within {limits.timeout:g} s on {name}{_quote(said)}",
            "",
            "Allow more time, or check the file",
        )
    if MACHINE < code < 2 * MACHINE:
        raise _let_down(interpreter, code - MACHINE, str(scratch.parent))
    death = f"{_death(code, limits)}{_quote(said)}"
    if started:
        raise EdgeError(f"{interpreter} crashed on {name}: {death}")
    raise _wrong_python(python, interpreter, death)


def _environment(python: str) -> dict[str, str]:
    """Returns the environment of a child; what points to this Python's packages is not for another one."""
    own = () if python == sys.executable else ("PYTHONPATH", "PYTHONHOME")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    # One thread for numpy's own algebra: it has none to do here, and its threads would reserve address space.
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _wrong_python(python: str, interpreter: str, what: str) -> UnusableInterpreter:
    """What is said of a Python that does not even begin to work."""
    if python == sys.executable:
        return UnusableInterpreter(f"{python} with numpy does not work for {interpreter}: {what}", "", "Run `xaic doctor`")
    return UnusableInterpreter(
        f"{LITERT_PYTHON} names {python}, which does not run {interpreter}: {what}",
        f"a Python 3.9 or newer with numpy and {get_interpreter(interpreter).package}",
        f"Set {LITERT_PYTHON} to one, or unset it",
    )


MOST_WORDS = 400
"""Characters of what an interpreter said."""


def words(said: str) -> str:
    """Returns what an interpreter wrote to stderr as one line, without its small talk and repetitions."""
    lines = [line.strip() for line in said.splitlines()]
    kept = list(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
    text = "; ".join(kept)
    return text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS // 2]} ... {text[-MOST_WORDS // 2 :]}"


def _watch(child: Child, timeout: float, progress: Optional[Callable[[int], None]]) -> tuple[bool, bool]:
    """Waits for the child to end.

    Returns:
        Whether it began its work, and whether it hung: showed no sign of progress for `timeout` seconds.
    """
    assert child.stdout is not None
    last, started, rest = time.monotonic(), False, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            left = last + timeout - time.monotonic()
            if left <= 0 or not selector.select(left):
                return started, True
            piece = os.read(child.stdout.fileno(), 4096)  # a line that does not end must not keep us
            if not piece:
                break
            *lines, rest = (rest[-100:] + piece).split(b"\n")
            started = started or START.encode() in lines
            done = [int(line) for line in lines if line.isdigit()]
            if done or START.encode() in lines:
                last = time.monotonic()
            if done and progress is not None:
                progress(done[-1])
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        return started, True
    return started, False


def _read(path: pathlib.Path, most: int = 100_000) -> str:
    """Returns the beginning and the end of what an interpreter said, however much that is."""
    with path.open("rb") as file:
        content = file.read(most)
        size = path.stat().st_size
        if size > len(content):
            file.seek(max(len(content), size - most))
            content += b"\n" + file.read()
    return content.decode("utf-8", errors="replace")


def _refusal(result: Mapping[str, Any], interpreter: str, name: str, said: str, limits: Limits) -> Exception:
    text = str(result["error"]).strip()
    if result["kind"] == "data":
        return DataError(f"{name}: {text}", "", "Use data of the shape that the model was exported for")
    if result["kind"] == "missing":
        return MissingInterpreter(f"{interpreter} is not installed ({text})", "", get_interpreter(interpreter).install)
    if result["kind"] == "broken":
        found = f"{interpreter} is installed but cannot be loaded: {words(text)!r}"
        return UnusableInterpreter(found, "", f"Install it again: {get_interpreter(interpreter).install}")
    if result["kind"] == "machine":
        return _let_down(interpreter, result["number"], result["file"])
    if result["kind"] == "memory":
        return EdgeError(f"{interpreter} ran out of memory on {name}{_within(limits)}{_quote(said)}", "", "Allow more memory")
    spoken = words(f"{said}\n{text}")
    if _WITHOUT_INT16.search(spoken):
        advice = "Choose int8 or float32 activations: {activations=int8}"
        return EdgeError(f"{interpreter} refused {name}: {spoken!r}", "operators that it has for int16 values", advice)
    return EdgeError(f"{interpreter} refused {name}: {spoken!r}")


def _let_down(interpreter: str, number: int, file: str) -> MachineError:
    """What is said where the machine let the child down."""
    fault = OSError(number, os.strerror(number), file or "a temporary file")
    return machine_error(fault) or MachineError(f"{interpreter} could not read or write: {fault}")


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
