"""Residual branches: what may be taken out whole, because the sum that it goes into also has what it began with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Optional

from keras_xaic._keras import Layer, layers
from keras_xaic.errors import PlanError
from keras_xaic.models.kernels import layer_kernels
from keras_xaic.models.operations import Operation, Operations, activation_name, symbol_of

SUMS = ("add", "add_v2")
"""Last parts of the names of functions that add two tensors (``a + b`` is ``__operators__.add``)."""


@dataclass(frozen=True)
class Branch:
    """The operations f of a sum ``x + f(x)`` that nothing else needs.

    Attributes:
        name: Name of the sum; where several of its terms are branches, followed by the term's number (``add:1``).
        sum: Name of the sum's operation.
        term: Key of the tensor f(x).
        trunk: Key of the tensor x.
        operations: Names of the operations of f.
        layers: Paths of its layers with weights that are multiplied, in network order.
    """

    name: str
    sum: str
    term: str
    trunk: str
    operations: frozenset[str]
    layers: tuple[str, ...]


def residual_branches(operations: Operations) -> dict[str, Branch]:
    """Returns the residual branches of a model by name, in network order; one may lie within another.

    A branch is a term of a sum that is made from another term of the same sum and from nothing else, by operations that nothing
    else needs. Both terms have the shape of the sum. Layers that work outside of it, too, outputs of the model and the sum that
    is the model's output are never taken out.
    """
    found: dict[str, Branch] = {}
    for operation in operations:
        if not _is_sum(operation) or set(operation.outputs) & set(operations.outputs):
            continue
        numbers = [number for number in range(len(operation.inputs)) if _branch(operations, operation, number) is not None]
        for number in numbers:
            name = operation.name if len(numbers) == 1 else f"{operation.name}:{number}"
            branch = _branch(operations, operation, number, name)
            assert branch is not None
            found[name] = branch
    return found


def taken_out(operations: Operations, names: Iterable[str]) -> tuple[set[str], dict[str, list[str]]]:
    """Returns the operations that go with branches, and the name of every sum that loses terms -> keys of those that stay.

    Raises:
        PlanError: If the model has no such branch.
    """
    branches, gone, left = residual_branches(operations), set[str](), dict[str, list[str]]()
    for name in names:
        if name not in branches:
            known = f"one of {', '.join(branches)}" if branches else "none: this model has no residual branch"
            raise PlanError(f"there is no residual branch {name!r}", known)
        branch = branches[name]
        inputs = next(one.inputs for one in operations if one.name == branch.sum)
        gone |= branch.operations
        left[branch.sum] = [key for key in left.get(branch.sum, inputs) if key != branch.term]
    return gone, {name: keys for name, keys in left.items() if name not in gone}


def repeats(operation: Operation, made_by: Optional[Operation]) -> bool:
    """Returns whether an operation changes nothing, because what made its input cuts values off in the same way."""
    return made_by is not None and _cut(operation.layer) in _kept_by(made_by.layer) and not operation.layer.weights


def check_branches(operations: Operations, planned: Mapping[str, Iterable[str]]) -> None:
    """Refuses branches that the model does not have, or that are others than they are said to be.

    Args:
        operations: The model.
        planned: Name of a branch -> paths of its layers, as in `Plan.branches`.

    Raises:
        PlanError: Naming the branch.
    """
    taken_out(operations, planned)
    branches = residual_branches(operations)
    for name, paths in planned.items():
        if tuple(paths) != branches[name].layers:
            raise PlanError(
                f"the plan takes out the branch {name!r} with the layers {', '.join(paths) or 'none'}",
                ", ".join(branches[name].layers),
            )


def _is_sum(operation: Operation) -> bool:
    if isinstance(operation.layer, layers.Add):
        return type(operation.layer) is layers.Add
    symbol = symbol_of(operation.layer)
    return symbol is not None and symbol.split(".")[-1] in SUMS and len(operation.inputs) == 2


def _branch(operations: Operations, operation: Operation, number: int, name: str = "") -> Optional[Branch]:
    term, others = operation.inputs[number], [*operation.inputs[:number], *operation.inputs[number + 1 :]]
    if term in others:
        return None
    inside = _needed_by(operations, operation, term)
    made = {key for one in inside for key in one.outputs}
    sources = {key for one in inside for key in one.inputs} - made
    paths = {one.path for one in inside}
    shared = any(one.path in paths and one not in inside for one in operations)
    if shared or len(sources) != 1 or not sources <= set(others):
        return None
    (trunk,) = sources
    shape = operations.shapes[operation.outputs[0]]
    weighted = tuple(dict.fromkeys(one.path for one in inside if layer_kernels(one.layer, one.path)))
    if not weighted or operations.shapes[trunk] != shape or operations.shapes[term] != shape:
        return None
    return Branch(name, operation.name, term, trunk, frozenset(one.name for one in inside), weighted)


def _needed_by(operations: Operations, last: Operation, term: str) -> list[Operation]:
    """Returns the operations that only serve to make one term of a sum, in network order."""
    inside: dict[str, Operation] = {}
    for operation in reversed(list(operations)):
        readers = [(key, reader.name) for key in operation.outputs for reader in operations.consumers[key]]
        used = any(name in inside or (key, name) == (term, last.name) for key, name in readers)
        alone = all(name in inside or (key, name) == (term, last.name) for key, name in readers)
        if used and alone and not set(operation.outputs) & set(operations.outputs):
            inside[operation.name] = operation
    return list(reversed(inside.values()))


def _cut(layer: Layer) -> Optional[str]:
    """Returns the name of the function that is all that a layer does, if it cuts values off."""
    if isinstance(layer, layers.ReLU):
        plain = float(layer.negative_slope or 0.0) == float(layer.threshold or 0.0) == 0.0
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value if plain else -1.0)
    name = activation_name(layer) if isinstance(layer, layers.Activation) else (symbol_of(layer) or "").split(".")[-1]
    return name if name in ("relu", "relu6") else None


def _kept_by(layer: Layer) -> tuple[str, ...]:
    """Returns the names of functions that change nothing about what a layer makes."""
    name = _cut(layer) or activation_name(layer)
    return {"relu": ("relu",), "relu6": ("relu", "relu6")}.get(name or "", ())
