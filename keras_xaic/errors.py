"""Errors for people: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

OPTION = re.compile(r"\{([a-z_]+)(?:=([^}]*))?\}")

MOST_CHARACTERS = 800
"""Of one part of a message."""


class XaicError(Exception):
    """Base of every error that keras-xaic raises on purpose.

    Advice is a function of the fault and of what was called: alternatives in `fix` are separated by ``"; "``, and one that
    needs an option names it as ``{float_layers=NAME}`` or ``{allow_approximate=True}``. It is shown as a keyword in Python,
    or as a field of the group of settings that holds it, as ``--float-layers NAME`` on the command line, and left out where
    the function or command has no such option.

    >>> str(XaicError("x_train has the shape (10, 3)", "(N, 4)", "Give four columns"))
    'x_train has the shape (10, 3). Expected (N, 4). Give four columns.'

    Args:
        found: What was met, naming the file, key or layer.
        expected: What would have been right.
        fix: What the reader can do about it.

    Attributes:
        spelled: How the public function that was called takes each option; None where that is not known.
    """

    exit_code = 2

    def __init__(self, found: str, expected: str = "", fix: str = "") -> None:
        found, expected, fix = (_line(text) for text in (found, expected, fix))
        self.found, self.expected, self.fix = found, expected, fix
        self.spelled: Optional[Mapping[str, Spelling]] = None
        super().__init__(found, expected, fix)

    def __str__(self) -> str:
        return self.render()

    def render(self, spelled: Optional[Mapping[str, Spelling]] = None) -> str:
        """Returns the text.

        Args:
            spelled: How the reader writes each option that there is; None: as the public function that was called has it, and
                where that is not known, advice with any option is shown.
        """
        known = self.spelled if spelled is None else spelled
        parts = [self.found.rstrip(".")]
        if self.expected:
            parts.append("Expected " + self.expected.rstrip("."))
        advice = [one for one in self.fix.rstrip(".").split("; ") if one]
        usable = [one for one in advice if known is None or all(_takes(known, *option) for option in OPTION.findall(one))]
        if usable:
            fix = "; ".join(OPTION.sub(functools.partial(_shown, known), one) for one in usable)
            parts.append(sentence(fix))
        return ". ".join(parts) + "."

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.found, self.expected, self.fix), {"spelled": self.spelled}


def sentence(advice: str) -> str:
    """Returns advice with a capital letter, commands and code as they are typed.

    >>> sentence("give more data"), sentence("xaic doctor"), sentence("options=DataOptions(strict=True)")
    ('Give more data', 'xaic doctor', 'options=DataOptions(strict=True)')
    """
    typed = advice.startswith(("pip ", "xaic ")) or re.match(r"[\w.]+[=(]", advice)
    return advice if typed else advice[0].upper() + advice[1:]


class Spelling(NamedTuple):
    """How an option is written where advice is read.

    Attributes:
        name: The option alone: ``--float-layers``, ``float_layers``, ``strict of DataOptions``.
        setting: With ``{}`` in place of its value.
        values: What it may be; empty where that is not a list.
    """

    name: str
    setting: str
    values: tuple[str, ...] = ()

    @classmethod
    def flag(cls, name: str, values: Iterable[str] = ()) -> Spelling:
        """Returns how the command line spells an option."""
        return cls(name, f"{name} {{}}", tuple(values))


def _takes(known: Mapping[str, Spelling], name: str, value: str) -> bool:
    return name in known and (not value or not known[name].values or value in known[name].values)


def _shown(known: Optional[Mapping[str, Spelling]], match: re.Match[str]) -> str:
    name, value = match.groups()
    spelling = Spelling(name, f"{name}={{}}") if known is None else known[name]
    is_flag = spelling.name.startswith("--")
    if value is None or (is_flag and value == "True"):
        return spelling.name
    plain = is_flag or value in ("True", "False") or value.replace(".", "", 1).isdigit()
    return spelling.setting.format(value if plain else repr(value))


class XaicWarning(UserWarning):
    """What a user should know before the work begins."""


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


_WITHIN = "Exception encountered: "
"""What leads Keras 2's reason why it cannot make a layer."""
_WHERE = re.compile(
    r"^(\{\{function_node \S+\}\} )?(Error in user-defined function passed to \S+ transformation with iterator: (\w+(::)?)+: )?"
)
"""What TensorFlow says of the place in its graph before it says the error."""


def first_line(error: BaseException) -> str:
    """Returns what another library says, in one line: the first that is not empty, or the kind of error.

    TensorFlow tells errors in traced functions as a traceback: of those the line of the error. Keras 2 tells why it cannot make
    a layer behind all of the layer's configuration.

    >>> first_line(ValueError("bad shape\\nTraceback ...")), first_line(MemoryError())
    ('bad shape', 'MemoryError')
    >>> first_line(TypeError("Error when deserializing class 'A' using config={}.\\nException encountered: no such function"))
    'no such function'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    within = [line for line in lines if line.startswith(_WITHIN)]
    if within and lines[0].startswith("Error when deserializing class"):  # and then all of its configuration
        lines = [within[-1].partition(_WITHIN)[2].strip()]
    if lines[:1] == ["in user code:"]:
        lines = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)][-1:] or lines
        lines = [re.sub(rf"^{type(error).__name__}: ", "", lines[0])]
    elif lines[:1] == ["Graph execution error:"]:
        lines = [line for line in lines[1:] if not line.startswith("[[")][-1:] or lines
    return _WHERE.sub("", lines[0])[:200] if lines else type(error).__name__


def require_one(what: str, value: object, known: Iterable[str], error: type[XaicError]) -> None:
    """Refuses what is not one of the names that there are.

    Raises:
        XaicError: Of the kind `error`, with the nearest names.
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise error(f"{what} is {value!r}", choices(value, known))


def choices(name: object, known: Iterable[str]) -> str:
    """Returns what an error says is expected in place of a name that is not known: the nearest ones first.

    >>> choices("ecq-x", ["auto", "ecq", "ecqx"])
    "'ecqx' or 'ecq' (all: auto, ecq, ecqx)"
    """
    known = list(known)
    near = " or ".join(repr(one) for one in difflib.get_close_matches(str(name), known, 2))
    return f"{near} (all: {', '.join(known)})" if near else f"one of {', '.join(known)}"
