"""Runs Python programs as a shell would, without that each of them loads TensorFlow: they are forked off a process that has."""

from __future__ import annotations

import os
import pathlib
import runpy
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from keras_xaic.isolation import run_isolated

_PRELOADED = "keras_xaic.pipeline"
_LONGEST = 1800.0
"""Seconds."""


def run_python(words: Sequence[object], place: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Returns what ``subprocess.run([sys.executable, *words], cwd=place, ...)`` would, its output as text.

    Args:
        words: ``-m module ...``, ``-c code`` or ``script.py ...``.
        place: The directory in which it runs.
    """
    given = [str(word) for word in words]
    answer = run_isolated("tests.programs:_carry_out", given, str(place), timeout=_LONGEST, preload=_PRELOADED)
    said = [answer[name].decode(errors="replace") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(given, answer["code"], said[0], said[1])


def _carry_out(words: list[str], place: str) -> dict[str, Any]:
    """In the child: its working directory, arguments and streams are those of the program."""
    streams = [os.memfd_create(name) for name in ("stdout", "stderr")]
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    os.chdir(place)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for what the program starts
    code: Any = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[:0] = words, [str(pathlib.Path(words[0]).parent)]
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    said = [os.pread(stream, os.fstat(stream).st_size, 0) for stream in streams]
    return {"code": code, "stdout": said[0], "stderr": said[1]}
