"""Leaving out of a .tflite file what no interpreter needs; outputs stay bit-identical.

Each transformation takes loaded objects and changes them in place; `slim` does all of them to a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic.tflite.flatbuffer import ModelT, SubGraphT, TensorT, TensorType, load, operators, pack, text
from keras_xaic.tflite.pairing import WeightOperator, weight_operators

CONVERSION_METADATA = ("min_runtime_version", "CONVERSION_METADATA")
"""Metadata that no interpreter reads."""


def slim(content: bytes, signature: bool = False, micro: bool = False) -> bytes:
    """Returns a smaller file that computes the same bits.

    Args:
        content: A .tflite file.
        signature: Whether to keep the names by which programs may address inputs and outputs.
        micro: Whether the file is for TensorFlow Lite Micro, which needs nothing that delegates need.
    """
    model = load(content)
    make_slim(model, signature, micro)
    return pack(model)


def make_slim(model: ModelT, signature: bool = False, micro: bool = False) -> None:
    """Does all `TRANSFORMATIONS`, and forgets the names of inputs and outputs unless `signature` keeps them."""
    if not signature:
        drop_signature(model)
    if micro:
        drop_convolution_bias_records(model, for_delegates=True)
    for transformation in TRANSFORMATIONS:
        transformation(model)


def drop_signature(model: ModelT) -> None:
    """Forgets the names of inputs and outputs."""
    model.signatureDefs = None


def drop_names(model: ModelT) -> None:
    """Forgets the names of tensors and graphs."""
    for graph in model.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None


def drop_inner_names(model: ModelT) -> None:
    """Forgets the names of tensors and graphs, but for the main graph's inputs and outputs, which programs may look for."""
    graph = model.subgraphs[0]
    kept = [(graph.tensors[i], graph.tensors[i].name) for i in (*graph.inputs, *graph.outputs)]
    drop_names(model)
    for tensor, name in kept:
        tensor.name = name


def drop_conversion_metadata(model: ModelT) -> None:
    """Forgets what converters say of themselves; other metadata, which programs may read, stays."""
    model.description = model.metadataBuffer = None
    kept = [entry for entry in model.metadata or [] if text(entry.name) not in CONVERSION_METADATA]
    model.metadata = kept or None


def drop_metadata(model: ModelT) -> None:
    """Forgets who converted the file, when, and for which version."""
    model.description = model.metadata = model.metadataBuffer = None


def drop_ranges(model: ModelT) -> None:
    """Forgets calibration minima and maxima, which scale and zero point already contain."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            record = tensor.quantization
            if record is None:
                continue
            record.min = record.max = None
            if record.scale is None and record.zeroPoint is None and record.details is None:
                tensor.quantization = None


def drop_shape_signatures(model: ModelT) -> None:
    """Forgets shapes with free dimensions where they equal the fixed shape."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            free = tensor.shapeSignature
            if free is not None and np.array_equal(free, tensor.shape):
                tensor.shapeSignature = None


