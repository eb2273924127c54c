"""Runs a function of the package in a child process, with limits: what is native and fed with user data can die there alone.

A crash of the child is one clear error in the parent. Arguments travel as pickle (they are ours); the result comes back as JSON
and .npy only, since a file that took over the child must not reach the parent.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from typing import Any, Optional

import numpy as np

from keras_xaic import errors
from keras_xaic.errors import ExportError, XaicError

TIMEOUT = 600.0
"""Seconds."""


class ChildDied(ExportError):
    """The child ended without a result: a crash, the time limit, or want of memory."""

    exit_code = 4


def run_isolated(
    function: str, *arguments: Any, timeout: float = TIMEOUT, memory: Optional[int] = None, what: str = ""
) -> dict[str, Any]:
    """Calls a function of this package in a child process and returns its result.

    Args:
        function: ``module:name``, importable in the child; it returns a dict of arrays, bytes and JSON values.
        arguments: Its arguments; they must pickle.
        timeout: Seconds.
        memory: Most bytes of address space that the child may take beyond what it starts with; None for no limit.
        what: What it does, for messages, e.g. ``TensorFlow's converter``.

    Raises:
        ChildDied: If it crashed, hung or ran out of memory; `what` and the signal are named.
        XaicError: The one that the function raised.
    """
    what = what or function
    with tempfile.TemporaryDirectory(prefix="xaic-") as name:
        scratch = pathlib.Path(name)
        (scratch / "job.pickle").write_bytes(pickle.dumps((function, arguments, memory)))
        with (scratch / "stderr.txt").open("wb") as stderr:
            command = [sys.executable, "-m", "keras_xaic.isolation", name]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment
            )
            try:
                code: Optional[int] = child.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                child.kill()
                child.wait()
        said = (scratch / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        if code is None:
            raise ChildDied(f"{what} did not end within {timeout:g} s")
        if not (scratch / "result.json").is_file():
            raise ChildDied(f"{what} crashed: {_death(code)}{_last_line(said)}")
        result = json.loads((scratch / "result.json").read_text(encoding="utf-8"))
        if "error" in result:
            kind = getattr(errors, result["error"], XaicError)
            raise kind(*result["parts"])
        arrays = {key: np.load(scratch / file, allow_pickle=False) for key, file in result["arrays"].items()}
        contents = {key: (scratch / file).read_bytes() for key, file in result["bytes"].items()}
        return {**result["values"], **arrays, **contents}


def _death(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"; its last words: {lines[-1][:300]!r}" if lines else ""


def _serve(scratch: pathlib.Path) -> None:
    """Runs the job that lies in `scratch`; in the child."""
    function, arguments, memory = pickle.loads((scratch / "job.pickle").read_bytes())
    module, name = function.split(":")
    action = getattr(importlib.import_module(module), name)
    if memory is not None:
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    try:
        made = action(*arguments)
    except XaicError as error:
        answer: dict[str, Any] = {"error": type(error).__name__, "parts": [error.found, error.expected, error.fix]}
    except MemoryError:
        answer = {"error": "ModelError", "parts": [f"{name} ran out of memory", "", "Allow more memory, or check the file"]}
    else:
        answer = {"arrays": {}, "bytes": {}, "values": {}}
        for number, (key, value) in enumerate(made.items()):
            if isinstance(value, bytes):
                answer["bytes"][key] = f"{number}.bin"
                (scratch / f"{number}.bin").write_bytes(value)
            elif isinstance(value, np.ndarray):
                answer["arrays"][key] = f"{number}.npy"
                np.save(scratch / f"{number}.npy", value)
            else:
                answer["values"][key] = value
    (scratch / "result.part").write_text(json.dumps(answer), encoding="utf-8")
    os.replace(scratch / "result.part", scratch / "result.json")


if __name__ == "__main__":
    _serve(pathlib.Path(sys.argv[1]))
