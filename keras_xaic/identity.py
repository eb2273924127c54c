"""What tells settings from other settings, as plain values: a run that continues another one has the same."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_xaic.npz import release

DEPTH = 8
"""Levels of objects in objects that are looked at."""
PIECE = 1 << 20
"""Bytes of an array that are in memory at a time."""


def facts_of(value: object, depth: int = DEPTH) -> Any:
    """Returns values for JSON that change with whatever changes a result.

    Groups of settings give their fields; functions their place and their code; Keras objects their class and configuration;
    other objects, such as a user's callbacks, their class and those attributes that their constructor takes: what they count
    while they work is left out, so that it does not matter how far a run came.

    >>> facts_of({"a": (1, np.float32(0.5))})
    {'a': [1, 0.5]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.generic)):
        plain = value.item() if isinstance(value, np.generic) else value
        return plain if isinstance(plain, (bool, int, str)) or plain == plain else repr(plain)
    if isinstance(value, (enum.Enum, os.PathLike)):
        return str(value)
    if depth == 0:
        return _place(value)
    if isinstance(value, Mapping):
        return {str(key): facts_of(one, depth - 1) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((facts_of(one, depth - 1) for one in value), key=repr)
    if isinstance(value, (tuple, list)):
        return [facts_of(one, depth - 1) for one in value]
    if hasattr(value, "arrays"):
        return digest_of(value)
    if hasattr(value, "__array__"):
        return digest_of(np.asarray(value))
    return [_place(value), _settings(value, depth - 1)]


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


def _place(value: object) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _settings(value: Any, depth: int) -> Any:
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: facts_of(getattr(value, field.name), depth) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return facts_of(value.model_dump(), depth)
    if inspect.ismethod(value):
        return [facts_of(value.__func__, depth), facts_of(value.__self__, depth)]
    if inspect.isfunction(value):
        return [_code(value.__code__), facts_of(value.__defaults__, depth), _captured(value, depth)]
    if hasattr(value, "func") and hasattr(value, "keywords"):  # functools.partial
        return [facts_of(one, depth) for one in (value.func, value.args, value.keywords)]
    if hasattr(value, "get_config"):
        try:
            return facts_of(value.get_config(), depth)
        except Exception:  # a user's class that is not made to be saved: as any other object
            pass
    return _given(value, depth)


def _code(code: Any) -> str:
    """A digest of what a function does; names and numbers of lines do not matter."""
    digest = hashlib.sha256(code.co_code + repr(code.co_names).encode())
    for one in code.co_consts:
        plain = sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one)
        digest.update((_code(one) if inspect.iscode(one) else str(plain)).encode())
    return digest.hexdigest()


def _captured(function: Any, depth: int) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(_simple(cell.cell_contents, depth))
        except ValueError:  # not filled yet
            found.append(None)
    return found


def _given(value: object, depth: int) -> dict[str, Any]:
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
                found[name] = _simple(kept[attribute], depth)
    return found


def _simple(value: object, depth: int) -> Any:
    """As `facts_of`, but of collections only what they are: they may grow while a run works."""
    return _place(value) if isinstance(value, (list, dict, set)) or hasattr(value, "__array__") else facts_of(value, depth)
