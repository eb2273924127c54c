"""What public functions are called with, checked before any work: types, numbers, and names with the nearest known one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, TypeVar, cast

from keras_xaic.errors import PlanError, Spelling, XaicError, choices

Check = Callable[[str, Any], Any]
"""Takes the name of a setting and its value, and returns the value to go on with, or raises `PlanError`."""
Function = TypeVar("Function", bound=Callable[..., Any])
LARGEST_SEED = 2**32
LARGEST_NUMBER = 3.4e38


def require(name: str, value: object, expected: str, holds: Callable[[Any], bool], whole: bool = False) -> Any:
    """Returns a number as Python's own; refuses what is none, is not finite, or of which `holds` is false.

    Raises:
        PlanError: Naming the setting, what was found and what is expected.
    """
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not _finite(value) or not holds(value):
        raise PlanError(f"{name} is {shown(value)}", expected)
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def one_of(name: str, value: Any, known: Any) -> None:
    """Refuses a name that is not known.

    Raises:
        PlanError: Naming the setting and the nearest of the names that are.
    """
    if not isinstance(value, str) or value not in known:
        raise PlanError(f"{name} is {shown(value)}", choices(value, known))


def as_names(name: str, value: object) -> tuple[str, ...]:
    """Returns names as a tuple; one text is one name.

    >>> as_names("protect", "stem"), as_names("protect", ["a", "b"])
    (('stem',), ('a', 'b'))

    Raises:
        PlanError: If there is something else among them.
    """
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, (tuple, list)) or not all(isinstance(one, str) and one for one in found):
        raise PlanError(f"{name} is {shown(value)}", "a name, or several")
    return tuple(found)


def yes_no(name: str, value: object) -> bool:
    """Returns what is True or False, and refuses everything else."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise PlanError(f"{name} is {shown(value)}", "True or False")
    return bool(value)


def a_path(name: str, value: Any) -> Any:
    """Refuses what no file or directory can be called; returns the path with ``~`` expanded."""
    try:
        path = os.fspath(value)
    except TypeError:
        raise PlanError(f"{name} is {shown(value)}", "a path") from None
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise PlanError(f"{name} is {shown(path)}", "a path")
    return os.path.expanduser(path) if path.startswith("~") else value


def whole(least: int, below: Optional[int] = None) -> Check:
    """Returns the check for whole numbers from `least` on."""
    expected = f"a whole number, {least} or more" if below is None else f"a whole number from {least} to {below - 1:,}"

    def check(name: str, value: object) -> Any:
        return require(name, value, expected, lambda n: n >= least and (below is None or n < below), whole=True)

    return check


def number(name: str, value: object) -> Any:
    """Returns a finite number, and refuses everything else."""
    return float(require(name, value, "a number that float32 holds", lambda n: abs(n) <= LARGEST_NUMBER))


def seconds(name: str, value: object) -> float:
    """Returns a time, and refuses everything else."""
    return float(require(name, value, "seconds, more than 0", lambda n: 0 < n <= LARGEST_NUMBER))


def an(*kinds: type, words: str = "") -> Check:
    """Returns the check for instances of classes."""

    def check(name: str, value: object) -> Any:
        if not isinstance(value, kinds):
            raise PlanError(f"{name} is {shown(value)}", words or " or ".join(f"a {kind.__name__}" for kind in kinds))
        return value

    return check


def several(kind: type) -> Check:
    """Returns the check for lists of instances of a class."""

    def check(name: str, value: object) -> Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, kind) for one in value):
            raise PlanError(f"{name} is {shown(value)}", f"a list of {kind.__name__}")
        return value

    return check


def called(name: str, value: object) -> Any:
    """Refuses what cannot be called."""
    if not callable(value) or isinstance(value, type):
        raise PlanError(f"{name} is {shown(value)}", "a function")
    return value


