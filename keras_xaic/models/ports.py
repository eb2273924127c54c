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
        layers: What inputs and outputs are called by the layers that they belong to, where a model takes or gives
            dictionaries, whose keys come first; empty where it does not.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def ports_of(model: Model) -> Ports:
    """Returns what the inputs and outputs of a model are called by its user."""
    kept = vars(model).get(_KEPT)
    if isinstance(kept, Ports) and (len(kept.inputs), len(kept.outputs)) == (len(model.inputs), len(model.outputs)):
        return kept
    names, also = [], []
    for structure, given in ((model.input, model.input_names), (model.output, model.output_names)):
        has_keys = isinstance(structure, Mapping) and len(structure) == len(given)
        names.append(tuple(map(str, sorted(structure))) if has_keys else tuple(given))
        also.append(tuple(given) if has_keys else ())
    return Ports(names[0], names[1], (also[0], also[1]))


def keep_ports(model: Model, ports: Ports) -> None:
    """Remembers on a model that was made from another one what that one's inputs and outputs are called."""
    vars(model)[_KEPT] = ports
