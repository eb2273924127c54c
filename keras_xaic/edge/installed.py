"""Which edge interpreters are here, and which one judges."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from functools import cache
from typing import Optional

from keras_xaic.edge.interpreters import JUDGES, LITERT_PYTHON, REGISTRY, Interpreter, get_interpreter
from keras_xaic.edge.process import Limits, python_of, run_child
from keras_xaic.errors import EdgeError
from keras_xaic.temporary import temporary_directory

TIMEOUT = 30.0
"""Seconds within which a Python of the user's says which version it has."""


def judge() -> str:
    """Returns the name of the interpreter whose outputs are the metric values of reports: the first that is installed.

    Raises:
        EdgeError: If none is that may judge.
    """
    for name in JUDGES:
        if interpreter_version(name) is not None:
            return name
    ways = " or ".join(REGISTRY[name].install for name in JUDGES)
    raise EdgeError("no edge interpreter is installed that can judge", " or ".join(JUDGES), ways)


def speed_judge() -> Optional[str]:
    """Returns the name of the installed interpreter that files are timed against each other on, None if there is none."""
    return next((name for name, one in REGISTRY.items() if one.judges_speed and interpreter_version(name) is not None), None)


def available_interpreters() -> dict[str, str]:
    """Returns name and version of the interpreters that are installed, without loading them."""
    versions = {name: interpreter_version(name) for name in REGISTRY}
    return {name: version for name, version in versions.items() if version is not None}


def deployed_interpreters() -> tuple[str, ...]:
    """Returns the names of the interpreters that are installed and that users run on devices."""
    return tuple(name for name in available_interpreters() if REGISTRY[name].deployed)


def interpreter_version(name: str) -> Optional[str]:
    """Returns the version of an interpreter, None if it is not installed.

    Raises:
        EdgeError: If there is no interpreter of this name, or ``XAIC_LITERT_PYTHON`` names what does not run it.
    """
    one = get_interpreter(name)
    if one.foreign and os.environ.get(LITERT_PYTHON):
        return _foreign_version(name, python_of(name))
    own = _version(one)
    return _version(REGISTRY[one.else_from]) if own is None and one.else_from else own


def _version(one: Interpreter) -> Optional[str]:
    """The version in this Python."""
    if importlib.util.find_spec(one.module) is None:
        return None
    try:
        return importlib.metadata.version(one.package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def _foreign_version(interpreter: str, python: str) -> str:
    with temporary_directory() as scratch:
        job = {"mode": "version", "interpreter": interpreter, "model": python}
        answer, _ = run_child(job, scratch, Limits(TIMEOUT))
    return str(answer["version"])
