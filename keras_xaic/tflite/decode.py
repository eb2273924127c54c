"""Weights compressed in flash for TensorFlow Lite Micro, which unpacks them when an operator needs them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.tflite.adding import add_constant, add_operator_code, new_operator
from keras_xaic.tflite.clamping import require_exact_clamps, write_clamps_as_relu
from keras_xaic.tflite.encoders import Encoded, encode_huffman, encode_lookup_table, encode_pruning
from keras_xaic.tflite.flatbuffer import BuiltinOperator, ModelT, OperatorT, TensorType, builtin_code, copied, load, pack
from keras_xaic.tflite.micro_kit import DECODE
from keras_xaic.tflite.pairing import WeightOperator, weight_operators
from keras_xaic.tflite.rewrite import own_input
from keras_xaic.tflite.slim import make_slim

LARGEST_DECODED = 128 * 1024
"""Bytes of unpacked weights that one operator may put into the arena."""


@dataclass(frozen=True)
class MicroFile:
    """A .tflite file for TensorFlow Lite Micro, perhaps with compressed weights.

    Attributes:
        content: The file.
        model: The same, loaded.
        encodings: Index of the weight operator -> ``lookup-table``, ``huffman`` or ``pruning``; operators that are not here
            keep their weights as they were.
        saved_bytes: Flash that compression saved.
        decoded_bytes: Weights of the largest compressed operator: about what the arena grows by.
    """

    content: bytes
    model: ModelT
    encodings: Mapping[int, str]
    saved_bytes: int
    decoded_bytes: int


def compress_for_micro(content: bytes, largest_decoded: int = LARGEST_DECODED) -> MicroFile:
    """Returns the smallest file that computes the same bits on TensorFlow Lite Micro.

    Each operator's weights are tried as lookup table, Huffman code and pruning mask; an encoding is kept if the whole file
    gets smaller by it. The result runs on TensorFlow Lite Micro only.

    Args:
        content: A .tflite file with int8 activations.
        largest_decoded: Most bytes of unpacked weights per operator. They lie in the arena while the operator runs.

    Raises:
        ExportError: If TensorFlow Lite Micro would compute an operator wrongly.
    """
    return micro_file(load(content), largest_decoded)


def micro_file(model: ModelT, largest_decoded: int) -> MicroFile:
    """Does what `compress_for_micro` does to a loaded file, which it changes."""
    found = weight_operators(model)
    if any(one.codes is not None for one in found):
        raise ExportError(
            "weights that the file looks up, which stay so in RAM on TensorFlow Lite Micro",
            "weights that are stored themselves",
            "Build the file with lookup=False",
        )
    if any(one.widened for one in found):
        raise ExportError(
            "weights that a DEQUANTIZE widens, which TensorFlow Lite Micro computes wrongly", "int8 activations", "Export int8"
        )
    write_clamps_as_relu(model)
    require_exact_clamps(model)
    make_slim(model, micro=True)
    plain = best = pack(model)
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(found):  # a layer that is called twice is stored once, and only both together save bytes
        if one.weights.size <= largest_decoded:
            groups.setdefault(int(one.weight_tensor.buffer), []).append(place)
    trials: list[tuple[int, dict[int, Encoded]]] = []
    for places in groups.values():
        smallest = {place: _smallest(found[place]) for place in places}
        encodings = {place: encoded for place, encoded in smallest.items() if encoded is not None}
        if len(encodings) == len(places):
            gain = _stored_bytes(found[places[0]]) - max(encoded.size for encoded in encodings.values())
            trials.append((gain, encodings))
    made = model
    chosen: dict[int, Encoded] = {}
    for gain, encodings in sorted(trials, key=lambda trial: -trial[0]):
        if gain <= 0:
            break
        tried = _with_decoding(copied(model), {**chosen, **encodings})
        smaller = pack(tried)
        if len(smaller) < len(best):
            made, best, chosen = tried, smaller, {**chosen, **encodings}
    return MicroFile(
        best,
        made,
        {place: encoded.kind for place, encoded in sorted(chosen.items())},
        len(plain) - len(best),
        max((found[place].weights.size for place in chosen), default=0),
    )


def _stored_bytes(one: WeightOperator) -> int:
    return len(one.operator.model.buffers[one.weight_tensor.buffer].data)


def _smallest(one: WeightOperator) -> Optional[Encoded]:
    if one.weight_tensor.type not in (TensorType.INT8, TensorType.INT4) or one.weights.size < 2:
        return None
    record = one.weight_tensor.quantization
    axis = int(record.quantizedDimension) if len(record.scale) > 1 else None
    weights = one.weights.astype(np.int8)
    encodings = (encode_lookup_table(weights, axis), encode_huffman(weights), encode_pruning(weights))
    return min((encoded for encoded in encodings if encoded is not None), key=lambda encoded: encoded.size)


def _with_decoding(model: ModelT, encodings: Mapping[int, Encoded]) -> ModelT:
    graph = model.subgraphs[0]
    for code in model.operatorCodes:
        code.builtinCode = builtin_code(code)  # files before schema 3a have it in the deprecated field only
    decoder = add_operator_code(model, BuiltinOperator.CUSTOM, custom=DECODE)
    targets = {place: one for place, one in enumerate(weight_operators(model)) if place in encodings}
    before: dict[int, OperatorT] = {}
    for place, one in targets.items():
        decoded = copy.copy(own_input(one.operator, 1))
        decoded.type, decoded.buffer = TensorType.INT8, 0
        parts = (encodings[place].data, encodings[place].ancillary)
        inputs = [add_constant(model, values, TensorType.UINT8) for values in parts]
        graph.tensors.append(decoded)
        one.operator.record.inputs = np.array(one.operator.record.inputs, np.int32)
        one.operator.record.inputs[1] = len(graph.tensors) - 1
        before[id(one.operator.record)] = new_operator(decoder, inputs, len(graph.tensors) - 1)
    ordered = []
    for record in graph.operators:  # what is decoded lives until the next operator has run
        ordered += [before[id(record)], record] if id(record) in before else [record]
    graph.operators = ordered
    make_slim(model, micro=True)
    return model
