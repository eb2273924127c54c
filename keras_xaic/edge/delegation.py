"""How much of a file an interpreter's delegate computes: what it leaves over is several times slower.

The share is what the interpreter says after it has prepared the file. Why an operator is left over is not said by anyone: the
reasons here were found on XNNPACK of LiteRT 2.3 and of tflite-runtime 2.14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic.edge.inspect_file import FileInfo, GraphInfo, OperatorInfo, TensorInfo

_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


@dataclass(frozen=True)
class Delegation:
    """What a delegate takes of a file's main graph.

    Attributes:
        operators: Number of operators that depend on the inputs.
        delegated_operators: Of which the delegate computes.
        macs: Multiply-adds of one invocation.
        delegated_macs: Of which the delegate computes.
        refused: The first operator that it leaves to the interpreter, those with multiply-adds first, and why; None if there is
            none.
    """

    operators: int
    delegated_operators: int
    macs: int
    delegated_macs: int
    refused: Optional[str] = None

    @property
    def share(self) -> Optional[float]:
        """Share of the multiply-adds; None where there are none."""
        return self.delegated_macs / self.macs if self.macs else None

    def as_dict(self) -> dict[str, Any]:
        """Returns what report.json holds of it, beside the latency."""
        operators = self.delegated_operators / self.operators if self.operators else None
        return {"delegated_macs": self.share, "delegated_operators": operators, "refused_operator": self.refused}


def read_delegation(info: FileInfo, parts: Sequence[Mapping[str, Sequence[int]]], interpreter: str) -> Delegation:
    """Returns what a delegate takes.

    Args:
        info: The file.
        parts: The tensors that each delegated part of the graph reads and gives: ``{"inputs": [...], "outputs": [...]}``.
        interpreter: Whose delegate it is.
    """
    graph = info.main
    delegated = _delegated(graph, parts)
    macs = {number: operator_macs(graph, graph.operators[number]) for number in graph.depending}
    left = [number for number in macs if number not in delegated]
    first = min(left, key=lambda number: (macs[number] == 0, number), default=None)
    return Delegation(
        operators=len(macs),
        delegated_operators=len(macs) - len(left),
        macs=sum(macs.values()),
        delegated_macs=sum(count for number, count in macs.items() if number in delegated),
        refused=None if first is None else f"operator {first} ({_why(info, graph.operators[first], interpreter)})",
    )


def operator_macs(graph: GraphInfo, operator: OperatorInfo) -> int:
    """Returns the multiply-adds of one operator, 0 for kinds that have none to speak of."""
    tensors = [None if i < 0 else graph.tensors[i] for i in operator.inputs]
    if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") and tensors[1] is not None:
        taps = tensors[1].shape[1:3] if operator.name == "DEPTHWISE_CONV_2D" else tensors[1].shape[1:]
        return _size(graph.tensors[operator.outputs[0]].shape) * _size(taps)
    if operator.name == "TRANSPOSE_CONV" and tensors[1] is not None and tensors[2] is not None:
        return _size(tensors[2].shape[:-1]) * _size(tensors[1].shape)
    if operator.name == "BATCH_MATMUL" and tensors[0] is not None:
        return _size(graph.tensors[operator.outputs[0]].shape) * tensors[0].shape[-1]
    if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" and tensors[0] is not None:
        weights = sum(_size(one.shape) for one in tensors[1:] if one is not None and len(one.shape) == 2 and not one.variable)
        return _size(tensors[0].shape[:-1]) * weights
    return 0


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(np.abs(shape), dtype=np.int64))


def _delegated(graph: GraphInfo, parts: Sequence[Mapping[str, Sequence[int]]]) -> set[int]:
    """Returns the numbers of the operators that lie between what a part reads and what it gives."""
    makers = {tensor: number for number, operator in enumerate(graph.operators) for tensor in operator.outputs}
    found: set[int] = set()
    for part in parts:
        given, waiting = set(part["inputs"]), list(part["outputs"])
        while waiting:
            tensor = waiting.pop()
            number = makers.get(tensor)
            if tensor not in given and number is not None and number not in found:
                found.add(number)
                waiting += graph.operators[number].inputs
    return found


def _why(info: FileInfo, operator: OperatorInfo, interpreter: str) -> str:
    graph = info.main
    data = next((graph.tensors[i] for i in operator.inputs if i >= 0 and _is_computed(info, graph, i)), None)
    kind = "unknown" if data is None else data.dtype
    place = _BIAS.get(operator.name)
    if place is not None and kind in ("int8", "float32"):
        reason = _why_weights(info, operator, place, kind)
        if reason is not None and interpreter != "tflite-runtime":
            return f"{operator.name}: {reason}"
    if kind in ("int8", "int16") and interpreter == "tflite-runtime":
        return f"{operator.name}: its delegate takes float32 values only"
    return f"{operator.name}: the delegate has none for {kind} values, or not with these settings"


def _why_weights(info: FileInfo, operator: OperatorInfo, place: int, kind: str) -> Optional[str]:
    graph = info.main
    weights: TensorInfo = graph.tensors[operator.inputs[1]]
    if not info.buffers[weights.buffer][1]:
        return "its weights are unpacked at every call"
    if weights.dtype in ("int4", "int2") and operator.name != "FULLY_CONNECTED":
        return f"{weights.dtype.upper()} weights of a convolution"
    if weights.dtype == "int4" and weights.shape[-1] % 2:
        return "INT4 weights of an odd number of inputs"
    has_bias = len(operator.inputs) > place and operator.inputs[place] >= 0
    if kind == "int8" and has_bias and not len(graph.tensors[operator.inputs[place]].scales):
        return "its bias has no scales"
    return None


def _is_computed(info: FileInfo, graph: GraphInfo, tensor: int) -> bool:
    return not info.buffers[graph.tensors[tensor].buffer][1]
