"""The signature of a .tflite file: names by which programs may address inputs and outputs."""

from __future__ import annotations

from typing import Any

from keras_xaic.tflite.flatbuffer import ModelT, name_of, schema

SIGNATURE = "serving_default"


def add_signature(model: ModelT) -> None:
    """Gives the main graph the signature ``serving_default``, with the names of its input and output tensors."""
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [_entry(graph, index) for index in graph.inputs]
    signature.outputs = [_entry(graph, index) for index in graph.outputs]
    signature.subgraphIndex = 0
    model.signatureDefs = [signature]


def _entry(graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name_of(graph.tensors[index])
    entry.tensorIndex = int(index)
    return entry
