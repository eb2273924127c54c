"""A .tflite file as objects: operators, constants, operator versions.

The object API is TensorFlow's generated schema: `model.subgraphs[0].tensors[i].quantization.scale` and so on.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic._keras import tf
from keras_xaic.errors import ExportError
from keras_xaic.tflite.packing import SharingBuilder

schema: Any = importlib.import_module(f"{tf.__name__}.lite.python.schema_py_generated")
IDENTIFIER = b"TFL3"
TensorType = schema.TensorType
INT2 = 19
"""The type of two bits, which schemas of older releases do not name."""
_PACKED = {int(TensorType.INT4): 4, INT2: 2}
"""Types whose values share bytes -> bits of each."""
BuiltinOperator = schema.BuiltinOperator
if TYPE_CHECKING:  # the generated schema has no types: these say which of its objects comes

    class _Object:
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: object) -> None: ...

    class ModelT(_Object):
        """A whole file (`schema.ModelT`)."""

    class SubGraphT(_Object):
        """A graph of a file (`schema.SubGraphT`)."""

    class TensorT(_Object):
        """A tensor of a file (`schema.TensorT`)."""

    class OperatorT(_Object):
        """An operator of a file (`schema.OperatorT`)."""

    class QuantizationT(_Object):
        """Scales and zero points of a tensor (`schema.QuantizationParametersT`)."""

else:
    ModelT, SubGraphT, TensorT, OperatorT = schema.ModelT, schema.SubGraphT, schema.TensorT, schema.OperatorT
    QuantizationT = schema.QuantizationParametersT

_KINDS = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
_DTYPES: dict[int, Any] = {
    TensorType.FLOAT32: np.dtype("<f4"),
    TensorType.FLOAT16: np.dtype("<f2"),
    TensorType.FLOAT64: np.dtype("<f8"),
    TensorType.INT8: np.dtype("i1"),
    TensorType.UINT8: np.dtype("u1"),
    TensorType.INT16: np.dtype("<i2"),
    TensorType.INT32: np.dtype("<i4"),
    TensorType.INT64: np.dtype("<i8"),
    TensorType.BOOL: np.dtype("?"),
}


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        index: Place in the order of execution.
        kind: Name in the TFLite schema, e.g. ``CONV_2D``; ``CUSTOM:name`` for custom operators.
        model: The model it is part of (`schema.ModelT`).
        record: Its record in the file (`schema.OperatorT`).
        place: Number of its graph.
    """

    index: int
    kind: str
    model: ModelT
    record: OperatorT
    place: int = 0

    @property
    def graph(self) -> SubGraphT:
        """The graph that it is part of (`schema.SubGraphT`)."""
        graph: SubGraphT = self.model.subgraphs[self.place]
        return graph

    def input(self, position: int) -> Any:
        """Returns the input tensor (`schema.TensorT`) at `position`, None where there is none."""
        inputs = self.record.inputs
        absent = inputs is None or position >= len(inputs) or inputs[position] < 0
        return None if absent else self.graph.tensors[inputs[position]]

    def output(self, position: int = 0) -> TensorT:
        """Returns the output tensor (`schema.TensorT`) at `position`."""
        tensor: TensorT = self.graph.tensors[self.record.outputs[position]]
        return tensor


def load(content: bytes) -> ModelT:
    """Returns a .tflite file as objects (`schema.ModelT`).

    Raises:
        ExportError: If `content` is not a .tflite file.
    """
    if len(content) < 8 or bytes(content[4:8]) != IDENTIFIER:
        raise ExportError(f"{len(content)} bytes that are not a .tflite file", "a flatbuffer with the identifier TFL3")
    try:
        model: ModelT = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytes(content), 0))
    except Exception as error:  # the generated reader raises whatever a wrong offset leads to
        raise ExportError(f"a .tflite file that is damaged ({type(error).__name__}: {error})") from None
    if not model.subgraphs or not model.buffers or not model.operatorCodes:
        raise ExportError("a .tflite file without a graph", "one graph of operators")
    return model


def pack(model: ModelT) -> bytes:
    """Returns the objects as a .tflite file; the same objects always give the same bytes."""
    builder = SharingBuilder()
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def copied(model: ModelT) -> ModelT:
    """Returns a copy for edits in place; the bytes of constants, which edits replace, are those of the original."""
    return copy.deepcopy(model, {id(one.data): one.data for one in model.buffers if one.data is not None})


