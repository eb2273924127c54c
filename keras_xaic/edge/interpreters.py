"""The edge interpreters: their names, and which of them are here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
from functools import cache
from typing import Optional

from keras_xaic.edge.process import LITERT_PYTHON, Limits, private_directory, python_of, run_child
from keras_xaic.errors import EdgeError

# Name -> (module, distribution).
_MODULES = {
    "tflite-runtime": ("tflite_runtime", "tflite-runtime"),
    "litert": ("ai_edge_litert", "ai-edge-litert"),
    "tflm": ("tflite_micro", "tflite-micro"),
    "builtin-ref": ("tflite_runtime", "tflite-runtime"),
}
INTERPRETERS = tuple(_MODULES)


def check_interpreter(name: str) -> None:
    """Raises EdgeError if `name` is not the name of an interpreter."""
    if name not in _MODULES:
        raise EdgeError(f"interpreter {name!r} is not known", ", ".join(INTERPRETERS))


def available_interpreters() -> dict[str, str]:
    """Returns name and version of the interpreters that are installed, without loading them."""
    versions = {name: interpreter_version(name) for name in INTERPRETERS}
    return {name: version for name, version in versions.items() if version is not None}


def interpreter_version(name: str) -> Optional[str]:
    """Returns the version of an interpreter, None if it is not installed.

    Raises:
        EdgeError: If there is no interpreter of this name.
    """
    check_interpreter(name)
    if name == "litert" and os.environ.get(LITERT_PYTHON):
        return _foreign_version(python_of(name))
    module, distribution = _MODULES[name]
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def _foreign_version(python: str) -> Optional[str]:
    with private_directory() as name:
        try:
            answer, _ = run_child(
                {"mode": "version", "interpreter": "litert", "model": python}, pathlib.Path(name), Limits(30.0)
            )
        except EdgeError:
            return None
    return str(answer["version"])
