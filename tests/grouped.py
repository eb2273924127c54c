"""Settings that tests vary one by one, brought into the groups that the public functions take."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from keras_xaic.recipes import get_recipe
from keras_xaic.settings import DataOptions, Device, Training

GROUPS = {"training": Training, "device": Device, "options": DataOptions}
ENTRIES = ("activations", "align", "protect", "pin", "float_layers")


def grouped(**flat: Any) -> dict[str, Any]:
    """Returns the arguments of `keras_xaic.compress` for settings by their own names."""
    entries = {name: flat.pop(name) for name in ENTRIES if name in flat}
    if entries:
        flat["recipe"] = get_recipe(flat.get("recipe", "auto")).changed(**entries)
    for group, kind in GROUPS.items():
        given = {one.name: flat.pop(one.name) for one in fields(kind) if one.name in flat}
        if given:
            flat[group] = kind(**given)
    return flat
