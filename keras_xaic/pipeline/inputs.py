"""Models as users hand them over: in memory or as a file."""

from __future__ import annotations

import pathlib
from typing import Any

from keras_xaic.models import load_model


def load(model: Any, allow_unsafe: bool) -> Any:
    """Returns `model`, loaded if it is a path."""
    if isinstance(model, (str, pathlib.Path)):
        return load_model(model, allow_unsafe=allow_unsafe)
    return model
