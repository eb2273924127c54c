"""Says which parts of the stack are here and whether they really work, without importing TensorFlow."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import sys
from dataclasses import dataclass

import numpy as np

from keras_xaic._version import __version__
from keras_xaic.edge.installed import judge
from keras_xaic.edge.interpreters import INTERPRETERS, JUDGES, MissingInterpreter, get_interpreter
from keras_xaic.edge.running import run_file
from keras_xaic.errors import EdgeError

WORKS, MISSING, BROKEN = "works", "missing", "broken"

# tiny.tflite is one int8 FULLY_CONNECTED without bias: tf.matmul(x, KERNEL) of a (1, 4) input, converted by
# TFLiteConverter.from_concrete_functions with Optimize.DEFAULT, TFLITE_BUILTINS_INT8, int8 input and output, and
# [a, b, a, -b] for a, b in (-1, 1) as representative data.
TINY = pathlib.Path(__file__).with_name("tiny.tflite")
KERNEL = np.array([[1, 0, -1], [0, 1, 1], [1, 1, 0], [0, -1, 0.5]], np.float32)
INPUT = np.array([[1, 0.5, -1, 0.25]], np.float32)
TIMEOUT = 30.0
TOLERANCE = 0.03  # one step of the output's grid is 0.0235

# Distribution -> what is lost without it; those of the base installation first.
PACKAGES = {
    "tensorflow": "compressing (not needed to verify)",
    **({"tf_keras": "Keras 2, in which models are compressed"} if sys.version_info >= (3, 12) else {}),
    "tensorflow-model-optimization": "pruning and fake quantization",
    "numpy": "everything",
    "flatbuffers": "writing .tflite files",
    "h5py": "reading .h5 models",
    "pydantic": "reports and plans",
    "scipy": "budgets as an integer program",
    "rich": "tables in the console",
    "jinja2": "the HTML report",
    "matplotlib": "its charts, and pictures of relevance",
    "pillow": "its pictures, and image directories",
    "typer": "the xaic command",
}
EXTRAS = {
    "innvestigate": (
        "the second engine of relevance and `xaic explain --cross-check`",
        "pip install --no-deps --ignore-requires-python 'innvestigate>=2.1.2,<2.2'",
    ),
    "ethos-u-vela": ("estimates for Ethos-U processors", "pip install 'keras-xaic[npu]' (Python 3.10 or newer)"),
    "optuna": ("xaic search", "pip install 'keras-xaic[search]'"),
    "ray": ("`xaic search --cluster` and `xaic verify --cluster`", "pip install 'keras-xaic[cluster]'"),
}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        state: ``works``, ``missing`` or ``broken``.
        detail: The version, or what is wrong.
        fix: What to do; empty where nothing is to be done.
        needed: Whether the base installation should have it.
    """

    name: str
    state: str
    detail: str
    fix: str = ""
    needed: bool = True


def examine() -> list[Check]:
    """Looks at Python, the packages and every edge interpreter; each interpreter runs a tiny model in a child process."""
    checks = [Check("keras-xaic", WORKS, __version__), Check("python", WORKS, platform.python_version())]
    for name, purpose in PACKAGES.items():
        checks.append(_package(name, purpose, "pip install keras-xaic", needed=True))
    for name, (purpose, fix) in EXTRAS.items():
        checks.append(_package(name, purpose, fix, needed=False))
    judging = _judge()
    return checks + [_interpreter(name, needed=name == judging) for name in INTERPRETERS]


def _package(name: str, purpose: str, fix: str, needed: bool) -> Check:
    try:
        return Check(name, WORKS, importlib.metadata.version(name), needed=needed)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, MISSING, f"needed for: {purpose}", fix, needed)


def _judge() -> str:
    """Who judges here; who would, if nobody is installed that can."""
    try:
        return judge()
    except EdgeError:
        return JUDGES[-1]


def _interpreter(name: str, needed: bool) -> Check:
    try:
        result = run_file(TINY, INPUT, interpreter=name, timeout=TIMEOUT)
    except MissingInterpreter as error:
        return Check(name, MISSING, error.found, error.fix, needed)
    except EdgeError as error:
        return Check(name, BROKEN, error.found, get_interpreter(name).install, needed)
    wrong = float(np.abs(result.outputs[0] - INPUT @ KERNEL).max())
    if wrong > TOLERANCE:
        found = f"{result.version}, but its result of a matrix product is off by {wrong:.3g}"
        return Check(name, BROKEN, found, get_interpreter(name).install, needed)
    return Check(name, WORKS, result.version, needed=needed)
