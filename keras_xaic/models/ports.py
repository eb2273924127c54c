"""What the inputs and outputs of a model are called, also where layers that gave them their names are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keras_xaic._keras import Model

_KEPT = "_xaic_ports"
"""Attribute of a model that was made from a user's: the names of that one's inputs and outputs."""


@dataclass(frozen=True)
class Ports:
    """Names of a model's inputs and outputs, in its order.

    Attributes:
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        keys: The keys, inputs and outputs, of the dictionaries that the model takes and gives; empty where it has none.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    keys: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def ports_of(model: Model) -> Ports:
    """Returns what the inputs and outputs of a model are called by its user."""
    kept = vars(model).get(_KEPT)
    if isinstance(kept, Ports) and (len(kept.inputs), len(kept.outputs)) == (len(model.inputs), len(model.outputs)):
        return kept
    keys = tuple(tuple(sorted(one)) if isinstance(one, Mapping) else () for one in (model.input, model.output))
    return Ports(tuple(model.input_names), tuple(model.output_names), (keys[0], keys[1]))


def keep_ports(model: Model, ports: Ports) -> None:
    """Remembers on a model that was made from another one what that one's inputs and outputs are called."""
    vars(model)[_KEPT] = ports
