"""How channels travel through a model: which weights, tensors and other channels each one is tied to.

Every output channel of a layer that makes channels is an *atom*. Along the last axis of every tensor lies an array of atoms:
concatenation joins such arrays, flattening repeats them, adding two tensors ties their atoms together. What cannot be
followed fixes the atoms that it reads, with the reason, so that nothing is removed that might matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import keras, layers, tf
from keras_xaic.models.operations import Operation, Operations, activation_name, symbol_of

Axes = tuple[Optional[np.ndarray], ...]
"""Per axis of a weight the atoms along it, None where the axis does not count channels."""

ELEMENTWISE = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "hard_sigmoid", "tanh", "softplus", "softsign"),
    *("hard_swish", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink"),
    *("log_sigmoid", "sparse_plus", "sparse_sigmoid", "squareplus"),
    *("swish", "silu", "gelu", "mish", "exponential", "exp", "square", "sqrt", "rsqrt", "abs", "negative", "identity"),
    *("clip_by_value", "pow", "add", "subtract", "multiply", "maximum", "minimum", "truediv", "divide", "div_no_nan"),
}
"""Activations and TensorFlow functions that work on every channel alone."""

OUTPUT = "they are the model's output"

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
_NORMALIZATIONS = (layers.BatchNormalization, keras.layers.experimental.SyncBatchNormalization)
_EACH_CHANNEL_ALONE = (
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianNoise),
    *(layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization, layers.Activation, layers.ReLU),
    *(layers.LeakyReLU, layers.ELU, layers.ThresholdedReLU, layers.ZeroPadding1D, layers.ZeroPadding2D),
    *(layers.ZeroPadding3D, layers.Cropping1D, layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D),
    *(layers.UpSampling2D, layers.UpSampling3D, layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D, layers.GlobalMaxPooling1D),
    *(layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D, layers.GlobalAveragePooling1D),
    *(layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D, layers.RepeatVector, layers.Resizing),
    *(layers.Identity,),
)


class ChannelFlow:
    """Follows the channels through all operations of a model.

    Args:
        operations: The model.

    Attributes:
        tensors: Tensor key -> atoms along its last axis, None where that axis has no known length.
        producers: Layer path -> the atoms it makes, in network order.
        consumers: Layer path -> the atoms that its incoming weights read.
        followers: Layer path -> the atoms that its per-channel weights belong to (BatchNorm, PReLU, depthwise convolution).
        axes: Layer path -> per weight, in the order of ``layer.weights``, the atoms along its axes.
    """

    def __init__(self, operations: Operations) -> None:
        self.shapes = operations.shapes
        self.tensors: dict[str, Optional[np.ndarray]] = {}
        self.producers: dict[str, np.ndarray] = {}
        self.consumers: dict[str, np.ndarray] = {}
        self.followers: dict[str, np.ndarray] = {}
        self.axes: dict[str, list[Axes]] = {}
        self._parent: list[int] = []
        self._why: dict[int, str] = {}
        for key in operations.inputs:
            self.tensors[key] = self._fixed_output(key, "they meet the channels of the model's input")
        for operation in operations:
            self._follow(operation)
        for key in operations.outputs:
            self._fix(self.tensors[key], OUTPUT, first=True)
        self.root = np.asarray([self._find(atom) for atom in range(len(self._parent))], np.int64)
        """Atom -> the atom that stands for all those tied to it."""

    def why_fixed(self, atom: int) -> Optional[str]:
        """The reason why an atom must stay, or None."""
        return self._why.get(int(self.root[atom]))

    # Atoms: union-find in which every class may carry the reason why it is fixed.

    def _find(self, atom: int) -> int:
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def _fresh(self, count: int) -> np.ndarray:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _tie(self, one: np.ndarray, other: np.ndarray) -> None:
        if one is other:
            return
        for a, b in zip(one.tolist(), other.tolist()):
            a, b = self._find(a), self._find(b)
            if a != b:
                a, b = min(a, b), max(a, b)
                self._parent[b] = a
                if b in self._why:
                    self._why.setdefault(a, self._why.pop(b))

    def _fix(self, atoms: Optional[np.ndarray], why: str, first: bool = False) -> None:
        for atom in np.unique(atoms).tolist() if atoms is not None else ():
            root = self._find(atom)
            self._why[root] = why if first else self._why.get(root, why)

    def _fixed_output(self, key: str, why: str) -> Optional[np.ndarray]:
        width = self._width(key)
        if width is None:
            return None
        atoms = self._fresh(width)
        self._fix(atoms, why)
        return atoms

    def _width(self, key: str) -> Optional[int]:
        shape = self.shapes[key]
        return shape[-1] if len(shape) > 1 else None

    # Operations.

    def _follow(self, operation: Operation) -> None:
        rule = _RULES.get(type(operation.layer))
        if rule is None:
            rule = ChannelFlow._function if symbol_of(operation.layer) else ChannelFlow._unknown
        if not self._followable(operation):
            rule = ChannelFlow._unknown
        rule(self, operation)

    def _followable(self, operation: Operation) -> bool:
        last = getattr(operation.layer, "data_format", "channels_last") == "channels_last"
        return last and len(operation.outputs) == 1 and all(self.tensors[key] is not None for key in operation.inputs)

    def _refuse(self, operation: Operation, what: str) -> None:
        why = f"layer {operation.path!r} {what}"
        for key in operation.inputs:
            self._fix(self.tensors[key], why)
        for key in operation.outputs:
            self.tensors[key] = self._fixed_output(key, why)

    def _only_input(self, operation: Operation) -> np.ndarray:
        atoms = self.tensors[operation.inputs[0]]
        assert atoms is not None  # `_follow` saw to it
        return atoms

    def _unknown(self, operation: Operation) -> None:
        kind = type(operation.layer).__name__
        if getattr(operation.layer, "data_format", "channels_last") != "channels_last":
            self._refuse(operation, f"({kind}) has its channels first")
        else:
            self._refuse(operation, f"({kind}) does not work on every channel alone, or it is not known how it does")

    def _read(self, operation: Operation) -> np.ndarray:
        """The atoms of a layer's only input; those of a layer called before are tied to them."""
        atoms = self._only_input(operation)
        known = self.consumers.get(operation.path, self.followers.get(operation.path))
        if known is not None:
            self._tie(known, atoms)
        return atoms

    def _made(self, operation: Operation, count: int) -> np.ndarray:
        """The atoms that a layer makes, the same at every call."""
        if operation.path not in self.producers:
            self.producers[operation.path] = self._fresh(count)
        atoms = self.producers[operation.path]
        self.tensors[operation.outputs[0]] = atoms
        self._check_activation(operation, atoms)
        return atoms

    def _check_activation(self, operation: Operation, atoms: np.ndarray) -> None:
        name = activation_name(operation.layer)
        if name is not None and name not in ELEMENTWISE:
            self._fix(atoms, f"the activation {name!r} of layer {operation.path!r} does not work on every channel alone")

    def _set_axes(self, operation: Operation, axes: Sequence[tuple[Any, Axes]]) -> None:
        known = {id(variable): one for variable, one in axes}
        self.axes[operation.path] = [known.get(id(w), (None,) * len(w.shape)) for w in operation.layer.weights]

    def _convolution(self, operation: Operation) -> None:
        layer = operation.layer
        if layer.groups > 1:
            self._refuse(operation, "is a grouped convolution")
            return
        transposed = isinstance(layer, _TRANSPOSED)
        ins = self._read(operation)
        self.consumers[operation.path] = ins
        outs = self._made(operation, layer.filters)
        kernel = (*(None,) * layer.rank, *((outs, ins) if transposed else (ins, outs)))
        self._set_axes(operation, [(layer.kernel, kernel), (layer.bias, (outs,))])

    def _depthwise(self, operation: Operation) -> None:
        layer = operation.layer
        ins = self._read(operation)
        self.followers[operation.path] = ins
        outs = np.repeat(ins, layer.depth_multiplier)
        self.tensors[operation.outputs[0]] = outs
        self._check_activation(operation, outs)
        kernel = (*(None,) * (len(layer.depthwise_kernel.shape) - 2), ins, None)
        self._set_axes(operation, [(layer.depthwise_kernel, kernel), (layer.bias, (outs,))])

    def _separable(self, operation: Operation) -> None:
        layer = operation.layer
        ins = self._read(operation)
        self.consumers[operation.path] = ins
        outs = self._made(operation, layer.filters)
        free = (None,) * layer.rank
        depthwise, pointwise = (*free, ins, None), (*free, np.repeat(ins, layer.depth_multiplier), outs)
        self._set_axes(
            operation, [(layer.depthwise_kernel, depthwise), (layer.pointwise_kernel, pointwise), (layer.bias, (outs,))]
        )

    def _dense(self, operation: Operation) -> None:
        layer = operation.layer
        ins = self._read(operation)
        self.consumers[operation.path] = ins
        outs = self._made(operation, layer.units)
        self._set_axes(operation, [(layer.kernel, (ins, outs)), (layer.bias, (outs,))])

    def _batchnorm(self, operation: Operation) -> None:
        if list(operation.layer.axis) != [len(self.shapes[operation.inputs[0]]) - 1]:
            self._refuse(operation, "(BatchNormalization) normalizes over another axis than the last")
            return
        atoms = self._read(operation)
        self.followers[operation.path] = atoms
        self.tensors[operation.outputs[0]] = atoms
        self._set_axes(operation, [(variable, (atoms,)) for variable in operation.layer.weights])

    def _prelu(self, operation: Operation) -> None:
        atoms = self._read(operation)
        alpha = operation.layer.alpha
        own = int(alpha.shape[-1]) == len(atoms)  # else one slope serves all channels
        if own:
            self.followers[operation.path] = atoms
        self.tensors[operation.outputs[0]] = atoms
        self._set_axes(operation, [(alpha, (*(None,) * (len(alpha.shape) - 1), atoms if own else None))])

    def _pass_on(self, operation: Operation) -> None:
        atoms = self._only_input(operation)
        self._check_activation(operation, atoms)
        self.tensors[operation.outputs[0]] = atoms

    def _rescaling(self, operation: Operation) -> None:
        if np.size(operation.layer.scale) > 1 or np.size(operation.layer.offset) > 1:
            self._refuse(operation, "(Rescaling) has a number for every channel")
        else:
            self._pass_on(operation)

    def _merge(self, operation: Operation) -> None:
        arrays = [self.tensors[key] for key in operation.inputs]
        width = self._width(operation.outputs[0])
        full = [atoms for atoms in arrays if atoms is not None and len(atoms) == width]
        if not full:
            self._unknown(operation)
            return
        for atoms in full[1:]:
            self._tie(full[0], atoms)
        for one in arrays:
            if one is not None and len(one) != width:
                self._fix(one, f"layer {operation.path!r} spreads it over all channels")
        self.tensors[operation.outputs[0]] = full[0]

    def _concatenate(self, operation: Operation) -> None:
        self._concatenate_along(operation, operation.layer.axis)

    def _concatenate_along(self, operation: Operation, axis: int) -> None:
        arrays = [atoms for key in operation.inputs if (atoms := self.tensors[key]) is not None]
        last = len(self.shapes[operation.outputs[0]]) - 1
        if axis in (-1, last):
            self.tensors[operation.outputs[0]] = np.concatenate(arrays)
            return
        for atoms in arrays[1:]:
            self._tie(arrays[0], atoms)
        self.tensors[operation.outputs[0]] = arrays[0]

    def _reshape(self, operation: Operation) -> None:
        """Any reshape keeps the order of elements, so every column of the result is made of known atoms."""
        before, after = self.shapes[operation.inputs[0]][1:], self.shapes[operation.outputs[0]][1:]
        if None in before or None in after:
            self._refuse(operation, "reshapes free dimensions")
            return
        elements = np.broadcast_to(self._only_input(operation), before).reshape(-1, after[-1])
        for row in elements[1:]:
            if not np.array_equal(row, elements[0]):
                self._tie(elements[0], row)
        self.tensors[operation.outputs[0]] = elements[0].copy()

    def _permute(self, operation: Operation) -> None:
        if operation.layer.dims[-1] != len(operation.layer.dims):
            self._refuse(operation, "(Permute) moves the channel axis")
        else:
            self._pass_on(operation)

    def _function(self, operation: Operation) -> None:
        """A plain TensorFlow function, such as ``a + b``, ``tf.concat`` or ``tf.reduce_mean``."""
        symbol = str(symbol_of(operation.layer))
        name = symbol.split(".")[-1]
        args, kwargs = operation.node.call_args, operation.node.call_kwargs
        constants = [value for value in tf.nest.flatten([args, kwargs]) if not hasattr(value, "_keras_history")]
        if name == "concat" and isinstance(kwargs.get("axis", args[1] if len(args) > 1 else None), int):
            self._concatenate_along(operation, kwargs.get("axis", args[-1]))
        elif name == "reduce_mean" and self._spatial(operation, kwargs.get("axis", args[1] if len(args) > 1 else None)):
            self._pass_on(operation)
        elif name in ELEMENTWISE and all(isinstance(value, str) or np.size(value) == 1 for value in constants):
            self._merge(operation) if len(operation.inputs) > 1 else self._pass_on(operation)
        else:
            self._refuse(operation, f"(tf.{symbol}) does not work on every channel alone, or it is not known how it does")

    def _spatial(self, operation: Operation, axes: Any) -> bool:
        """Whether a reduction leaves the channel axis (and the batch) alone."""
        rank = len(self.shapes[operation.inputs[0]])
        if axes is None:
            return False
        return all(0 < int(axis) % rank < rank - 1 for axis in np.atleast_1d(axes))


_Rule = Callable[[ChannelFlow, Operation], None]
_RULES: dict[type, _Rule] = {
    **dict.fromkeys((*_CONVOLUTIONS, *_TRANSPOSED), ChannelFlow._convolution),
    **dict.fromkeys(_DEPTHWISE, ChannelFlow._depthwise),
    **dict.fromkeys(_SEPARABLE, ChannelFlow._separable),
    layers.Dense: ChannelFlow._dense,
    **dict.fromkeys(_NORMALIZATIONS, ChannelFlow._batchnorm),
    layers.PReLU: ChannelFlow._prelu,
    layers.Rescaling: ChannelFlow._rescaling,
    **dict.fromkeys(_EACH_CHANNEL_ALONE, ChannelFlow._pass_on),
    **dict.fromkeys(_MERGES, ChannelFlow._merge),
    layers.Concatenate: ChannelFlow._concatenate,
    **dict.fromkeys((layers.Flatten, layers.Reshape), ChannelFlow._reshape),
    layers.Permute: ChannelFlow._permute,
}
"""Layer class -> its rule. Subclasses may do anything, so they are not in here."""
