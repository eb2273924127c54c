"""The tensor arena of TensorFlow Lite Micro, planned as its allocator does, from nothing but tensors and operators.

The arena has two ends. Activations and scratch memory lie at its head and share bytes when they are not needed at the same
time: a greedy planner places the largest first, each at the lowest offset that is free while it lives. What lives as long as
the interpreter grows from its tail: tensor structures, operators, what they remember, scales per channel. Preparing operators
and planning itself need memory in between for a moment, which decides for the smallest models.

Sizes of structures are those of a 64-bit build that records its allocations, the one that `keras_xaic.edge` measures with:
tflite-micro 0.dev20261023182759, against which `tests/planning/test_ram.py` holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

ALIGNMENT = 16
"""Bytes to which buffers are aligned."""
INTERPRETER_BYTES = 488
"""The allocator, the planner and the list of subgraphs."""
TENSOR_BYTES = 64
"""A tensor with all its properties: inputs and outputs of the model, and those of the operator that is being prepared."""
EVAL_TENSOR_BYTES = 24
"""A tensor as operators see it when they run."""
QUANTIZATION_BYTES = 24
"""A record of steps, without its zero points."""
NODE_BYTES = 64
"""An operator."""
POINTER_BYTES = 8
REQUEST_BYTES, REQUESTS_AHEAD = 16, 12
"""A request for scratch memory, and how many the next operator may make."""
LIFETIME_BYTES = 32
"""What is noted of every tensor and scratch buffer while memory is planned."""
PLANNED_BYTES = 40
"""What the planner notes of every buffer that it places."""
DECODER_BYTES = 80
"""What the DECODE operator remembers of a tensor, at most."""
LUT_BYTES = 2 * 513
"""One of the two lookup tables of SOFTMAX for int16."""
BITS = {"int4": 4, "int8": 8, "uint8": 8, "bool": 8, "int16": 16, "float16": 16, "int32": 32, "float32": 32, "int64": 64}
"""Bits of a value of the types that TensorFlow Lite Micro knows."""


@dataclass(frozen=True)
class ArenaTensor:
    """A tensor.

    Attributes:
        shape: Its shape, with batch.
        dtype: ``int8``, ``int16``, ``float32``, ``int4``, ...
        steps: How many quantization steps it has; 0 for a tensor that is not quantized.
        constant: Whether its values are in the file.
        variable: Whether it keeps a state.
    """

    shape: tuple[int, ...]
    dtype: str = "int8"
    steps: int = 1
    constant: bool = False
    variable: bool = False

    @property
    def values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the arena; unpacked values of 4 bits take half a byte each."""
        return (self.values * BITS.get(self.dtype, 32) + 7) // 8


@dataclass(frozen=True)
class ArenaOperator:
    """An operator: its name in TFLite and the places of the tensors that it reads (-1: left out) and writes."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ArenaGraph:
    """A model as TensorFlow Lite Micro sees it: tensors, operators in order, places of the inputs and outputs."""

    tensors: tuple[ArenaTensor, ...]
    operators: tuple[ArenaOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ArenaUse:
    """What a model needs of RAM, in bytes.

    Attributes:
        head: Activations and scratch memory.
        tail: What lives as long as the interpreter.
        preparing: Largest need while the model is prepared, when it does not run yet.
    """

    head: int
    tail: int
    preparing: int

    @property
    def minimum(self) -> int:
        """The smallest arena with which the model runs, a multiple of `ALIGNMENT`."""
        return _aligned(max(self.head + self.tail, self.preparing))


@dataclass(frozen=True)
class Buffer:
    """Memory that is needed from one operator to another, both included."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class _Structures:
    """Bytes of an operator's options, and of what it remembers."""

    options: int = 16
    state: int = 48