def drop_ranks(model: ModelT) -> None:
    """Forgets that the rank is known where there is a shape, which says so; files from before the flag do without it."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.hasRank = bool(tensor.hasRank) and not _has_shape(tensor)


def _has_shape(tensor: TensorT) -> bool:
    return tensor.shape is not None and len(tensor.shape) > 0


def drop_reshapes_before_dense(model: ModelT) -> None:
    """Lets FULLY_CONNECTED read what a RESHAPE would flatten for it: it takes any shape as rows of its length."""
    if len(model.subgraphs) != 1:
        return
    graph = model.subgraphs[0]
    for one in [operator for operator in operators(model) if operator.kind == "RESHAPE"]:
        before, after = int(one.record.inputs[0]), int(one.record.outputs[0])
        readers = [other for other in operators(model) if after in other.record.inputs]
        if after in graph.outputs or len(readers) != 1 or readers[0].kind != "FULLY_CONNECTED":
            continue
        options, inputs = readers[0].record.builtinOptions, readers[0].record.inputs
        if list(inputs).count(after) != 1 or inputs[0] != after or options.keepNumDims or options.weightsFormat:
            continue
        if _have_same_steps(graph.tensors[before], graph.tensors[after]):
            readers[0].record.inputs = np.where(np.asarray(inputs) == after, before, inputs).astype(np.int32)
            graph.operators = [record for record in graph.operators if record is not one.record]


def _have_same_steps(one: TensorT, other: TensorT) -> bool:
    records = [tensor.quantization for tensor in (one, other)]
    steps = [(None, None) if record is None else (record.scale, record.zeroPoint) for record in records]
    return one.type == other.type and all(np.array_equal(a, b) for a, b in zip(*steps))


def drop_convolution_bias_records(model: ModelT, for_delegates: bool = False) -> None:
    """Forgets the steps of convolution biases, which are those of input and weights multiplied.

    Interpreters multiply them themselves; only FULLY_CONNECTED compares its bias's own steps. XNNPACK of LiteRT 2.3 takes a
    convolution only if its bias has a step and a zero point for every channel: without them ResNet-8 takes 3.6 times as long.

    Args:
        model: The file.
        for_delegates: Whether those are dropped, too, that a delegate looks for (see `delegate_takes`).
    """
    kept = {
        int(one.operator.record.inputs[one.bias_position])
        for one in weight_operators(model)
        if one.operator.input(one.bias_position) is not None
        and (one.kind == "dense" or (delegate_takes(one) and not for_delegates))
    }
    for one in weight_operators(model):
        bias = one.operator.input(one.bias_position)
        if bias is not None and int(one.operator.record.inputs[one.bias_position]) not in kept:
            bias.quantization = None


def delegate_takes(one: WeightOperator) -> bool:
    """Whether XNNPACK takes an operator with int8 activations, for its weights: constant ones of 8 bits, of any kind."""
    data = one.operator.input(one.data_position)
    is_stored = one.codes is None and not one.widened
    return is_stored and one.weight_tensor.type == TensorType.INT8 and data is not None and data.type == TensorType.INT8


def merge_buffers(model: ModelT) -> None:
    """Keeps equal constants once, and none for tensors that are computed."""
    first: dict[bytes, int] = {}
    kept: list[Any] = [type(model.buffers[0])()]
    moved: dict[int, int] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            raw = b"" if data is None else bytes(np.asarray(data, np.uint8))
            if tensor.buffer not in moved:
                if raw and raw not in first:
                    first[raw] = len(kept)
                    kept.append(model.buffers[tensor.buffer])
                moved[tensor.buffer] = first[raw] if raw else 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = moved[tensor.buffer]
    for entry in model.metadata or []:
        kept.append(model.buffers[entry.buffer])
        entry.buffer = len(kept) - 1
    model.buffers = kept


def drop_unused_tensors(model: ModelT) -> None:
    """Keeps only tensors that an operator, an input or an output of their graph refers to."""
    for number, graph in enumerate(model.subgraphs):
        signatures = [signature for signature in model.signatureDefs or [] if signature.subgraphIndex == number]
        _drop_unused_tensors(graph, signatures)


def _drop_unused_tensors(graph: SubGraphT, signatures: Sequence[Any]) -> None:
    entries = [entry for signature in signatures for entry in [*(signature.inputs or []), *(signature.outputs or [])]]
    used = {int(i) for i in [*_some(graph.inputs), *_some(graph.outputs)]} | {int(entry.tensorIndex) for entry in entries}
    for record in graph.operators or []:
        used.update(int(i) for part in (record.inputs, record.outputs, record.intermediates) if part is not None for i in part)
    order = sorted(used - {-1})
    place = {-1: -1, **{old: new for new, old in enumerate(order)}}
    graph.tensors = [graph.tensors[old] for old in order]

    def moved(indices: Optional[np.ndarray]) -> Optional[np.ndarray]:
        return None if indices is None else np.array([place[int(i)] for i in indices], np.int32)

    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for record in graph.operators or []:
        record.inputs, record.outputs, record.intermediates = map(moved, (record.inputs, record.outputs, record.intermediates))
    for entry in entries:
        entry.tensorIndex = place[int(entry.tensorIndex)]


def _some(indices: Optional[np.ndarray]) -> Iterable[int]:
    return () if indices is None else indices


def drop_unused_operator_codes(model: ModelT) -> None:
    """Keeps only the operator kinds that occur."""
    used = sorted({int(record.opcodeIndex) for graph in model.subgraphs for record in graph.operators or []})
    place = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[old] for old in used]
    for graph in model.subgraphs:
        for record in graph.operators or []:
            record.opcodeIndex = place[int(record.opcodeIndex)]


TRANSFORMATIONS: tuple[Callable[[ModelT], None], ...] = (
    drop_names,
    drop_metadata,
    drop_ranges,
    drop_shape_signatures,
    drop_ranks,
    drop_reshapes_before_dense,
    drop_convolution_bias_records,
    drop_unused_tensors,
    drop_unused_operator_codes,
    merge_buffers,
)
"""What `slim` does, in order."""