def with_outputs(model: ModelT, tensors: Sequence[int]) -> bytes:
    """Returns the file with these tensors as its outputs, which no operator writes over; `model` becomes that file.

    Some operators write their result over what they read, even where an interpreter is told to keep all tensors.
    """
    model.subgraphs[0].outputs = np.array(tensors, np.int32)
    model.signatureDefs = None  # they name the outputs that were
    return pack(model)


def operators(model: ModelT, graph: int = 0) -> Iterator[Operator]:
    """Yields the operators of a graph, of the main one unless another is asked for, in the order in which they run."""
    for index, record in enumerate(model.subgraphs[graph].operators or []):
        code = model.operatorCodes[record.opcodeIndex]
        kind = _KINDS.get(builtin_code(code), f"OPERATOR_{builtin_code(code)}")
        if kind == "CUSTOM":
            kind = f"CUSTOM:{code.customCode.decode()}"
        yield Operator(index, kind, model, record, graph)


def builtin_code(code: Any) -> int:
    """Returns the operator number of a `schema.OperatorCodeT` (files before schema 3a keep it in the deprecated field)."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def require_version(operator: Operator, version: int) -> None:
    """Raises the version of the operator's kind to at least `version`."""
    code = operator.model.operatorCodes[operator.record.opcodeIndex]
    code.version = max(code.version, version)


def constant(model: ModelT, tensor: TensorT) -> Optional[np.ndarray]:
    """Returns a constant tensor's values in its shape (packed ones as int8), None where they are computed or stored sparse.

    Raises:
        ExportError: If the stored bytes do not fill the shape: interpreters would read beyond them.
    """
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0 or tensor.sparsity is not None:
        return None
    shape = tuple(int(n) for n in tensor.shape) if tensor.shape is not None else ()
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.asarray(data, np.uint8)
    bits = _PACKED.get(tensor.type)
    if bits is not None:
        needed = -(-count * bits // 8)
    elif tensor.type in _DTYPES:
        needed = count * _DTYPES[tensor.type].itemsize
    else:
        return None
    if raw.size != needed:
        raise ExportError(f"tensor {name_of(tensor)!r} of shape {shape} is stored in {raw.size} bytes", f"{needed} bytes")
    if bits is not None:
        return unpack_bits(raw, count, bits).reshape(shape)
    return np.reshape(raw.view(_DTYPES[tensor.type]), shape)


def set_constant(model: ModelT, tensor: TensorT, values: np.ndarray, tensor_type: int) -> None:
    """Stores `values` (those of INT4 and INT2 as int8) in a buffer of the tensor's own, and sets the tensor's type."""
    if tensor_type in _PACKED:
        raw = pack_bits(values, _PACKED[tensor_type])
    else:
        raw = np.frombuffer(np.ascontiguousarray(values, _DTYPES[tensor_type]).tobytes(), np.uint8)
    if sum(other.buffer == tensor.buffer for graph in model.subgraphs for other in graph.tensors) > 1:
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT())
    model.buffers[tensor.buffer].data = raw
    tensor.type = tensor_type


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Packs integers of 4 or 2 bits, row-major, the first in the lowest bits of a byte; the last byte is filled up with 0."""
    flat, largest = np.asarray(values, np.int8).ravel(), 2 ** (bits - 1)
    if flat.size and (flat.min() < -largest or flat.max() >= largest):
        found = f"integers from {flat.min()} to {flat.max()} do not fit {bits} bits"
        raise ExportError(found, f"integers within -{largest}..{largest - 1}")
    together = 8 // bits
    padded = np.append(flat, np.zeros(-flat.size % together, np.int8)).view(np.uint8).reshape(-1, together) & (2**bits - 1)
    shifted = padded << (bits * np.arange(together, dtype=np.uint8))
    return np.asarray(np.bitwise_or.reduce(shifted, axis=1), np.uint8)


def unpack_bits(packed: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Reads `count` integers that `pack_bits` packed, int8."""
    raw = np.asarray(packed, np.uint8)[:, None]
    raised = raw << (8 - bits - bits * np.arange(8 // bits, dtype=np.uint8))
    return np.asarray((raised.astype(np.uint8).view(np.int8) >> (8 - bits)).ravel()[:count])


def name_of(tensor: TensorT) -> str:
    """Returns a tensor's name as text."""
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name or "")


def text(name: object) -> str:
    """Returns a name of the schema as text."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