_STRUCTURES = {
    "ADD": _Structures(8, 60),
    "AVERAGE_POOL_2D": _Structures(40, 32),
    "CONCATENATION": _Structures(8, 80),
    "CONV_2D": _Structures(28, 80),
    "CUSTOM:TFLM_DECODE": _Structures(0, 0),
    "DEPTHWISE_CONV_2D": _Structures(28, 80),
    "DEQUANTIZE": _Structures(0, 24),
    "ELU": _Structures(0, 256),
    "FULLY_CONNECTED": _Structures(32, 72),
    "LEAKY_RELU": _Structures(4, 24),
    "LOGISTIC": _Structures(0, 16),
    "MAX_POOL_2D": _Structures(40, 32),
    "MEAN": _Structures(16, 44),
    "MUL": _Structures(4, 36),
    "PAD": _Structures(0, 56),
    "PRELU": _Structures(0, 28),
    "QUANTIZE": _Structures(0, 32),
    "REDUCE_MAX": _Structures(1, 44),
    "RELU": _Structures(0, 16),
    "RESHAPE": _Structures(36, 0),
    "RESIZE_BILINEAR": _Structures(2, 0),
    "RESIZE_NEAREST_NEIGHBOR": _Structures(2, 0),
    "SOFTMAX": _Structures(8, 80),
    "STRIDED_SLICE": _Structures(24, 84),
    "SUB": _Structures(8, 52),
    "TANH": _Structures(0, 16),
    "TRANSPOSE_CONV": _Structures(20, 88),
}
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0}
_WEIGHTED = (*_CHANNEL_AXIS, "FULLY_CONNECTED")


def plan_arena(graph: ArenaGraph) -> ArenaUse:
    """Returns what a model needs of RAM under TensorFlow Lite Micro.

    Operators that are not known by name count as ones of mean size without scratch memory.

    Args:
        graph: The model.
    """
    tail, preparing, scratch = _Tail(INTERPRETER_BYTES), 0, list[Buffer]()
    tail.add(EVAL_TENSOR_BYTES * len(graph.tensors), POINTER_BYTES)
    tail.add(NODE_BYTES * len(graph.operators), POINTER_BYTES)
    structures = [_STRUCTURES.get(operator.name, _Structures()) for operator in graph.operators]
    for one in structures:
        tail.add(one.options, 4)
    for one in structures:
        tail.add(one.state, ALIGNMENT)
    for number, operator in enumerate(graph.operators, 1):
        requests = REQUEST_BYTES * (len(scratch) + REQUESTS_AHEAD)
        for size in _remembered(graph, operator):
            tail.add(size, ALIGNMENT)
        preparing = max(preparing, requests + sum(map(_tensor_bytes, _looked_at(graph, operator))) + tail.size)
        scratch += [Buffer(_aligned(size), number, number) for size in _scratch(graph, operator)]
    tail.add(POINTER_BYTES * len(scratch), POINTER_BYTES)
    for tensor in graph.tensors:
        if tensor.variable:
            tail.add(tensor.bytes, ALIGNMENT)
    buffers = [*activations(graph), *scratch]
    notes = _aligned(REQUEST_BYTES * (len(scratch) + REQUESTS_AHEAD) + POINTER_BYTES)
    notes += LIFETIME_BYTES * (len(graph.tensors) + len(scratch)) + PLANNED_BYTES * len(buffers)
    preparing = max(preparing, notes + tail.size)
    for ends in (graph.inputs, graph.outputs):
        tail.add(POINTER_BYTES * len(ends), ALIGNMENT)
        for place in ends:
            tail.add(_tensor_bytes(graph.tensors[place]), POINTER_BYTES)
    return ArenaUse(place_buffers(buffers), _aligned(tail.size), preparing)


def activations(graph: ArenaGraph) -> list[Buffer]:
    """Returns the tensors that are computed, with the operators (counted from 1) between which each is needed."""
    first: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    last = dict(first)
    for number, operator in enumerate(graph.operators, 1):
        for place in operator.outputs:
            first[place] = last[place] = number
        for place in operator.inputs:
            if place in first:
                last[place] = number
    last.update((place, len(graph.operators)) for place in graph.outputs)
    return [
        Buffer(_aligned(tensor.bytes), first[place], last[place])
        for place, tensor in enumerate(graph.tensors)
        if place in first and tensor.bytes and not tensor.constant and not tensor.variable
    ]


