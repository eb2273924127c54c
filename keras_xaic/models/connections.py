"""Whether the calls in a functional model's configuration can be made at all: Keras 2 waits forever where they cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keras_xaic.errors import ModelError

if TYPE_CHECKING:
    pass

CONSTANT = "_CONSTANT_VALUE"
"""Keras 2's mark of a call argument that is no tensor."""


def check_connections(config: object, source: str) -> None:
    """Plays through the calls of every functional model in a Keras 2 configuration.

    Args:
        config: The configuration, as read from JSON.
        source: The file, for the error message.

    Raises:
        ModelError: Naming a layer whose input is made by no other layer.
    """
    if isinstance(config, Mapping):
        if isinstance(config.get("layers"), (list, tuple)) and "input_layers" in config:
            _play(config["layers"], source)
        for part in config.values():
            check_connections(part, source)
    elif isinstance(config, (list, tuple)):
        for part in config:
            check_connections(part, source)


def starts_with_input(config: Mapping[str, Any]) -> bool:
    """Whether a layer's configuration is of a nested model that was called once when it was made, which counts as call 0."""
    inner = config.get("config")
    parts = inner.get("layers") if isinstance(inner, Mapping) else None
    if not parts or config.get("class_name") not in ("Sequential", "Functional", "Model"):
        return False
    return bool(config["class_name"] != "Sequential" or parts[0].get("class_name") == "InputLayer")


def _play(parts: Any, source: str) -> None:
    names = Counter(str(part["name"]) for part in parts)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ModelError(f"{source}: two layers are called {twice[0]!r}", "a name of its own for every layer")
    done = {str(part["name"]): int(part["class_name"] == "InputLayer" or starts_with_input(part)) for part in parts}
    waiting = {
        name: [list(_tensors(call, f"{source}: layer {name!r}")) for call in part["inbound_nodes"]]
        for name, part in zip(names, parts)
    }
    progress = True
    while progress:
        progress = False
        for name, calls in waiting.items():
            while calls and all(node < done.get(source_name, 0) for source_name, node in calls[0]):
                calls.pop(0)
                done[name] += 1
                progress = True
    stuck = [name for name, calls in waiting.items() if calls]
    if stuck:
        raise ModelError(
            f"{source}: layer {stuck[0]!r} waits for an input that no layer makes", "a graph without cycles or gaps"
        )


def _tensors(value: object, owner: str) -> Iterator[tuple[str, int]]:
    """The tensors that a call names, as ``(layer, call number)``; whatever Keras would take for one must be one."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part, owner)
    elif isinstance(value, (list, tuple)):
        if len(value) in (3, 4) and isinstance(value[0], str):
            if value[0] != CONSTANT:
                for number in value[1:3]:
                    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                        raise ModelError(f"{owner} is called with output {number!r} of {value[0]!r}", "counting numbers")
                yield value[0], value[1]
            value = value[3:]
        for part in value:
            yield from _tensors(part, owner)
