"""The weight kernels of a model: what relevance scores, sparsity and bit-widths are given to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_xaic._keras import Layer, Model, layers
from keras_xaic.models.operations import Operations

_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
KernelKind = Literal["conv", "depthwise", "dense", "conv_transpose"]


@dataclass(frozen=True)
class Kernel:
    """One kernel of one layer.

    Attributes:
        key: What the kernel is called everywhere: the layer's path, or ``path/attribute`` for a layer with several kernels.
        path: The layer's path (see `Operation.path`).
        attribute: Name of the layer's variable, e.g. ``kernel`` or ``depthwise_kernel``.
        kind: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``.
        layer: The Keras layer.
        channel_axes: Axes of the kernel that count output channels; (2, 3) for depthwise kernels.
    """

    key: str
    path: str
    attribute: str
    kind: KernelKind
    layer: Layer
    channel_axes: tuple[int, ...]

    @property
    def variable(self) -> Any:
        """The TensorFlow variable."""
        return getattr(self.layer, self.attribute)

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape."""
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape))

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return int(np.prod([self.shape[axis] for axis in self.channel_axes]))

    @property
    def value(self) -> np.ndarray:
        """The weights, float32."""
        return np.asarray(self.variable.numpy(), np.float32)

    @property
    def has_bias(self) -> bool:
        """Whether a bias is added to what this kernel makes."""
        last = not (self.attribute == "depthwise_kernel" and isinstance(self.layer, _SEPARABLE))
        return bool(getattr(self.layer, "use_bias", False)) and last


def weighted_kernels(model: Model) -> list[Kernel]:
    """Returns the kernels of all convolution and dense layers of a model, in network order, shared layers once.

    Args:
        model: A functional or sequential `keras.Model`; nested models are opened.
    """
    return kernels_in(Operations(model))


def kernels_in(operations: Operations) -> list[Kernel]:
    """Returns the same of a model whose operations are known."""
    found: dict[str, Kernel] = {}
    for operation in operations:
        for kernel in layer_kernels(operation.layer, operation.path):
            found.setdefault(kernel.key, kernel)
    return list(found.values())


def layer_kernels(layer: Layer, path: str) -> list[Kernel]:
    """Returns the kernels of one layer (see `weighted_kernels`)."""
    if isinstance(layer, _SEPARABLE):
        rank = len(layer.depthwise_kernel.shape)
        return [
            Kernel(f"{path}/depthwise_kernel", path, "depthwise_kernel", "depthwise", layer, (rank - 2, rank - 1)),
            Kernel(f"{path}/pointwise_kernel", path, "pointwise_kernel", "conv", layer, (rank - 1,)),
        ]
    if isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)):
        rank = len(layer.depthwise_kernel.shape)
        return [Kernel(path, path, "depthwise_kernel", "depthwise", layer, (rank - 2, rank - 1))]
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose)):
        return [Kernel(path, path, "kernel", "conv_transpose", layer, (len(layer.kernel.shape) - 2,))]
    if isinstance(layer, (layers.Conv1D, layers.Conv2D)):
        return [Kernel(path, path, "kernel", "conv", layer, (len(layer.kernel.shape) - 1,))]
    if isinstance(layer, layers.Dense):
        return [Kernel(path, path, "kernel", "dense", layer, (1,))]
    return []


def other_matrices(model: Model) -> dict[str, list[Any]]:
    """Returns the matrices of each layer that are in no such kernel, by its path, in network order.

    They are those of recurrent, attention and embedding layers, and of layers that are converted as a whole.
    """
    operations = Operations(model)
    found: dict[str, list[Any]] = {}
    seen = {id(kernel.variable) for kernel in kernels_in(operations)}
    for operation in operations:
        rest = {id(one): one for one in operation.layer.weights if len(one.shape) > 1 and id(one) not in seen}
        seen |= set(rest)
        if rest:
            found[operation.path] = list(rest.values())
    return found


def other_weights(model: Model) -> dict[str, int]:
    """Returns the number of weights in `other_matrices` of each layer, by its path and class."""
    classes = {operation.path: type(operation.layer).__name__ for operation in Operations(model)}
    return {
        f"{path} ({classes[path]})": sum(int(np.prod(one.shape)) for one in matrices)
        for path, matrices in other_matrices(model).items()
    }


@dataclass(frozen=True)
class KernelCall:
    """One use of one kernel.

    Attributes:
        path: Layer path.
        number: Number of the kernel among ``layer.weights``.
        shape: Shape of the kernel.
        positions: How often it is applied to one sample: at every output position, for transposed convolutions at every
            input position; free dimensions count as 1.
    """

    path: str
    number: int
    shape: tuple[int, ...]
    positions: int


def kernel_calls(operations: Operations) -> list[KernelCall]:
    """Returns every use of every kernel of a convolution or dense layer, in network order."""
    found = []
    for operation in operations:
        for kernel in layer_kernels(operation.layer, operation.path):
            key = operation.inputs[0] if kernel.kind == "conv_transpose" else operation.outputs[0]
            number = next(i for i, weight in enumerate(operation.layer.weights) if weight is kernel.variable)
            positions = math.prod(size or 1 for size in operations.shapes[key][1:-1])
            found.append(KernelCall(operation.path, number, kernel.shape, positions))
    return found
