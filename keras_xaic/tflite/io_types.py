"""What a file takes and gives: the codes that it computes with, codes of another type, or float32 values."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.settings import InputOutput
from keras_xaic.tflite.adding import add_operator_code, add_tensor, new_operator
from keras_xaic.tflite.flatbuffer import BuiltinOperator, ModelT, TensorT, TensorType, load, pack, schema
from keras_xaic.tflite.weight_only import DEQUANTIZE_VERSION

_TYPES: dict[InputOutput, int] = {
    "uint8": TensorType.UINT8,
    "int8": TensorType.INT8,
    "float32": TensorType.FLOAT32,
}
_CALLED = {TensorType.FLOAT32: "float32 values", TensorType.INT16: "int16 codes"}


def with_io(content: bytes, io: InputOutput) -> bytes:
    """Returns a file whose inputs and outputs have another type; what lies between them stays as it is.

    Codes of the two types of 8 bits are the same numbers moved by 128: nothing is rounded. Inputs and outputs that are no real
    values, such as indices and the bytes of images, keep their type.

    Args:
        content: A .tflite file.
        io: What it shall take and give.

    Raises:
        ExportError: If an input or an output has no codes of 8 bits.
    """
    model = load(content)
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = np.array(graph.inputs, np.int32), np.array(graph.outputs, np.int32)
    for is_input, places in ((True, graph.inputs), (False, graph.outputs)):
        for number, index in enumerate(places):
            tensor = graph.tensors[int(index)]
            if tensor.type == _TYPES[io] or not _holds_values(tensor):
                continue
            if io != "float32" and tensor.type in _CALLED:
                which = f"{'input' if is_input else 'output'} {number} of model.tflite"
                raise ExportError(
                    f"{which} has {_CALLED[tensor.type]}, not codes of 8 bits",
                    "a layer there that computes with int8 activations",
                    "Choose {io=float32}",
                )
            places[number] = _outer(model, int(index), _TYPES[io], is_input)
    for signature in model.signatureDefs or []:
        for entries, places in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
            for entry, index in zip(entries, places):
                entry.tensorIndex = int(index)
    return pack(model)


def _holds_values(tensor: TensorT) -> bool:
    """Whether what goes in or out are floats, or codes of some: bytes of an image and indices have no scale."""
    record = tensor.quantization
    is_code = tensor.type in (*_TYPES.values(), TensorType.INT16) and record is not None and record.scale is not None
    return tensor.type == TensorType.FLOAT32 or bool(is_code and len(record.scale))


def _outer(model: ModelT, index: int, kind: int, is_input: bool) -> int:
    """Adds a tensor and the operator between it and the one that was outermost, whose name it takes; returns its number."""
    graph = model.subgraphs[0]
    inner = graph.tensors[index]
    number = add_tensor(model, inner.shape, kind)
    outer = graph.tensors[number]
    outer.shapeSignature, outer.name, inner.name = inner.shapeSignature, inner.name, None
    if kind != TensorType.FLOAT32:
        outer.quantization = _moved(inner, kind)
    source, target = (number, index) if is_input else (index, number)
    to_float = kind == TensorType.FLOAT32 and not is_input
    wide = inner.type == TensorType.INT16
    if to_float:
        code, options, version = BuiltinOperator.DEQUANTIZE, schema.DequantizeOptionsT(), 3 if wide else DEQUANTIZE_VERSION
    else:
        code, options, version = BuiltinOperator.QUANTIZE, schema.QuantizeOptionsT(), 2 if wide else 1
    operator = new_operator(add_operator_code(model, code, version), [source], target, options)
    graph.operators.insert(0 if is_input else len(graph.operators), operator)
    return number


def _moved(inner: TensorT, kind: int) -> Any:
    """Returns the scale of the codes, the zero point moved with them."""
    found = schema.QuantizationParametersT()
    found.scale = inner.quantization.scale
    found.zeroPoint = np.asarray(inner.quantization.zeroPoint, np.int64) + (128 if kind == TensorType.UINT8 else -128)
    return found