def place_buffers(buffers: Sequence[Buffer]) -> int:
    """Returns the bytes that buffers take when the largest are placed first, each as low as those of its time allow.

    Args:
        buffers: What is to be placed; of equally large ones the last comes first.
    """
    placed: list[tuple[int, Buffer]] = []  # by offset
    for _, buffer in sorted(enumerate(buffers), key=lambda one: (-one[1].size, -one[0])):
        offset = 0
        for start, other in placed:
            if other.first > buffer.last or buffer.first > other.last:
                continue
            if start - offset >= buffer.size:
                break
            offset = max(offset, start + other.size)
        placed.append((offset, buffer))
        placed.sort(key=lambda one: one[0])
    return max((offset + buffer.size for offset, buffer in placed), default=0)


class _Tail:
    """What grows from the end of the arena: bytes used so far."""

    def __init__(self, size: int) -> None:
        self.size = size

    def add(self, size: int, alignment: int) -> None:
        """Takes `size` bytes that begin at a multiple of `alignment`."""
        if size:
            self.size = _aligned(self.size + size, alignment)


def _looked_at(graph: ArenaGraph, operator: ArenaOperator) -> Iterator[ArenaTensor]:
    """Yields the tensors that have all their properties at one time to prepare an operator; convolutions read them twice."""
    places = [*operator.inputs, *operator.outputs]
    if operator.name in _CHANNEL_AXIS:
        places += [*operator.inputs[:2], *operator.outputs]
    yield from (graph.tensors[place] for place in places if place >= 0)


def _remembered(graph: ArenaGraph, operator: ArenaOperator) -> Iterator[int]:
    """Yields the sizes of what an operator keeps beside its state: multipliers and shifts per channel, lookup tables."""
    weights = _weights(graph, operator)
    if weights is not None:
        axis = _CHANNEL_AXIS.get(operator.name)
        channels = weights.shape[axis] if axis is not None else weights.steps if weights.steps > 1 else 0
        yield from (4 * channels, 4 * channels)
    if operator.name == "SOFTMAX" and graph.tensors[operator.inputs[0]].dtype == "int16":
        yield from (LUT_BYTES, LUT_BYTES)
    if operator.name == "CUSTOM:TFLM_DECODE":
        yield from (POINTER_BYTES * len(operator.outputs), *[DECODER_BYTES] * len(operator.outputs))


def _scratch(graph: ArenaGraph, operator: ArenaOperator) -> Iterator[int]:
    """Yields the sizes of memory that an operator needs only while it runs."""
    if not operator.outputs:  # it writes a variable
        return
    weights = _weights(graph, operator)
    if weights is not None and weights.dtype == "int4":
        yield weights.values
    output = graph.tensors[operator.outputs[0]]
    if operator.name == "TRANSPOSE_CONV" and output.dtype in ("int8", "int16"):
        yield output.values * (4 if output.dtype == "int8" else 8)
    if operator.name == "MEAN":
        yield output.values * 4
    if operator.name == "REDUCE_MAX":
        yield 4 * len(graph.tensors[operator.inputs[0]].shape)
        yield 4 * graph.tensors[operator.inputs[1]].values


def _weights(graph: ArenaGraph, operator: ArenaOperator) -> Optional[ArenaTensor]:
    return graph.tensors[operator.inputs[1]] if operator.name in _WEIGHTED else None


def _tensor_bytes(tensor: ArenaTensor) -> int:
    """A tensor with its record of steps, of which the zero points are copied."""
    return TENSOR_BYTES + (QUANTIZATION_BYTES + _aligned(4 + 4 * tensor.steps, 8) if tensor.steps else 0)


def _aligned(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment
