"""What tells settings from other settings, as plain values: a run that continues another one has the same."""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import enum
import hashlib
import inspect
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_xaic.npz import release

DEPTH = 8
"""Levels of objects in objects that are looked at."""
PIECE = 1 << 20
"""Bytes of an array that are in memory at a time."""
_LIBRARIES = re.compile(r"(builtins|functools|typing|abc|numpy|(tf_)?keras|tensorflow(_model_optimization)?|keras_xaic)(\.|$)")
"""Packages whose code is not looked at."""


def facts_of(value: object) -> Any:
    """Returns values for JSON that change with whatever changes a result.

    Groups of settings give their fields; functions their place, their code and what they use of their module; Keras objects
    their class and configuration; other objects, such as a user's callbacks, their class and those attributes that their
    constructor takes; classes of the user's own their code, too. What a callback counts while it works is left out, so that it
    does not matter how far a run came.

    >>> facts_of({"a": (1, np.float32(0.5))})
    {'a': [1, 0.5]}
    """
    return _Reader().facts(value, DEPTH)


def digest_of(array: Any) -> str:
    """Returns a digest of shape, type and all values of an array; it is read piece by piece."""
    if hasattr(array, "arrays"):  # several inputs or outputs
        return hashlib.sha256(repr((array.names, [digest_of(one) for one in array.arrays])).encode()).hexdigest()
    digest = hashlib.sha256(repr((tuple(array.shape), str(array.dtype))).encode())
    if np.ndim(array) == 0:
        array = np.atleast_1d(array)
    rows = max(1, PIECE // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        piece = np.asarray(array[start : start + rows])
        digest.update("".join(map(repr, piece.tolist())).encode() if piece.dtype.hasobject else piece.tobytes())
        release(array)
    return digest.hexdigest()


class _Reader:
    """Reads the facts of one value.

    Attributes:
        read: Functions that were read already: what many use is told once.
    """

    def __init__(self) -> None:
        self.read: set[Any] = set()

    def facts(self, value: Any, depth: int, grows: bool = False) -> Any:
        """See `facts_of`; `depth` levels of objects are left, and what `grows` changes while a run works."""
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (float, np.generic)):
            plain = value.item() if isinstance(value, np.generic) else value
            return plain if isinstance(plain, (bool, int, str)) or plain == plain else repr(plain)
        if isinstance(value, (enum.Enum, os.PathLike)):
            return str(value)
        if depth == 0:
            return _place(value)
        grows = grows or (hasattr(value, "set_model") and hasattr(value, "on_epoch_end"))  # callbacks record
        if isinstance(value, Mapping):
            return {str(key): self.facts(one, depth - 1, grows) for key, one in value.items()}
        if isinstance(value, (set, frozenset)):
            return sorted((self.facts(one, depth - 1, grows) for one in value), key=repr)
        if isinstance(value, (tuple, list)):
            return [self.facts(one, depth - 1, grows) for one in value]
        if hasattr(value, "arrays"):
            return digest_of(value)
        if hasattr(value, "assign") and hasattr(value, "shape"):  # a variable: callbacks set it
            return [_place(value), str(value.shape)]
        if hasattr(value, "__array__"):
            return digest_of(np.asarray(value))
        return [_place(value), self._settings(value, depth - 1, grows)]

    def _settings(self, value: Any, depth: int, grows: bool) -> Any:
        if isinstance(value, type):
            return self._class(value, depth, grows)
        if dataclasses.is_dataclass(value):
            return {field.name: self.facts(getattr(value, field.name), depth, grows) for field in dataclasses.fields(value)}
        if hasattr(value, "model_dump"):
            return self.facts(value.model_dump(), depth, grows)
        if inspect.ismethod(value):
            return [self.facts(value.__func__, depth, grows), self.facts(value.__self__, depth, grows)]
        if inspect.isfunction(value):
            return self._function(value, depth, grows)
        if hasattr(value, "func") and hasattr(value, "keywords"):  # functools.partial
            return [self.facts(one, depth, grows) for one in (value.func, value.args, value.keywords)]
        configuration = None
        if hasattr(value, "get_config"):
            with contextlib.suppress(Exception):  # a user's class that is not made to be saved
                configuration = self.facts(value.get_config(), depth, grows)
        if configuration is not None and not _is_users(type(value)):
            return configuration
        # Of a user's class it is often that of the class it inherits from, which knows less.
        return [configuration, self._given(value, depth, grows), self._class(type(value), depth, grows)]

    def _class(self, kind: type, depth: int, grows: bool) -> Any:
        """What classes of the user's own do: theirs, and those they inherit from."""
        members = [(name, one) for own in kind.__mro__ if _is_users(own) for name, one in sorted(vars(own).items())]
        found = []
        for name, one in members:
            bare = inspect.unwrap(getattr(one, "fget", None) or getattr(one, "__func__", one))
            if inspect.isfunction(bare):
                found.append([name, self._function(bare, depth, grows)])
            elif isinstance(one, (bool, int, float, str)) and not name.startswith("__"):
                found.append([name, self.facts(one, depth)])
        return found

    def _function(self, function: Any, depth: int, grows: bool) -> Any:
        code = function.__code__
        if function in self.read:
            return _code(code)
        self.read.add(function)
        uses = {}
        for name in sorted(_globals(code) & set(function.__globals__)) if _is_users(function) else ():
            one = function.__globals__[name]
            if inspect.isfunction(one) or (isinstance(one, type) and _is_users(one)):
                uses[name] = self.facts(one, depth, grows) if _is_users(one) else _place(one)
            elif not inspect.ismodule(one) and not grows:
                uses[name] = self._told(one, depth, grows)
        return [_code(code), self.facts(function.__defaults__, depth, grows), self._captured(function, depth, grows), uses]

    def _captured(self, function: Any, depth: int, grows: bool) -> list[Any]:
        found = []
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                found.append(self._told(cell.cell_contents, depth, grows))
        return found

    def _given(self, value: object, depth: int, grows: bool) -> dict[str, Any]:
        """The attributes of an object that its constructor takes, under their own names or with an underscore."""
        names: list[str] = []
        for kind in type(value).__mro__[:-1]:
            if "__init__" in vars(kind) and inspect.isfunction(vars(kind)["__init__"]):
                names += inspect.signature(vars(kind)["__init__"]).parameters
        kept = getattr(value, "__dict__", {})
        found = {}
        for name in dict.fromkeys(names):
            for attribute in (name, f"_{name}"):
                if attribute in kept and attribute not in ("self", "model", "params"):
                    found[name] = self._told(kept[attribute], depth, grows)
        return found

    def _told(self, value: object, depth: int, grows: bool) -> Any:
        """As `facts`, but of collections that may grow while a run works only what they are, and so of what has no values."""
        if grows and (isinstance(value, (list, dict, set)) or hasattr(value, "__array__")):
            return _place(value)
        try:
            return self.facts(value, depth, grows)
        except Exception:  # a symbolic tensor, say
            return _place(value)


def _place(value: object) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _code(code: Any) -> str:
    """A digest of what a function does; names and numbers of lines do not matter."""
    digest = hashlib.sha256(code.co_code + repr(code.co_names).encode())
    for one in code.co_consts:
        plain = sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one)
        digest.update((_code(one) if inspect.iscode(one) else str(plain)).encode())
    return digest.hexdigest()


def _globals(code: Any) -> set[str]:
    """The names that code, and what is defined in it, looks up in its module."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    return found.union(*(_globals(one) for one in code.co_consts if inspect.iscode(one)))


def facts_of_layers(model: Any) -> Any:
    """Returns what the configuration of a model leaves out: the code of layers and functions of the user's own."""
    layers = list(model._flatten_layers(include_self=True))
    kinds = dict.fromkeys(type(one) for one in layers if _is_users(type(one)))
    functions = [value for one in layers for value in vars(one).values() if inspect.isfunction(value) and _is_users(value)]
    return facts_of([*kinds, *functions])


def _is_users(value: Any) -> bool:
    """Whether a class or function is no library's."""
    return _LIBRARIES.match(str(value.__module__)) is None
