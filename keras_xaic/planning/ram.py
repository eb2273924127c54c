"""The arena that a Keras model will need under TensorFlow Lite Micro, whole or with channels gone, before a file is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, layers
from keras_xaic.models.channels import ChannelGroups, Keep, channel_groups
from keras_xaic.models.costs import kept_shapes
from keras_xaic.models.folding import IDENTITIES
from keras_xaic.models.kernels import Kernel, layer_kernels
from keras_xaic.models.operations import Operation
from keras_xaic.planning.plan import LayerPlan
from keras_xaic.planning.storages import KINDS, Activations
from keras_xaic.tflm_memory import ArenaGraph, ArenaOperator, ArenaTensor, plan_arena

_WEIGHT_OPERATORS = {kind: name for name, kind in KINDS.items()}
_OPERATORS: dict[type, tuple[str, int]] = {
    layers.Flatten: ("RESHAPE", 1),
    layers.Reshape: ("RESHAPE", 1),
    layers.MaxPooling1D: ("MAX_POOL_2D", 0),
    layers.MaxPooling2D: ("MAX_POOL_2D", 0),
    layers.AveragePooling1D: ("AVERAGE_POOL_2D", 0),
    layers.AveragePooling2D: ("AVERAGE_POOL_2D", 0),
    layers.GlobalAveragePooling1D: ("MEAN", 1),
    layers.GlobalAveragePooling2D: ("MEAN", 1),
    layers.GlobalMaxPooling1D: ("REDUCE_MAX", 1),
    layers.GlobalMaxPooling2D: ("REDUCE_MAX", 1),
    layers.ZeroPadding1D: ("PAD", 1),
    layers.ZeroPadding2D: ("PAD", 1),
    layers.Cropping1D: ("STRIDED_SLICE", 3),
    layers.Cropping2D: ("STRIDED_SLICE", 3),
    layers.UpSampling2D: ("RESIZE_NEAREST_NEIGHBOR", 1),
    layers.Concatenate: ("CONCATENATION", 0),
    layers.Softmax: ("SOFTMAX", 0),
    layers.LeakyReLU: ("LEAKY_RELU", 0),
    layers.PReLU: ("PRELU", 1),
}
"""Layers that become one operator, and the constants that it reads."""
_PAIRWISE: dict[type, str] = {layers.Add: "ADD", layers.Multiply: "MUL", layers.Subtract: "SUB", layers.Average: "ADD"}
"""Layers that become one operator for every input but the first."""
_ACTIVATIONS = {
    "softmax": ("SOFTMAX",),
    "sigmoid": ("LOGISTIC",),
    "tanh": ("TANH",),
    "swish": ("LOGISTIC", "MUL"),
    "silu": ("LOGISTIC", "MUL"),
    "elu": ("DEQUANTIZE", "ELU", "QUANTIZE"),
}
_FUSED = ("linear", "relu", "relu6")
_TAKE_ACTIVATIONS = (*KINDS, "ADD", "SUB", "MUL", "MAX_POOL_2D", "AVERAGE_POOL_2D")


@dataclass(frozen=True)
class Stored:
    """How a kernel lies in the file: whether it is unpacked into the arena to be used, whether it has a scale per channel."""

    unpacked: bool = False
    per_channel: bool = False


@dataclass(frozen=True)
class _Step:
    """One operator: keys of the tensors that it reads, of the one that it writes, its kernel, how many constants it reads."""

    name: str
    inputs: tuple[str, ...]
    output: str
    kernel: Optional[Kernel] = None
    constants: int = 0


class ModelArena:
    """The arena of a model, planned as TensorFlow Lite Micro does it, from shapes alone.

    It knows what the converter merges: BatchNorm and ReLU into what is in front of them. Weights that are packed as int4 are
    unpacked into the arena, one layer at a time. Layers that become many operators (attention, recurrent layers) count as one:
    what they need inside is not seen. Neither is the memory of the DECODE operator, nor float layers in an int8 file.

    Args:
        groups: The model's channel groups.
        activations: Type of activations between layers.
    """

    def __init__(self, groups: ChannelGroups, activations: Activations = "int8") -> None:
        self.groups, self.activations = groups, activations
        self._merged: dict[str, str] = {}  # tensor of a merged layer -> tensor that takes its place
        self._made: dict[str, str] = {}  # tensor -> operator that makes it
        self._shaped: dict[str, str] = {}  # tensor inside a layer -> the tensor that has its shape
        self._lifted: set[str] = set()  # tensors that got an axis for a convolution over one axis
        self._floating: set[str] = set()  # tensors that the converter leaves float
        self._steps: list[_Step] = []
        for operation in groups.operations:
            self._add(operation)
        self._merge_reshapes()
        self._atoms = {key: groups.atoms(key) for key in groups.operations.shapes}

    def __call__(self, keep: Keep, stored: Mapping[str, Stored]) -> int:
        """Returns the bytes of the arena for the channels that stay.

        Fewer channels need less at every moment. The planner is greedy, though, and may now and then find a slightly worse
        arrangement for smaller buffers.

        Args:
            keep: Channel group -> (size,) bool.
            stored: Kernel key -> how it is stored; others are int8 with one step.
        """
        return plan_arena(self.graph(keep, stored)).minimum

    def graph(self, keep: Keep, stored: Mapping[str, Stored]) -> ArenaGraph:
        """Returns the operators and tensors of the file that the model will become; see `__call__`."""
        stays, weights = self.groups.stays(keep), kept_shapes(self.groups, keep)
        operations = self.groups.operations
        tensors: list[ArenaTensor] = []
        places: dict[str, int] = {}
        steps = 0 if self.activations == "float32" else 1

        def add(tensor: ArenaTensor) -> int:
            tensors.append(tensor)
            return len(tensors) - 1

        def activation(key: str) -> int:
            if key not in places:
                known = self._shaped.get(key, key)
                shape = [size or 1 for size in operations.shapes[known]]
                atoms = self._atoms[known]
                if atoms is not None:
                    shape[-1] = int(np.count_nonzero(stays[atoms]))
                floating = key in self._floating
                dtype = "float32" if floating else self.activations
                places[key] = add(ArenaTensor(tuple(shape), dtype, 0 if floating else steps))
            return places[key]

        inputs = tuple(activation(key) for key in operations.inputs)
        operators = []
        for step in self._steps:
            reads = [activation(key) for key in step.inputs]
            writes = activation(step.output)
            if step.kernel is not None:
                shape = weights[step.kernel.path][position(step.kernel)]
                how = stored.get(step.kernel.key, Stored())
                kernel, bias, channels = _kernel_tensors(step.kernel, shape, how, self.activations)
                if step.kernel.kind == "depthwise" and step.output in self._shaped:  # the first half of a separable layer
                    tensors[writes] = ArenaTensor((*tensors[writes].shape[:-1], channels), self.activations, steps)
                reads = [*reads, add(kernel), add(bias)]
                if step.name == "TRANSPOSE_CONV":
                    reads = [add(_CONSTANT), reads[1], reads[0], reads[2]]
            reads += [add(_CONSTANT) for _ in range(step.constants)]
            operators.append(ArenaOperator(step.name, tuple(reads), (writes,)))
        outputs = tuple(activation(self._find(key)) for key in operations.outputs)
        return ArenaGraph(tuple(tensors), tuple(operators), inputs, outputs)

    def _add(self, operation: Operation) -> None:
        layer, inputs = operation.layer, tuple(self._find(key) for key in operation.inputs)
        kernels = layer_kernels(layer, operation.path)
        if kernels:
            self._add_kernels(operation, kernels, inputs)
        elif isinstance(layer, IDENTITIES) or self._takes(operation):
            self._merged[operation.outputs[0]] = inputs[0]
        elif isinstance(layer, layers.BatchNormalization):
            self._chain(operation, [("MUL", (inputs[0],), 1), ("ADD", (), 1)])
        elif type(layer) in _PAIRWISE:
            name = _PAIRWISE[type(layer)]
            first, *others = inputs
            self._chain(operation, [(name, (first, other) if not i else (other,), 0) for i, other in enumerate(others)])
        elif type(layer) in _OPERATORS:
            name, constants = _OPERATORS[type(layer)]
            self._chain(operation, [(name, inputs, constants)])
        elif isinstance(layer, (layers.Activation, layers.ReLU, layers.ELU)):
            self._activate(operation, inputs[0], str(_activation(layer)))
        else:
            for output in operation.outputs:
                self._step(_Step(type(layer).__name__, inputs, output))

    def _add_kernels(self, operation: Operation, kernels: Sequence[Kernel], inputs: tuple[str, ...]) -> None:
        output, activation = operation.outputs[0], _function_name(operation.layer.activation)
        flat = len(self.groups.operations.shapes[output]) == 3 and kernels[-1].kind != "dense"
        if flat:  # convolutions over one axis are ones over two
            lifted = f"{output}/2d"
            self._shaped[lifted] = operation.inputs[0]
            self._lifted.add(lifted)
            self._step(_Step("RESHAPE", inputs, lifted, constants=1))
            inputs = (lifted,)
        for kernel in kernels:
            last = kernel is kernels[-1] and not flat and activation in _FUSED
            key = output if last else f"{output}/{kernel.attribute}"
            if not last:
                self._shaped[key] = output
            self._step(_Step(_WEIGHT_OPERATORS[kernel.kind], inputs, key, kernel))
            inputs = (key,)
        if flat:
            back = output if activation in _FUSED else f"{output}/1d"
            self._shaped.update({} if back == output else {back: output})
            self._step(_Step("RESHAPE", inputs, back, constants=1))
            self._made[back] = _WEIGHT_OPERATORS[kernels[-1].kind]  # activations go in front of the RESHAPE
            inputs = (back,)
        if activation not in _FUSED:
            self._activate(operation, inputs[0], activation)

    def _activate(self, operation: Operation, key: str, activation: str) -> None:
        names = _ACTIVATIONS.get(activation, (activation.upper(),))
        self._chain(operation, [(name, (key,) if name == "MUL" or not i else (), 0) for i, name in enumerate(names)])

    def _chain(self, operation: Operation, links: Sequence[tuple[str, tuple[str, ...], int]]) -> None:
        """Adds operators of which each reads what the one before it made, and inputs of its own."""
        before: tuple[str, ...] = ()
        for number, (name, inputs, constants) in enumerate(links):
            output = operation.outputs[0]
            if number < len(links) - 1:
                output = f"{output}/{number}"
                self._shaped[output] = operation.outputs[0]
            if name in ("DEQUANTIZE", "ELU"):
                self._floating.add(output)
            self._step(_Step(name, (*before, *inputs), output, constants=constants))
            before = (output,)

    def _step(self, step: _Step) -> None:
        self._steps.append(step)
        self._made[step.output] = step.name

    def _merge_reshapes(self) -> None:
        """Leaves out a RESHAPE that only a dense layer or another one reads, both where convolutions make and read them."""
        for key in [step.output for step in self._steps if step.name == "RESHAPE"]:
            readers = [step for step in self._steps if key in step.inputs]
            if len(readers) != 1 or key in map(self._find, self.groups.operations.outputs):
                continue
            if readers[0].name not in ("RESHAPE", "FULLY_CONNECTED"):
                continue
            first, then = next(step for step in self._steps if step.output == key), readers[0]
            self._steps.remove(first)
            if then.output in self._lifted and self._made.get(first.inputs[0]) in KINDS:
                self._steps.remove(then)
                renamed = {then.output: first.inputs[0]}
            else:
                renamed = {key: first.inputs[0]}
            self._steps = [replace(step, inputs=tuple(renamed.get(one, one) for one in step.inputs)) for step in self._steps]

    def _takes(self, operation: Operation) -> bool:
        """Whether the operator in front of a layer does its work along with its own."""
        layer, key = operation.layer, operation.inputs[0]
        if _activation(layer) == "linear":
            return True
        if len(self.groups.operations.consumers[key]) > 1 or key in self.groups.operations.outputs:
            return False
        name = self._made.get(self._find(key))
        if isinstance(layer, layers.BatchNormalization):
            return name in KINDS
        return _activation(layer) in _FUSED and name in _TAKE_ACTIVATIONS

    def _find(self, key: str) -> str:
        while key in self._merged:
            key = self._merged[key]
        return key


_CONSTANT = ArenaTensor((2,), "int32", 0, constant=True)


def predict_ram(model: Model, plans: Sequence[LayerPlan], activations: Activations = "int8") -> int:
    """Returns the bytes of RAM that a model needs under TensorFlow Lite Micro, with weights stored as planned.

    Args:
        model: The model, after filter removal if there is any.
        plans: What its kernels get; others are plain int8.
        activations: Type of activations between layers.
    """
    stored = {one.key: Stored(one.storage == "int4", one.granularity == "channel") for one in plans}
    return ModelArena(channel_groups(model), activations)({}, stored)


def position(kernel: Kernel) -> int:
    """Returns which of the layer's weights a kernel is."""
    return next(i for i, weight in enumerate(kernel.layer.weights) if weight is kernel.variable)


