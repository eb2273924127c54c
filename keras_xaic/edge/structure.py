"""Finds what an interpreter would not: indices and lengths that make it read outside its memory without saying so."""

from __future__ import annotations

import pathlib
from typing import Optional

import numpy as np

from keras_xaic.edge.inspect_file import FileInfo, GraphInfo, TensorInfo, read_file
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.files import PathLike, not_there


def check_structure(info: FileInfo) -> None:
    """Checks that every index is in range and that every stored tensor has exactly the bytes it needs.

    TensorFlow Lite Micro reads beyond a short buffer, and crashes on a wrong index, without an error of its own.

    Raises:
        EdgeError: Naming the graph, operator or tensor that is wrong.
    """
    for number, graph in enumerate(info.graphs):
        fault = _graph_fault(info, graph, is_main=number == 0)
        if fault:
            where = f"graph {number}: " if len(info.graphs) > 1 else ""
            raise EdgeError(f"{info.name} is damaged: {where}{fault}", "", "Copy or export it again")


def check_given_file(path: PathLike) -> None:
    """Checks a .tflite file that somebody gave: what is wrong with it is wrong input, no fault of an interpreter.

    Raises:
        DataError: If there is no such file, or it is damaged.
    """
    where = pathlib.Path(path)
    if not where.is_file():
        raise DataError(not_there(path), "a .tflite file")
    try:
        check_structure(read_file(where))
    except EdgeError as error:
        found = error.found.replace(where.name, str(path))
        raise DataError(found, error.expected or "a .tflite file that interpreters can run", error.fix) from None


def check_micro(info: FileInfo) -> None:
    """Checks that no stored weights are widened with a scale per channel: TensorFlow Lite Micro takes the first scale for all.

    Raises:
        EdgeError: If some are.
    """
    for graph in info.graphs:
        for operator in graph.operators:
            if operator.name != "DEQUANTIZE":
                continue
            source = graph.tensors[operator.inputs[0]]
            if len(source.scales) > 1 and info.buffers[source.buffer][1]:
                raise EdgeError(
                    f"{info.name} widens integer weights with a scale per channel, which tflm computes wrongly",
                    "a file with int8 activations",
                    "Run it on tflite-runtime or litert, or compress with int8 activations",
                )


def _graph_fault(info: FileInfo, graph: GraphInfo, is_main: bool) -> Optional[str]:
    return _interface_fault(graph, is_main) or _tensor_fault(info, graph) or _order_fault(info, graph)


def _interface_fault(graph: GraphInfo, is_main: bool) -> Optional[str]:
    count = len(graph.tensors)
    if is_main and not graph.outputs:
        return "it has no outputs"  # without inputs are signatures that set a state
    if any(not 0 <= i < count for i in (*graph.inputs, *graph.outputs)):
        return f"its inputs {graph.inputs} and outputs {graph.outputs} are not all among its {count} tensors"
    return None


def _tensor_fault(info: FileInfo, graph: GraphInfo) -> Optional[str]:
    encoded = {t for operator in graph.operators if operator.name.startswith("CUSTOM") for t in operator.inputs}
    for i, tensor in enumerate(graph.tensors):
        # What a custom operator (TFLite Micro's DECODE) reads keeps the scales of what it is decoded to.
        fault = _buffer_fault(info, tensor) or (None if i in encoded else _scale_fault(tensor))
        if fault:
            return f"tensor {i}{f' ({tensor.name})' if tensor.name else ''} {fault}"
    return None


def _order_fault(info: FileInfo, graph: GraphInfo) -> Optional[str]:
    """What an operator, or the end, reads before it is there."""
    count, known = len(graph.tensors), set(graph.inputs)
    known.update(i for i, t in enumerate(graph.tensors) if t.variable or info.buffers[t.buffer][1] or 0 in t.shape)
    for i, operator in enumerate(graph.operators):
        wrong = [t for t in operator.inputs if t < -1 or t >= count] + [t for t in operator.outputs if not 0 <= t < count]
        if wrong:
            return f"operator {i} ({operator.name}) uses tensor {wrong[0]} of {count}"
        missing = [t for t in operator.inputs if t != -1 and t not in known]
        if missing:
            return f"operator {i} ({operator.name}) reads tensor {missing[0]}, which has no values by then"
        known.update(operator.outputs)
    missing = [t for t in graph.outputs if t not in known]
    return f"its output, tensor {missing[0]}, is never computed" if missing else None


def _buffer_fault(info: FileInfo, tensor: TensorInfo) -> Optional[str]:
    if not 0 <= tensor.buffer < len(info.buffers):
        return f"has buffer {tensor.buffer} of {len(info.buffers)}"
    if any(n < 0 for n in tensor.shape):
        return f"has the shape {tensor.shape}"
    length, needed = info.buffers[tensor.buffer][1], tensor.bytes_needed
    if length and needed is not None and not tensor.sparse and length != needed:
        return f"has {length:,} bytes; shape {tensor.shape} of {tensor.dtype} needs {needed:,}"
    return None


def _scale_fault(tensor: TensorInfo) -> Optional[str]:
    scales, points = len(tensor.scales), len(tensor.zero_points)
    if not scales:
        return None
    if not np.all(np.isfinite(tensor.scales)):
        return "has a scale that is not finite"
    if points not in (0, 1, scales):
        return f"has {scales} scales and {points} zero points"
    axis = tensor.quantized_dimension
    if scales > 1 and not (0 <= axis < len(tensor.shape) and tensor.shape[axis] == scales):
        return f"has {scales} scales along axis {axis} of shape {tensor.shape}"
    return None
