"""Values that masks put in place of what must not count, -1e9 for example, brought near enough for integers.

One scale holds for all codes of a tensor: with -1e9 in it, everything else has the same code, and attention weighs all that it
may see alike. What is far below the largest value of its row has a weight of 0 anyway; so the masks' values are moved to just
there, as calibration data tells, and what is smaller still is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_xaic._keras import tf
from keras_xaic.models.masking import FAR
from keras_xaic.tflite.converter import Graph, function_of

_MARGINS = {"Softmax": 16.0, "Max": 0.0, "ArgMax": 0.0, "Sigmoid": 16.0, "Exp": 16.0, "Relu": 0.0}
"""Operations that large values decide -> how far below the largest nothing counts; a weight of ``exp(-16)`` is 1e-7."""
_SINGLE = ("Sigmoid", "Exp", "Relu")
"""Those of them that see one value at a time: each is the largest of its row, and nothing counts below 0 less the margin."""
_MAKING = frozenset(("Add", "AddV2", "BroadcastTo", "Cast", "ExpandDims", "Identity", "Mul", "Neg", "RealDiv", "Reshape"))
_MAKING |= {"Select", "SelectV2", "Squeeze", "Sub", "Tile", "Transpose"}
"""Operations that masks are made of and laid on scores with."""
_TOLERANCE = 1e-4
Samples = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class _Decider:
    """An operation whose largest inputs decide.

    Attributes:
        name: Of its node.
        source: The tensor that it reads.
        axes: That the largest value is sought along; none where each value is by itself.
        margin: See `_MARGINS`.
        constants: Names of constants with values of masks that the tensor is made of.
    """

    name: str
    source: str
    axes: tuple[int, ...]
    margin: float
    constants: frozenset[str]


def with_near_masks(graph: Graph, samples: Samples) -> Graph:
    """Returns the graph with values of masks that integers can hold, or itself where it has no others.

    Args:
        graph: A traced model.
        samples: Calibration data, an array with a batch of 1 per input for each.

    Returns:
        A graph with the same outputs for these samples, but for 1e-4 of the largest.
    """
    definition = tf.compat.v1.GraphDef.FromString(graph.content)
    far = dict(_far_constants(definition))
    deciders = list(_deciders(definition, far))
    if not deciders or not samples:
        return graph
    bounds = _bounds(graph, deciders, far, samples)
    if not bounds:
        return graph
    reach: dict[str, float] = {}
    for one, (floor, highest) in bounds.items():
        for name in one.constants:
            reach[name] = max(reach.get(name, 0.0), float(np.ceil(highest - floor)))
    near = {name: np.where(np.abs(far[name]) >= FAR, np.sign(far[name]) * size, far[name]) for name, size in reach.items()}
    moved = _with_constants(graph, near)
    wanted = list(_run(graph, graph.outputs, samples))
    for made in (_with_floors(moved, {one.name: floor for one, (floor, _) in bounds.items()}), moved):
        if _are_alike(wanted, _run(made, graph.outputs, samples)):
            return made
    return graph


def _far_constants(definition: Any) -> Iterator[tuple[str, np.ndarray]]:
    for node in definition.node:
        if node.op == "Const" and tf.dtypes.as_dtype(node.attr["dtype"].type) == tf.float32:
            values = tf.make_ndarray(node.attr["value"].tensor)
            if values.size and np.max(np.abs(values)) >= FAR:
                yield node.name, values


def _deciders(definition: Any, far: dict[str, np.ndarray]) -> Iterator[_Decider]:
    nodes = {node.name: node for node in definition.node}
    for node in definition.node if far else ():
        if node.op not in _MARGINS:
            continue
        axes: Any = () if node.op in _SINGLE else -1
        if node.op in ("Max", "ArgMax"):
            where = nodes[_node_name(node.input[1])]
            if where.op != "Const":
                continue
            axes = tf.make_ndarray(where.attr["value"].tensor)
        found, waiting = set(), [node.input[0]]
        seen: set[str] = set()
        while waiting:
            name = _node_name(waiting.pop())
            if name in far:
                found.add(name)
            elif name not in seen and nodes[name].op in _MAKING:
                seen.add(name)
                waiting.extend(one for one in nodes[name].input if not one.startswith("^"))
        if found:
            yield _Decider(node.name, node.input[0], tuple(map(int, np.ravel(axes))), _MARGINS[node.op], frozenset(found))


def _bounds(
    graph: Graph, deciders: Sequence[_Decider], far: dict[str, np.ndarray], samples: Samples
) -> dict[_Decider, tuple[float, float]]:
    """Returns below what nothing counts, and the largest value that a mask has to bring there."""
    sources = [one.source for one in deciders]
    names = {name for one in deciders for name in one.constants}
    without = _with_constants(graph, {name: np.where(np.abs(far[name]) >= FAR, 0, far[name]) for name in names})
    least, highest = dict.fromkeys(deciders, np.inf), dict.fromkeys(deciders, 0.0)
    for masked, free in zip(_run(graph, sources, samples), _run(without, sources, samples)):
        for one, values, all_values in zip(deciders, masked, free):
            tops = np.max(np.where(values > -FAR / 2, values, -np.inf), axis=one.axes)
            least[one] = min(least[one], float(np.min(tops, initial=np.inf, where=np.isfinite(tops))))
            highest[one] = max(highest[one], float(np.max(all_values)))
    floors = {one: (least[one] if one.axes else min(least[one], 0.0)) - one.margin for one in deciders}
    return {one: (floor, highest[one]) for one, floor in floors.items() if highest[one] - floor < FAR}


def _with_constants(graph: Graph, values: dict[str, np.ndarray]) -> Graph:
    definition = tf.compat.v1.GraphDef.FromString(graph.content)
    for node in definition.node:
        if node.name in values:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[node.name].astype(np.float32)))
    return replace(graph, content=definition.SerializeToString(deterministic=True))


def _with_floors(graph: Graph, floors: dict[str, float]) -> Graph:
    """Returns the graph with nothing below its floor in what deciders read: what is masked entirely stays equal."""
    definition = tf.compat.v1.GraphDef.FromString(graph.content)
    for node in [node for node in definition.node if node.name in floors]:
        value = definition.node.add(op="Const", name=f"{node.name}/floor/value")
        value.attr["dtype"].type = tf.float32.as_datatype_enum
        value.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(floors[node.name])))
        floor = definition.node.add(op="Maximum", name=f"{node.name}/floor", input=[node.input[0], value.name])
        floor.attr["T"].type = tf.float32.as_datatype_enum
        node.input[0] = floor.name
    return replace(graph, content=definition.SerializeToString(deterministic=True))


def _run(graph: Graph, fetched: Sequence[str], samples: Samples) -> Iterator[list[np.ndarray]]:
    function = function_of(replace(graph, outputs=tuple(name if ":" in name else f"{name}:0" for name in fetched)))
    for sample in samples:
        yield [np.asarray(one) for one in function(*map(tf.constant, sample))]


def _are_alike(wanted: list[list[np.ndarray]], found: Iterator[list[np.ndarray]]) -> bool:
    sizes = [max(float(np.max(np.abs(one), initial=0)) for one in output) for output in zip(*wanted)]
    return all(
        np.allclose(a, b, 0, _TOLERANCE * size, equal_nan=True)
        for one, other in zip(wanted, found)
        for a, b, size in zip(one, other, sizes)
    )


def _node_name(tensor: str) -> str:
    return tensor.partition(":")[0]
