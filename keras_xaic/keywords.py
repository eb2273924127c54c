"""Constructors of many fields take most of them by name only (what `dataclasses.KW_ONLY` does from Python 3.10 on)."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, TypeVar

_Class = TypeVar("_Class")


def keyword_only(after: int) -> Callable[[type[_Class]], type[_Class]]:
    """Makes a dataclass whose constructor takes only the first `after` fields by position.

    >>> import dataclasses
    >>> Point = keyword_only(after=1)(dataclasses.make_dataclass("Point", ["x", "y"]))
    >>> Point(1, y=2)
    Point(x=1, y=2)
    >>> Point(1, 2)
    Traceback (most recent call last):
    TypeError: Point() takes 1 positional argument, 2 were given: give y by name
    """

    def decorate(kind: type[_Class]) -> type[_Class]:
        made = kind.__init__
        signature = inspect.signature(made)
        names = list(signature.parameters)[1:]

        @functools.wraps(made)
        def checked(self: _Class, *given: Any, **named: Any) -> None:
            if len(given) > after:
                takes = f"{after} positional argument{'' if after == 1 else 's'}"
                wrong = ", ".join(names[after : len(given)])
                raise TypeError(f"{kind.__name__}() takes {takes}, {len(given)} were given: give {wrong} by name")
            made(self, *given, **named)

        later = set(names[after:])
        parameters = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY) if one.name in later else one
            for one in signature.parameters.values()
        ]
        checked.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        kind.__init__ = checked  # type: ignore[method-assign, assignment]
        return kind

    return decorate
