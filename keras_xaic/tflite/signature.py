"""The signature of a .tflite file: names by which programs may address inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_xaic.tflite.flatbuffer import ModelT, SubGraphT, name_of, schema

SIGNATURE = "serving_default"


def name_signature(model: ModelT, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Calls inputs and outputs in the signature, where there is one, by these names, given in the order of the graph's."""
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or []:
        for entries, indices, names in ((signature.inputs, graph.inputs, inputs), (signature.outputs, graph.outputs, outputs)):
            for entry, index, name in zip(entries, indices, names):
                entry.name, entry.tensorIndex = name.encode(), int(index)


def name_stably(model: ModelT) -> None:
    """Drops the layer names, which Keras may have made up; numbers inputs and outputs, in the signature `SIGNATURE`, too."""
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        tensor.name = re.sub(r"(op\d{4})/[^/;]+", r"\1", name_of(tensor)).encode()
    for number, index in enumerate(graph.outputs):
        graph.tensors[index].name = f"output_{number}".encode()
    for number, index in enumerate(graph.inputs):
        graph.tensors[index].name = f"input_{number}".encode()
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [_entry(graph, index) for index in graph.inputs]
    signature.outputs = [_entry(graph, index) for index in graph.outputs]
    signature.subgraphIndex = 0
    model.signatureDefs = [signature]


def restore_order(model: ModelT) -> None:
    """Brings inputs and outputs into the order of the model: of a SavedModel the converter keeps only their names."""
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or []:
        for role, entries in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            found = {name_of(entry): int(entry.tensorIndex) for entry in entries}
            order = [found.get(f"{role[:-1]}_{number}") for number in range(len(found))]
            if None not in order and sorted(order) == sorted(int(one) for one in getattr(graph, role)):  # type: ignore[type-var]
                setattr(graph, role, np.array(order, np.int32))


def _entry(graph: SubGraphT, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name_of(graph.tensors[index])
    entry.tensorIndex = int(index)
    return entry
