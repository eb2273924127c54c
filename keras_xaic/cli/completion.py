"""What shells complete: names of recipes, attribution rules, and layers of the model on the line."""

from __future__ import annotations

import json
import mmap
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer

MOST = 16 * 1024**2
"""Bytes of a configuration that are read."""
_SIZES = {"units", "filters", "kernel_size", "output_dim", "key_dim"}
"""Settings of layers with weights."""


def recipes() -> list[str]:
    """Returns the names of all recipes."""
    from keras_xaic.recipes import RECIPES

    return list(RECIPES)


def baselines(incomplete: str) -> list[str]:
    """Returns the names of all recipes, behind those that are typed already."""
    before, comma, _ = incomplete.rpartition(",")
    return [before + comma + name for name in recipes()]


def rules() -> list[str]:
    """Returns the names of all attribution rules."""
    from keras_xaic.relevance.methods import RULE_NAMES
    from keras_xaic.relevance.tried import AUTO

    return [*RULE_NAMES, AUTO]


def layers(context: typer.Context) -> list[str]:
    """Returns the names of the layers with weights; none where the model on the line cannot be read."""
    typed = [context.params.get("model"), *context.args]  # an option without its value leaves all arguments behind
    try:
        model = next(pathlib.Path(one) for one in typed if one is not None)
        return list(dict.fromkeys(_weighted(_config(model))))
    except Exception:  # whatever is typed: a shell that completes says nothing
        return []


def _settings(*values: str) -> Callable[[typer.Context, str], list[str]]:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        name, is_set, _ = incomplete.rpartition("=")
        return [f"{name}={value}" for value in values] if is_set else [f"{one}=" for one in layers(context)]

    return complete


COMPLETED: Mapping[str, Callable[..., list[str]]] = {
    "recipe": recipes,
    "baselines": baselines,
    "rule": rules,
    "float_layers": layers,
    "protect": layers,
    "pin": _settings(*"2345678"),
    "zeros": _settings("2:4", "4x1"),
}
"""Option -> what completes it."""


def _config(model: pathlib.Path) -> Any:
    """Returns the configuration of a model file, read without TensorFlow, which takes seconds to load."""
    if model.suffix == ".keras":
        with zipfile.ZipFile(model) as archive, archive.open("config.json") as member:
            return json.loads(member.read(MOST))
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b'{"class_name"')  # a text within HDF5, read without its library, which damaged files can crash
        text = content[max(start, 0) : start + MOST].decode("utf-8", "replace")
    return json.JSONDecoder().raw_decode(text)[0]


def _weighted(part: Any, path: str = "") -> Iterator[str]:
    """Yields the paths of the layers with weights within a configuration."""
    config = part["config"]
    for one in config.get("layers", ()):
        inside = one["config"]
        name = inside.get("name") or one.get("name") or ""
        if "layers" in inside:
            yield from _weighted(one, f"{path}{name}/")
        elif _SIZES & {*inside, *inside.get("layer", {}).get("config", ())}:
            yield path + name
