"""The signature of a .tflite file: names by which programs may address inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_xaic.tflite.flatbuffer import ModelT, SubGraphT, name_of, schema

SIGNATURE = "serving_default"


def name_signature(model: ModelT, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Calls inputs and outputs in the signature, where there is one, by these names, given in the order of the graph's."""
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or []:
        for entries, indices, names in ((signature.inputs, graph.inputs, inputs), (signature.outputs, graph.outputs, outputs)):
            for entry, index, name in zip(entries, indices, names):
                entry.name, entry.tensorIndex = name.encode(), int(index)


def add_signature(model: ModelT) -> None:
    """Gives the main graph the signature ``serving_default``, with the names of its input and output tensors."""
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [_entry(graph, index) for index in graph.inputs]
    signature.outputs = [_entry(graph, index) for index in graph.outputs]
    signature.subgraphIndex = 0
    model.signatureDefs = [signature]


def _entry(graph: SubGraphT, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name_of(graph.tensors[index])
    entry.tensorIndex = int(index)
    return entry