def a_text(name: str, value: object) -> str:
    """Refuses what is no text, or an empty one."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise PlanError(f"{name} is {shown(value)}", "a text")
    return value


def a_source(name: str, value: object) -> Any:
    """Refuses a text that no file can be called; other things than texts and paths are for others to judge."""
    return a_path(name, value) if isinstance(value, (str, os.PathLike)) else value


def two_sizes(name: str, value: Any) -> tuple[int, int]:
    """Returns height and width: of ``96x96``, a pair, or one number for both.

    >>> two_sizes("image_size", "96x128"), two_sizes("image_size", 96)
    ((96, 128), (96, 96))
    """
    parts = (
        re.split(r"[x,]", value) if isinstance(value, str) else [value] * 2 if isinstance(value, numbers.Integral) else value
    )
    try:
        found = [int(one) if isinstance(one, str) else one for one in parts]
    except (TypeError, ValueError):
        found = []
    expected = "height and width, e.g. 96x96"
    if len(found) != 2:
        raise PlanError(f"{name} is {shown(value)}", expected)
    height, width = (require(name, one, expected, lambda n: 1 <= n <= 100_000, whole=True) for one in found)
    return height, width


def one_of_these(known: object) -> Check:
    """Returns the check for names that are known."""

    def check(name: str, value: object) -> Any:
        one_of(name, value, known)
        return value

    return check


def this_or_path(kind: type) -> Check:
    """Returns the check for objects of a class, or paths of files that hold one."""

    def check(name: str, value: object) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, (str, os.PathLike)):
            raise PlanError(f"{name} is {shown(value)}", f"a {kind.__name__}, or the path of one")
        return a_path(name, value)

    return check


COMMON: dict[str, Check] = {
    "model": a_source,
    "data": a_source,
    "x": a_source,
    "out": a_path,
    "checkpoint": a_path,
    "overwrite": yes_no,
    "prove": yes_no,
    "lookup": yes_no,
    "allow_unsafe": yes_no,
    "allow_approximate": yes_no,
    "per_class": yes_no,
    "seed": whole(0, LARGEST_SEED),
    "batch_size": whole(1),
    "progress": called,
    "scale": number,
    "offset": number,
}
"""Checks of parameters that mean the same wherever they appear."""


def checked(details: Any = None, **checks: Check) -> Callable[[Function], Function]:
    """Makes a public function check its arguments before it begins; what is left at its default is not checked.

    Args:
        details: Typed dictionary of the keywords that ``**details`` takes.
        **checks: Parameter -> its check, beside those in `COMMON`.
    """
    rules = {**COMMON, **checks}

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = ("self", "cls")
        names = [name for name, one in signature.parameters.items() if one.kind is not one.VAR_KEYWORD and name not in own]
        names += [] if details is None else [*details.__required_keys__, *details.__optional_keys__]

        called_as = function.__qualname__.split(".")[-2] if function.__name__ == "__init__" else function.__name__

        @functools.wraps(function)
        def wrapped(*args: object, **options: object) -> Any:
            given = bind(signature, called_as, args, options, names)
            for values in (given.arguments, given.arguments.get("details", {})):
                for name in values:
                    default = signature.parameters[name].default if name in signature.parameters else inspect.Parameter.empty
                    if name in rules and values[name] is not default:
                        values[name] = rules[name](name, values[name])
            try:
                return function(*given.args, **given.kwargs)
            except XaicError as error:
                error.spelled = _spellings(signature, names)
                raise

        return cast(Function, wrapped)

    return decorate


_OFFERED: dict[str, dict[str, Spelling]] = {}
"""Class of settings -> how each of its entries is set."""


def offers(kind: str, name: str, setting: str, entries: Mapping[str, Sequence[str]]) -> None:
    """Lets advice name the entries of a parameter.

    Args:
        kind: A word in the annotations of such parameters: the name of a class.
        name: How advice calls the entry ``{0}``.
        setting: How the entry ``{1}`` of the parameter ``{0}`` is set; ``{{}}`` stands for the value.
        entries: Entry -> the values that it may have; empty where that is not a list.
    """
    _OFFERED[kind] = {one: Spelling(name.format(one), setting, tuple(values)) for one, values in entries.items()}


def _spellings(signature: inspect.Signature, names: Sequence[str]) -> dict[str, Spelling]:
    """Returns how a public function takes each option: by a parameter, or by an entry of one."""
    found = {name: Spelling(name, f"{name}={{}}") for name in names}
    for parameter in signature.parameters.values():
        for kind in re.findall(r"\w+", str(parameter.annotation)):
            for entry, spelling in _OFFERED.get(kind, {}).items():
                setting = spelling.setting.format(parameter.name, entry)
                found.setdefault(entry, spelling._replace(setting=setting))
    return found


def bind(
    signature: inspect.Signature, called_as: str, args: Any, options: Any, known: Optional[Sequence[str]] = None
) -> inspect.BoundArguments:
    """Returns arguments by name.

    Raises:
        PlanError: Where one is missing, unknown, or given twice; with the nearest name.
    """
    known = list(signature.parameters) if known is None else known
    for name in options:
        if name not in known:
            raise PlanError(f"{called_as}() has no argument {name!r}", choices(name, known))
    try:
        return signature.bind(*args, **options)
    except TypeError as error:
        raise PlanError(f"{called_as}(): {error}", f"the arguments {', '.join(known)}") from None


Group = TypeVar("Group", bound=type)


def settings(group: Group) -> Group:
    """Makes a dataclass refuse unknown entries as `checked` does, and lets advice name them."""
    entries = {one.name: one.metadata.get("values", ()) for one in dataclasses.fields(group)}
    name = group.__name__
    offers(name, f"{{0}} of {name}", f"{{0}}={name}({{1}}={{{{}}}})", entries)
    return keyword_only(after=len(inspect.signature(group).parameters))(group)


def keyword_only(after: int) -> Callable[[Group], Group]:
    """Makes a dataclass take only the first `after` fields by position (`dataclasses.KW_ONLY` is new in Python 3.10).

    >>> import dataclasses
    >>> Point = keyword_only(after=1)(dataclasses.make_dataclass("Point", ["x", "y"]))
    >>> Point(1, y=2)
    Point(x=1, y=2)
    >>> Point(1, 2)
    Traceback (most recent call last):
    keras_xaic.errors.PlanError: Point(): too many positional arguments. Expected the arguments x, y.
    """

    def decorate(group: Group) -> Group:
        made = group.__init__  # type: ignore[misc]
        first, *fields = inspect.signature(made).parameters.values()
        fields = [*fields[:after], *(one.replace(kind=one.KEYWORD_ONLY) for one in fields[after:])]
        signature = inspect.Signature(fields)

        @functools.wraps(made)
        def __init__(self: Any, *args: object, **options: object) -> None:
            bind(signature, group.__name__, args, options)
            made(self, *args, **options)

        __init__.__signature__ = inspect.Signature([first, *fields])  # type: ignore[attr-defined]
        group.__init__ = __init__  # type: ignore[misc]
        return group

    return decorate


def shown(value: object) -> str:
    """Returns a value for a message: itself where it is short, the beginning of a text, else what it is."""
    if isinstance(value, str) and len(value) > 50:
        return f"{value[:40]!r}..."
    try:
        said = repr(value)
    except Exception:  # a user's class
        said = ""
    if not said or len(said) > 60 or "\n" in said or "object at 0x" in said:
        kind = type(value).__name__
        return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
    return said


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond floats
        return True
