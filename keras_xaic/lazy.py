"""TensorFlow for files whose names are needed without it: it is loaded when something of it is used."""

from __future__ import annotations

import importlib
from typing import Any


class _Later:
    """Stands for a name of `keras_xaic._keras`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        return getattr(getattr(importlib.import_module("keras_xaic._keras"), self._name), name)


tf: Any = _Later("tf")
