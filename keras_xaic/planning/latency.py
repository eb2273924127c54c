"""How long a file will take on the interpreter that files are timed on, predicted before anything is written.

What one layer takes is a cost per call, per multiply-add and per output, by kind of kernel and by how its weights are stored:
`keras_xaic/edge/latency.json`, which `bench/latency.py` measures, for processors with fast int8 kernels and for others. Another
machine of the same kind is faster or slower as a whole, so plans are made with ratios to plain int8.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Optional

from keras_xaic import processor
from keras_xaic.planning.storages import Activations

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.models.kernels import Kernel

StoredAs = Literal["int4", "int8", "float32", "lookup"]
"""How weights lie in the file; ``lookup`` where several share a byte (see `keras_xaic.tflite.look_up`)."""

_MEASURED = pathlib.Path(__file__).parents[1] / "edge" / "latency.json"
"""Written by `bench/latency.py`."""
UNKNOWN = 4.0
"""Storages and activations that were not measured have no fast kernels: so many times as slow are others that have none."""
NOT_DELEGATED = 1.5
"""What fast kernels leave to others counts at least so many times as long as INT8, whatever this processor takes."""
Shape = Sequence[int]
Blocks = tuple[int, int]
"""How many channels that come out, and that go in, are computed together: kernels of fewer take as long."""


@dataclass(frozen=True)
class Cost:
    """What kernels of one kind take that are stored in one way; microseconds.

    Attributes:
        blocks: See `Blocks`.
        call: Of one call.
        mac: Of a multiply-add, channels counted in whole blocks.
        output: Of a value that comes out.
        patch: Of a value that is gathered to be multiplied.
        weight: Of a weight.
    """

    blocks: Blocks
    call: float
    mac: float
    output: float
    patch: float
    weight: float


@dataclass(frozen=True)
class Work:
    """What one kernel has to do for one sample.

    Attributes:
        kind: Kind of kernel.
        calls: Shape in Keras, and at how many positions it is applied; of every call of the layer.
    """

    kind: str
    calls: Sequence[tuple[Shape, int]]

    def amounts(self, blocks: Blocks) -> list[int]:
        """Returns what the entries of a `Cost` are multiplied with, in their order."""
        total = [0] * 5
        for shape, positions in self.calls:
            taps, ins, outs = math.prod(shape[:-2]), shape[-2], shape[-1]
            if self.kind == "depthwise":
                ins, outs = 1, ins * outs
            elif self.kind == "conv_transpose":
                ins, outs = outs, ins
            padded = taps * (ins if self.kind == "depthwise" else _in_blocks(ins, blocks[1])) * _in_blocks(outs, blocks[0])
            made = positions * outs * (taps if self.kind == "conv_transpose" else 1)
            amounts = (1, positions * padded, made, positions * taps * ins, math.prod(shape))
            total = [one + more for one, more in zip(total, amounts)]
        return total


def _in_blocks(channels: int, block: int) -> int:
    return -(-channels // block) * block


@dataclass(frozen=True)
class Table:
    """What was measured on one machine; microseconds.

    Attributes:
        invocation: Of a call of a file in which nothing is computed.
        operator: Of an operator that has no kernel.
        costs: Kind of kernel, how it is stored, and type of activations -> its cost.
    """

    invocation: float
    operator: float
    costs: Mapping[tuple[str, str, str], Cost]


@functools.cache
def _tables() -> dict[bool, Table]:
    """Whether the processor adds int8 products up in one instruction -> what was measured on such a one."""
    found = {}
    for machine in json.loads(_MEASURED.read_text(encoding="utf-8"))["machines"]:
        costs = {}
        for row in machine["costs"]:
            rates = (row[name] for name in ("call", "mac", "output", "patch", "weight"))
            costs[row["kind"], row["stored"], row["activations"]] = Cost((row["blocks"][0], row["blocks"][1]), *rates)
        found[machine["adds_int8_products"]] = Table(machine["invocation"], machine["operator"], costs)
    return found


def measured_table() -> Table:
    """Returns what was measured on a machine like this one."""
    return _tables()[processor.adds_int8_products()]


def has_fast_code(work: Work, stored: StoredAs) -> bool:
    """Returns whether LiteRT's delegate takes a kernel stored so: of packed ones, dense kernels of an even number of inputs.

    Measured on LiteRT 2.3, 60 units: 104 inputs 0.62 us, 105 inputs 1.77 us, as INT8 0.63 us.
    """
    if stored not in ("int4", "lookup"):
        return True
    return stored == "int4" and work.kind == "dense" and not _is_odd(work)


def _is_odd(work: Work) -> bool:
    return any(shape[-2] % 2 for shape, _ in work.calls)


def microseconds(work: Work, stored: StoredAs, activations: Activations = "int8") -> float:
    """Returns what a kernel takes on the machine of the table that is nearest to this one.

    What was not measured counts `UNKNOWN` times as INT8, packed dense kernels of an odd number of inputs among it.
    """
    costs = measured_table().costs
    cost, times = costs.get((work.kind, stored, activations)), 1.0
    if cost is None or ((work.kind, stored) == ("dense", "int4") and _is_odd(work)):
        cost, times = costs[work.kind, "int8", "int8"], UNKNOWN
    rates = (cost.call, cost.mac, cost.output, cost.patch, cost.weight)
    return times * sum(rate * amount for rate, amount in zip(rates, work.amounts(cost.blocks)))


class Times:
    """What the kernels of a model take, as they may be stored, and everything else together: microseconds by the table.

    Args:
        model: A functional or sequential model.
        activations: Type of activations between layers.
    """

    def __init__(self, model: Model, activations: Activations = "int8") -> None:
        from keras_xaic.models.kernels import kernel_calls, layer_kernels, weighted_kernels
        from keras_xaic.models.operations import Operations
        from keras_xaic.planning.cost import FUSED

        self.activations = activations
        operations = Operations(model)
        self._calls = kernel_calls(operations)
        self._kernels = {kernel.key: (kernel, _number(kernel)) for kernel in weighted_kernels(model)}
        others = [op for op in operations if type(op.layer).__name__ not in FUSED and not layer_kernels(op.layer, op.path)]
        table = measured_table()
        self.fixed = table.invocation + table.operator * len(others)
        """Of what is no kernel."""

    def works(self, shapes: Optional[Mapping[str, Sequence[tuple[int, ...]]]] = None) -> dict[str, Work]:
        """Returns kernel key -> its work.

        Args:
            shapes: Layer path -> shapes of its weights where channels went (see `keras_xaic.models.costs.kept_shapes`).
        """
        found = {}
        for key, (kernel, number) in self._kernels.items():
            shape = kernel.shape if shapes is None else shapes[kernel.path][number]
            uses = [call for call in self._calls if (call.path, call.number) == (kernel.path, number)]
            found[key] = Work(kernel.kind, [(shape, call.positions) for call in uses])
        return found

    def plain(self) -> float:
        """Returns the time of the model as plain int8."""
        return self.fixed + sum(microseconds(work, "int8") for work in self.works().values())

    def __call__(
        self, stored: Mapping[str, StoredAs], shapes: Optional[Mapping[str, Sequence[tuple[int, ...]]]] = None
    ) -> float:
        """Returns the time of a file; kernels that are not named are INT8."""
        return self.fixed + sum(self._each(stored, shapes).values())

    def of_layers(self, stored: Mapping[str, StoredAs]) -> dict[str, float]:
        """Returns layer path -> the time of its kernels."""
        found: dict[str, float] = {}
        for key, time in self._each(stored).items():
            path = self._kernels[key][0].path
            found[path] = found.get(path, 0.0) + time
        return found

    def _each(
        self, stored: Mapping[str, StoredAs], shapes: Optional[Mapping[str, Sequence[tuple[int, ...]]]] = None
    ) -> dict[str, float]:
        works = self.works(shapes).items()
        return {key: microseconds(work, stored.get(key, "int8"), self.activations) for key, work in works}


def _number(kernel: Kernel) -> int:
    """Returns which of the layer's weights a kernel is."""
    return next(i for i, weight in enumerate(kernel.layer.weights) if weight is kernel.variable)