def _kernel_tensors(
    kernel: Kernel, shape: tuple[int, ...], stored: Stored, activations: Activations
) -> tuple[ArenaTensor, ArenaTensor, int]:
    """Returns weights and bias as the file has them, and the number of channels."""
    channels = math.prod(shape[axis] for axis in kernel.channel_axes)
    others = math.prod(shape) // max(1, channels)
    form = {"dense": (channels, others), "depthwise": (1, 1, others, channels)}.get(kernel.kind, (channels, 1, 1, others))
    if activations == "float32":
        return ArenaTensor(form, "float32", 0, True), ArenaTensor((channels,), "float32", 0, True), channels
    steps = channels if kernel.kind != "dense" or stored.per_channel else 1
    weights = ArenaTensor(form, "int4" if stored.unpacked else "int8", steps, constant=True)
    bias = ArenaTensor((channels,), "int32", steps if kernel.kind == "dense" else 0, constant=True)
    return weights, bias, channels


def _activation(layer: Layer) -> Optional[str]:
    """Returns the name of the activation that a layer is, None for other layers."""
    if isinstance(layer, layers.ReLU):
        plain = not layer.negative_slope and not layer.threshold and layer.max_value in (None, 6)
        return "relu" if plain else "leaky_relu"
    if isinstance(layer, layers.ELU):
        return "elu"
    if isinstance(layer, layers.Activation):
        return _function_name(layer.activation)
    return None


def _function_name(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)
