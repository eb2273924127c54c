"""Reads what a .tflite file declares (graph, tensors, operators, buffers) without TensorFlow and without trusting the file."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from keras_xaic.arguments import keyword_only
from keras_xaic.edge.operators import operator_name
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.files import PathLike, unreadable

# TensorType numbers of the schema: name and bits per value; 0 bits where a value has no fixed size.
TENSOR_TYPES: dict[int, tuple[str, int]] = {
    0: ("float32", 32),
    1: ("float16", 16),
    2: ("int32", 32),
    3: ("uint8", 8),
    4: ("int64", 64),
    5: ("string", 0),
    6: ("bool", 8),
    7: ("int16", 16),
    8: ("complex64", 64),
    9: ("int8", 8),
    10: ("float64", 64),
    11: ("complex128", 128),
    12: ("uint64", 64),
    13: ("resource", 0),
    14: ("variant", 0),
    15: ("uint32", 32),
    16: ("uint16", 16),
    17: ("int4", 4),
    18: ("bfloat16", 16),
    19: ("int2", 2),
}


@keyword_only(after=0)
@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the file declares it.

    Attributes:
        name: May be empty: names can be stripped.
        shape: Declared shape.
        signature: The shape with -1 where it is free; the shape itself where nothing is free.
        dtype: ``float32``, ``int8``, ``int4``, ...
        bits: Bits per value; 0 where a value has no fixed size.
        buffer: Index of its buffer; 0 is the empty one.
        scales: (0,), (1,) or (channels,) float32.
        zero_points: As `scales`, int64.
        quantized_dimension: Axis of the channels of `scales`.
        variable: Whether it keeps a state.
        sparse: Whether its buffer is in TFLite's sparse format.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    bits: int
    buffer: int
    scales: np.ndarray
    zero_points: np.ndarray
    quantized_dimension: int
    variable: bool
    sparse: bool

    @property
    def bytes_needed(self) -> Optional[int]:
        """Bytes that the values take, packed; None where that is not fixed."""
        values = int(np.prod(self.shape, dtype=np.int64))
        return (values * self.bits + 7) // 8 if self.bits else None


@dataclass(frozen=True)
class OperatorInfo:
    """One operator: its name, version and the tensors it reads (-1: left out) and writes."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One subgraph."""

    tensors: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def depending(self) -> tuple[int, ...]:
        """Numbers of the operators whose results depend on an input or a state, in order of execution."""
        reached = {*self.inputs, *(number for number, tensor in enumerate(self.tensors) if tensor.variable)}
        found = []
        for number, operator in enumerate(self.operators):
            if not reached.isdisjoint(operator.inputs):
                reached.update(operator.outputs)
                found.append(number)
        return tuple(found)


@dataclass(frozen=True)
class FileInfo:
    """What a .tflite file declares.

    Attributes:
        name: The file's name, for messages.
        content: The bytes.
        graphs: The first is the main one.
        buffers: ``(start, length)`` of each buffer in `content`.
    """

    name: str
    content: bytes
    graphs: tuple[GraphInfo, ...]
    buffers: tuple[tuple[int, int], ...]

    @property
    def main(self) -> GraphInfo:
        """The main graph."""
        return self.graphs[0]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The main graph's inputs."""
        return tuple(self.main.tensors[i] for i in self.main.inputs)

    @property
    def keeps_state(self) -> bool:
        """Whether a call depends on the calls before it, until the interpreter is told to forget them."""
        return any(tensor.variable for graph in self.graphs for tensor in graph.tensors)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The main graph's outputs."""
        return tuple(self.main.tensors[i] for i in self.main.outputs)

    @property
    def operators(self) -> tuple[str, ...]:
        """Operator names of the main graph, in order of execution."""
        return tuple(operator.name for operator in self.main.operators)

    def data(self, tensor: TensorInfo) -> np.ndarray:
        """Returns the bytes stored for `tensor`, uint8 (n,); empty where it is computed."""
        start, length = self.buffers[tensor.buffer]
        return np.frombuffer(self.content, np.uint8, length, start)


def read_file(path: PathLike) -> FileInfo:
    """Reads a .tflite file.

    Args:
        path: The file.

    Raises:
        DataError: If there is no such file.
        MachineError: If it may not be read.
        EdgeError: If it is not a TFLite flatbuffer, or damaged so that it cannot be read to its end.
    """
    where = pathlib.Path(path)
    try:
        with where.open("rb") as file:
            known = file.read(8)[4:] == b"TFL3"
        content = where.read_bytes() if known and where.stat().st_size < 2**31 else b""
    except OSError as error:
        raise unreadable(error) or DataError(f"{where} cannot be read ({error.strerror})", "a .tflite file") from None
    if not content:
        raise EdgeError(f"{where.name} is not a TFLite file", "the bytes TFL3 at offset 4", "Copy or export it again")
    try:
        return _read(where.name, content)
    except _Outside as error:
        raise EdgeError(
            f"{where.name} is damaged or cut short: {error} of {len(content):,}", "", "Copy or export it again"
        ) from None


class _Outside(Exception):
    """The file points outside itself."""


LEAST_ENTRIES = 1_000_000
"""Entries of lists that may be read of any file; of a large one half as many as it has bytes, since lists may be shared."""


