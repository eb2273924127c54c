"""What is loaded when it is first used: TensorFlow, and the names that a package hands on from its modules."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Callable

from keras_xaic.silence import warnings_are_told


class _Later:
    """Stands for a name of `keras_xaic._keras`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        return getattr(getattr(importlib.import_module("keras_xaic._keras"), self._name), name)


tf: Any = _Later("tf")
"""TensorFlow."""


def loaded_later(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of a package.

    Args:
        package: Its name.
        home: Name that it hands on -> the module of the package that has it.
    """

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with warnings_are_told():  # of what is imported
            return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return find
