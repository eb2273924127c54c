"""Errors for people: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_CHARACTERS = 800
"""Of one part of a message."""


class XaicError(Exception):
    """Base of every error that keras-xaic raises on purpose.

    Args:
        found: What was met, naming the file, key or layer.
        expected: What would have been right.
        fix: What the reader can do about it.
    """

    exit_code = 2

    def __init__(self, found: str, expected: str = "", fix: str = "") -> None:
        found, expected, fix = (_line(text) for text in (found, expected, fix))
        self.found, self.expected, self.fix = found, expected, fix
        parts = [found.rstrip(".")]
        if expected:
            parts.append("Expected " + expected.rstrip("."))
        if fix:
            parts.append(fix.rstrip("."))
        super().__init__(". ".join(parts) + ".")

    def __reduce__(self) -> tuple[type[XaicError], tuple[str, str, str]]:
        return type(self), (self.found, self.expected, self.fix)


def _line(text: str) -> str:
    """Returns a text, parts of which may come from a file, as one line that any terminal can show."""
    line = text if text.isprintable() else " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 200]} ... {line[-190:]}"


class DataError(XaicError):
    """The data cannot be used: missing, wrong key, shape, type, values or labels."""


class ModelError(XaicError):
    """The model cannot be used: not a model, unsafe, or with layers that are not supported."""


class PlanError(XaicError):
    """A budget, recipe or plan is not usable."""


class ExportError(XaicError):
    """The compressed model cannot be written as asked."""


class EdgeError(XaicError):
    """An edge interpreter refused the model, crashed, hung or disagreed."""

    exit_code = 4


class MachineError(XaicError):
    """The machine, not the user: the disk is full, a directory cannot be written, memory or a database is out of reach."""

    exit_code = 5


def choices(name: object, known: Iterable[str]) -> str:
    """Returns what an error says is expected in place of a name that is not known: the nearest ones first.

    >>> choices("ecq-x", ["auto", "ecq", "ecqx"])
    "'ecqx' or 'ecq' (all: auto, ecq, ecqx)"
    """
    known = list(known)
    near = " or ".join(repr(one) for one in difflib.get_close_matches(str(name), known, 2))
    return f"{near} (all: {', '.join(known)})" if near else f"one of {', '.join(known)}"
