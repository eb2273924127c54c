"""What is known of each edge interpreter: the one place that names their packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from keras_xaic.errors import EdgeError, choices

LITERT_PYTHON = "XAIC_LITERT_PYTHON"
"""Environment variable: a Python with LiteRT, where that is not installed beside keras-xaic."""


class UnusableInterpreter(EdgeError):
    """The interpreter that was asked for does not work here, whatever the file."""


class MissingInterpreter(UnusableInterpreter):
    """The interpreter that was asked for is not installed, or there is none of this name."""

    exit_code = 2


@dataclass(frozen=True)
class Interpreter:
    """An edge interpreter.

    Attributes:
        name: What users call it.
        module: Top-level Python module.
        package: What pip installs.
        install: How to install it.
        deployed: Whether users run it on devices; others only help to find out why something differs.
        judge_order: The interpreter with the lowest number that is installed gives a report's metric values; 0: never.
        judges_speed: Whether files are timed against each other on it: what phones and boards run now.
        knows_int2: Whether it runs INT2 weights.
        foreign: Whether it may live in another Python, which `LITERT_PYTHON` names.
        else_from: Name of the interpreter whose module serves as well where its own is not installed.
    """

    name: str
    module: str
    package: str
    install: str
    deployed: bool = True
    judge_order: int = 0
    judges_speed: bool = False
    knows_int2: bool = False
    foreign: bool = False
    else_from: str = ""


REGISTRY: dict[str, Interpreter] = {
    one.name: one
    for one in (
        Interpreter(
            "tflite-runtime",
            "tflite_runtime",
            "tflite-runtime",
            "pip install tflite-runtime (Python 3.9 to 3.11)",
            judge_order=1,
        ),
        Interpreter(
            "litert",
            "ai_edge_litert",
            "ai-edge-litert",
            f"pip install ai-edge-litert, here or in an environment of its own whose python {LITERT_PYTHON} names",
            judge_order=2,
            judges_speed=True,
            knows_int2=True,
            foreign=True,
        ),
        Interpreter("tflm", "tflite_micro", "tflite-micro", "pip install tflite-micro (Python 3.10 or newer)"),
        Interpreter(
            "builtin-ref",
            "tflite_runtime",
            "tflite-runtime",
            "pip install ai-edge-litert",
            deployed=False,
            else_from="litert",
        ),
    )
}
INTERPRETERS = tuple(REGISTRY)
AUTO = "auto"
"""Means the interpreter that judges, wherever one is named."""
JUDGES = tuple(sorted((name for name, one in REGISTRY.items() if one.judge_order), key=lambda name: REGISTRY[name].judge_order))
"""Who may judge, the first choice first."""
SLOWEST = 5e8
"""Multiply-accumulates a second of the slowest interpreter that judges: about those of int8 on tflite-runtime 2.14."""


def get_interpreter(name: str) -> Interpreter:
    """Returns the entry of an interpreter.

    Raises:
        MissingInterpreter: If there is none of this name.
    """
    if name not in REGISTRY:
        raise MissingInterpreter(f"interpreter {name!r} is not known", choices(name, INTERPRETERS))
    return REGISTRY[name]


def check_interpreters(asked: Union[str, Sequence[str]]) -> None:
    """Refuses names of interpreters that are not known; ``auto`` and ``all`` name none.

    Raises:
        MissingInterpreter: Naming the first.
    """
    for name in (asked,) if isinstance(asked, str) else asked:
        if asked not in ("auto", "all"):
            get_interpreter(name)