class Table:
    """A flatbuffer table: fields by number, every offset checked against the file, and so is how much is read in all."""

    def __init__(self, content: bytes, position: int, left: Optional[list[int]] = None) -> None:
        self.content, self.position = content, position
        self.left = [LEAST_ENTRIES + len(content) // 2] if left is None else left
        self.fields = position - self.number("i", position)
        self.size = self.number("H", self.fields)

    @classmethod
    def root(cls, content: bytes) -> Table:
        """Returns the table that holds the whole file."""
        return cls(content, struct.unpack_from("<I", content)[0])

    def number(self, kind: str, position: int) -> int:
        """Returns the integer (or float) of `struct` format `kind` at `position`."""
        size = struct.calcsize("<" + kind)
        if position < 0 or position + size > len(self.content):
            raise _Outside(f"an offset leads to byte {position:,}")
        value: int = struct.unpack_from("<" + kind, self.content, position)[0]
        return value

    def find(self, field: int) -> int:
        """Returns the position of `field`, 0 where it is absent."""
        entry = 4 + 2 * field
        offset = self.number("H", self.fields + entry) if entry + 2 <= self.size else 0
        return self.position + offset if offset else 0

    def get(self, field: int, kind: str, default: int = 0) -> int:
        """Returns a scalar field."""
        position = self.find(field)
        return self.number(kind, position) if position else default

    def span(self, field: int, size: int) -> tuple[int, int]:
        """Returns ``(start, entries)`` of a vector with entries of `size` bytes; ``(0, 0)`` where it is absent."""
        position = self.find(field)
        if not position:
            return 0, 0
        position += self.number("I", position)
        count = self.number("I", position)
        if position + 4 + count * size > len(self.content):
            raise _Outside(f"a list of {count:,} entries at byte {position:,} ends at byte {position + 4 + count * size:,}")
        return position + 4, count

    def spend(self, count: int) -> None:
        """Counts entries that are read: a small file whose tables share large lists would take all memory."""
        self.left[0] -= count
        if self.left[0] < 0:
            raise _Outside("lists that are used again and again have more entries than belong in a file")

    def array(self, field: int, dtype: str) -> np.ndarray:
        """Returns a vector of numbers."""
        start, count = self.span(field, np.dtype(dtype).itemsize)
        self.spend(count)
        return np.frombuffer(self.content, dtype, count, start)

    def text(self, field: int) -> str:
        """Returns a string field."""
        start, count = self.span(field, 1)
        self.spend(count)
        return self.content[start : start + count].decode("utf-8", "replace")

    def table(self, field: int) -> Optional[Table]:
        """Returns a nested table."""
        position = self.find(field)
        return Table(self.content, position + self.number("I", position), self.left) if position else None

    def tables(self, field: int) -> Iterator[Table]:
        """Yields the tables of a vector."""
        start, count = self.span(field, 4)
        for position in range(start, start + 4 * count, 4):
            self.spend(1)
            yield Table(self.content, position + self.number("I", position), self.left)


def _read(name: str, content: bytes) -> FileInfo:
    """Field numbers are those of TensorFlow's schema.fbs."""
    model = Table.root(content)
    codes = []
    for code in model.tables(1):
        number = max(code.get(0, "b"), code.get(3, "i"))  # old files have only the byte, new ones both
        codes.append((operator_name(number, code.text(1)), code.get(2, "i", 1)))
    graphs = tuple(_read_graph(graph, codes) for graph in model.tables(2))
    buffers = tuple(_read_buffer(buffer) for buffer in model.tables(4))
    if not graphs:
        raise _Outside("it holds no graph")
    return FileInfo(name, content, graphs, buffers)


def _read_buffer(buffer: Table) -> tuple[int, int]:
    outside, size = buffer.get(1, "Q"), buffer.get(2, "Q")
    if outside <= 1:
        return buffer.span(0, 1)
    if outside + size > len(buffer.content):
        raise _Outside(f"a buffer ends at byte {outside + size:,}")
    return outside, size


def _read_graph(graph: Table, codes: list[tuple[str, int]]) -> GraphInfo:
    operators: list[OperatorInfo] = []
    for operator in graph.tables(3):
        code = operator.get(0, "I")
        if code >= len(codes):
            raise _Outside(f"operator {len(operators)} is of kind {code:,}")
        operators.append(OperatorInfo(*codes[code], _integers(operator, 1), _integers(operator, 2)))
    tensors = tuple(_read_tensor(tensor) for tensor in graph.tables(0))
    return GraphInfo(tensors, tuple(operators), _integers(graph, 1), _integers(graph, 2))


def _read_tensor(tensor: Table) -> TensorInfo:
    number = tensor.get(1, "b")
    dtype, bits = TENSOR_TYPES.get(number, (f"type {number}", 0))
    quantization = tensor.table(4)
    shape = _integers(tensor, 0)
    return TensorInfo(
        name=tensor.text(3),
        shape=shape,
        signature=_integers(tensor, 7) or shape,
        dtype=dtype,
        bits=bits,
        buffer=tensor.get(2, "I"),
        scales=quantization.array(2, "<f4") if quantization else np.zeros(0, np.float32),
        zero_points=quantization.array(3, "<i8") if quantization else np.zeros(0, np.int64),
        quantized_dimension=quantization.get(6, "i") if quantization else 0,
        variable=bool(tensor.get(5, "B")),
        sparse=bool(tensor.find(6)),
    )


def _integers(table: Table, field: int) -> tuple[int, ...]:
    return tuple(int(n) for n in table.array(field, "<i4"))
