"""Files of another release of Keras 2: settings that this one does not have, and other names inside of ``.keras`` files.

Keras goes over a model's attributes and calls a group of weights by the attribute that leads there first. Up to
TensorFlow 2.14 it goes in alphabetic order (``_layer_checkpoint_dependencies``), newer releases go backwards (``layers``).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import h5py

from keras_xaic._keras import keras, layers
from keras_xaic.models.keras3 import accepted_settings

_ROOT = str(keras.Model.__module__).partition(".")[0]
"""Package of Keras 2 here: ``keras`` or ``tf_keras``."""
_OLD_NAME, _NEW_NAME = "_layer_checkpoint_dependencies", "layers"


def as_here(config: object) -> Any:
    """Returns a configuration as this release writes it.

    Modules are those of this Keras 2; settings that layers do not have here are left out where they are off (None, False).
    """
    if isinstance(config, list):
        return [as_here(part) for part in config]
    if not isinstance(config, Mapping):
        return config
    made = {key: as_here(part) for key, part in config.items()}
    if isinstance(made.get("module"), str):
        package, dot, rest = made["module"].partition(".")
        if package in ("keras", "tf_keras"):
            made["module"] = (_ROOT if rest.startswith("src") else "keras") + dot + rest
    inner, known = made.get("config"), getattr(layers, str(made.get("class_name")), None)
    if known is not None and isinstance(inner, Mapping):
        accepted = accepted_settings(known)
        made["config"] = {key: part for key, part in inner.items() if key in accepted or part not in (None, False)}
    return made


@contextlib.contextmanager
def in_the_order_of(weights: object) -> Iterator[None]:
    """Lets Keras 2 go over models as the release did that wrote the file `weights` (HDF5), for the length of the block."""
    with h5py.File(weights, "r") as file:
        backwards = False if _OLD_NAME in file else True if _NEW_NAME in file else None
    library: Any = importlib.import_module(f"{_ROOT}.src.saving.saving_lib")
    own = library._walk_trackable
    if backwards is not None:
        library._walk_trackable = lambda trackable: _walk(trackable, backwards, library.ATTR_SKIPLIST)
    try:
        yield
    finally:
        library._walk_trackable = own


def _walk(trackable: Any, backwards: bool, skipped: frozenset[str]) -> Iterator[tuple[str, Any]]:
    skipped = skipped | {_OLD_NAME} if backwards else skipped - {_OLD_NAME}
    for name in sorted(dir(trackable), reverse=backwards):
        if name.startswith("__") or name in skipped:
            continue
        try:
            yield name, getattr(trackable, name)
        except Exception:
            continue
