"""Are two files the same graph? Operator by operator, constant by constant, whatever their tensors are called and numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic.tflite.flatbuffer import ModelT, OperatorT, TensorT, builtin_code, operators, text

FREE = ("min", "max")
"""Parts of quantization that no interpreter reads where there is a scale."""


def difference(before: ModelT, after: ModelT) -> Optional[str]:
    """Returns the first thing in which `after` is another graph than `before`, None where they are the same.

    These do not count: names, calibration ranges, steps of biases, shapes with free dimensions that equal the fixed ones,
    tensors and operator codes that nothing refers to, and a RESHAPE in front of FULLY_CONNECTED, which flattens by itself.
    """
    if len(before.subgraphs) != len(after.subgraphs):
        return "it has another number of graphs"
    pairs = [_Pair(before, after, number) for number in range(len(before.subgraphs))]
    for pair in pairs:
        fault = pair.difference()
        if fault is not None:
            return f"graph {pair.number}: {fault}"
    if after.signatureDefs is None:
        return None
    if len(after.signatureDefs) != len(before.signatureDefs or []):
        return "it has another number of signatures"
    for one, other in zip(before.signatureDefs, after.signatureDefs):
        place = pairs[one.subgraphIndex].place
        for lists in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
            mine, theirs = ([(text(entry.name), int(entry.tensorIndex)) for entry in entries or []] for entries in lists)
            if [(name, place.get(index)) for name, index in mine] != theirs:
                return "a signature has other inputs or outputs"
        if (text(one.signatureKey), one.subgraphIndex) != (text(other.signatureKey), other.subgraphIndex):
            return "a signature is another"
    return None


class _Pair:
    """A graph in both files.

    Attributes:
        place: Number of a tensor in the first file -> in the second.
    """

    def __init__(self, before: ModelT, after: ModelT, number: int) -> None:
        self.before, self.after, self.number = before, after, number
        self.graphs = before.subgraphs[number], after.subgraphs[number]
        self.place: dict[int, int] = {-1: -1}
        self._taken: set[int] = set()

    def difference(self) -> Optional[str]:
        one, other = self.graphs
        if not self._match(one.inputs, other.inputs):
            return "its inputs are others"
        left = list(operators(self.after, self.number))
        for index, operator in enumerate(operators(self.before, self.number)):
            told = f"operator {index} ({operator.kind})"
            if operator.kind == "RESHAPE" and not (left and self._same_operator(operator.record, left[0].record, dry=True)):
                self.place[int(operator.record.outputs[0])] = self.place.get(int(operator.record.inputs[0]), -2)
                continue
            if not left or not self._same_operator(operator.record, left.pop(0).record):
                return f"{told} is another"
        if left:
            return "it has more operators"
        return None if self._match(one.outputs, other.outputs) else "its outputs are others"

    def _same_operator(self, one: OperatorT, other: OperatorT, dry: bool = False) -> bool:
        codes = [self.before.operatorCodes[one.opcodeIndex], self.after.operatorCodes[other.opcodeIndex]]
        facts = [(builtin_code(code), text(code.customCode), code.version) for code in codes]
        parts = ("builtinOptionsType", "builtinOptions", "customOptions", "customOptionsFormat", "mutatingVariableInputs")
        if facts[0] != facts[1] or not all(same(getattr(one, part), getattr(other, part)) for part in parts):
            return False
        kept = dict(self.place), set(self._taken)
        matched = all(self._match(getattr(one, part), getattr(other, part)) for part in ("inputs", "outputs", "intermediates"))
        if dry:
            self.place, self._taken = kept
        return matched

    def _match(self, some: Optional[Sequence[int]], others: Optional[Sequence[int]]) -> bool:
        mine, theirs = ([] if numbers is None else [int(n) for n in numbers] for numbers in (some, others))
        return len(mine) == len(theirs) and all(map(self._match_one, mine, theirs))

    def _match_one(self, mine: int, theirs: int) -> bool:
        if mine in self.place:
            return self.place[mine] == theirs
        if theirs in self._taken or not self._same_tensor(self.graphs[0].tensors[mine], self.graphs[1].tensors[theirs]):
            return False
        self.place[mine] = theirs
        self._taken.add(theirs)
        return True

    def _same_tensor(self, one: TensorT, other: TensorT) -> bool:
        free = [tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature for tensor in (one, other)]
        parts = ("type", "shape", "isVariable", "sparsity", "variantTensors")
        data = [model.buffers[tensor.buffer].data for model, tensor in ((self.before, one), (self.after, other))]
        return (
            all(same(getattr(one, part, None), getattr(other, part, None)) for part in parts)
            and same(*free)
            and same(*data)
            and (_same_scales(one, other) or (other.quantization is None and data[0] is not None))
        )


def _same_scales(one: TensorT, other: TensorT) -> bool:
    records = [
        {} if tensor.quantization is None else {k: v for k, v in vars(tensor.quantization).items() if k not in FREE}
        for tensor in (one, other)
    ]
    empty = {name: 0 if name in ("detailsType", "quantizedDimension") else None for name in {*records[0], *records[1]}}
    return all(same(records[0].get(name, none), records[1].get(name, none)) for name, none in empty.items())


def same(one: Any, other: Any) -> bool:
    """Returns whether two parts of loaded files are equal; an empty list and none are."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        arrays = [np.asarray([] if part is None else part) for part in (one, other)]
        return arrays[0].size == arrays[1].size == 0 or (
            arrays[0].dtype == arrays[1].dtype
            and arrays[0].shape == arrays[1].shape
            and arrays[0].tobytes() == arrays[1].tobytes()
        )
    if isinstance(one, (list, tuple)) or isinstance(other, (list, tuple)):
        lists = [[] if part is None else part for part in (one, other)]
        return len(lists[0]) == len(lists[1]) and all(map(same, *lists))
    if hasattr(one, "__dict__"):
        return type(one) is type(other) and all(same(value, vars(other)[name]) for name, value in vars(one).items())
    return bool(one == other or (one != one and other != other))
