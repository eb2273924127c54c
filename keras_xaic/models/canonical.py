"""Models made regular: flat, BatchNorm folded, nothing left that does nothing at inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, keras, layers, tf
from keras_xaic.errors import ModelError, first_line
from keras_xaic.models.einsum import Einsum
from keras_xaic.models.folding import (
    DEPTHWISE,
    FOLDABLE,
    IDENTITIES,
    NORMALIZATIONS,
    SHAPE_ONLY,
    Wiring,
    affine_of,
    as_float32,
    combined,
    find_foldable,
    find_forward,
    in_float32,
    learned_factors,
)
from keras_xaic.models.kernels import Kernel, layer_kernels
from keras_xaic.models.operations import Operation, Operations, activation_name, symbol_of
from keras_xaic.models.ports import keep_ports, ports_of
from keras_xaic.models.rebuilding import rebuilt

_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.ThresholdedReLU)
_HEADS = ("softmax", "sigmoid")
_HEAD_LAYERS = (*FOLDABLE, layers.Activation)
_HEAD_SYMBOLS = {"nn.softmax": "softmax", "math.sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Canonical:
    """A canonical clone and what was done to get it.

    Attributes:
        model: Flat functional Keras model. Its layers are called by the paths of the user's (`Operation.path`), so weight
            keys are the same in both.
        gains: Weight key -> factor that folding multiplied the user's kernel by, broadcastable to the kernel. Kernels that
            are not here were not changed.
        folded: Path of the layer that took up what is behind it -> path of the last of that, usually a BatchNorm.
        heads: Per output the activation at the user's output, ``"softmax"``, ``"sigmoid"`` or None; it is still in
            `model` unless the clone was made without it.
        operations: The operations of the user's model.
    """

    model: Model
    gains: Mapping[str, np.ndarray]
    folded: Mapping[str, str]
    heads: tuple[Optional[str], ...]
    operations: Operations


def canonicalize(
    model: Model,
    *,
    keep_output_activation: bool = True,
    separate_activations: bool = False,
    fold_into: tuple[type, ...] = FOLDABLE,
    fold_forward: bool = False,
    shapes: Sequence[tuple[Optional[int], ...]] = (),
) -> Canonical:
    """Returns a flat clone with the same interface and the same outputs, to float32 rounding.

    Nested models are opened. BatchNorm, and factors that are not all positive, are folded into the convolution or dense layer
    in front of them (one that is called once, has no activation and no other reader; the rest stays), dropout and noise are
    removed. Layers that are not touched keep class, configuration and weights; one that takes something up gains a bias and
    loses its constraints.

    Args:
        model: A built functional or sequential `keras.Model`. It is not changed. The clone computes in float32.
        keep_output_activation: False leaves softmax and sigmoid at the outputs out, so that the outputs are logits.
        separate_activations: True makes every activation an `Activation` layer of its own and splits separable
            convolutions into the layers ``path/depthwise_kernel`` and ``path/pointwise_kernel``.
        fold_into: Layer classes that take up what is behind them.
        fold_forward: Whether a BatchNorm that nothing in front of it can take up, and other factors of channels, go into the
            dense layers or the convolution without padding behind them.
        shapes: Shapes of the clone's inputs, batch first, instead of the model's own.

    Returns:
        The clone, trainable, savable and convertible like any Keras model.

    Raises:
        ModelError: If the model has no graph, or has a layer that cannot be rebuilt.
    """
    operations = Operations(model)
    builder = _Builder(model, operations, keep_output_activation, separate_activations, fold_into, fold_forward, shapes)
    return builder.build()


def input_dtype(operations: Operations, key: str) -> str:
    """Returns the type of the clone's input: int32 where only embeddings read it, whose places every interpreter takes so."""
    readers = operations.consumers[key]
    given = operations.model.inputs[operations.inputs.index(key)].dtype.name
    looked_up = readers and key not in operations.outputs and all(type(one.layer) is layers.Embedding for one in readers)
    return "int32" if looked_up else as_float32(given)


class _Builder:
    """One pass over the operations, building the clone."""

    def __init__(
        self,
        model: Model,
        operations: Operations,
        keep_heads: bool,
        separate: bool,
        fold_into: tuple[type, ...],
        fold_forward: bool,
        shapes: Sequence[tuple[Optional[int], ...]],
    ) -> None:
        self.user_model, self.operations, self.separate = model, operations, separate
        self.wiring = Wiring(operations)
        self.shapes = list(shapes) or [tuple(tensor.shape) for tensor in model.inputs]
        self.behind = find_foldable(self.wiring, fold_into)
        self.forward = find_forward(self.wiring) if fold_forward else {}
        self.entries = {affine.entry for affine in self.forward.values()}
        self.bare: dict[str, Any] = {}
        heads = [self.find_head(key) for key in operations.outputs]
        self.heads = tuple(head[1] if head else None for head in heads)
        self.stripped = set() if keep_heads else {head[0].name for head in heads if head}
        self.clones: dict[int, Any] = {}
        self.names: set[str] = set(model.input_names) | {op.path for op in operations}
        self.tensors: dict[str, Any] = {}

    def build(self) -> Canonical:
        inputs = [
            keras.Input(batch_shape=shape, dtype=input_dtype(self.operations, key), name=name)
            for key, name, shape in zip(self.operations.inputs, self.user_model.input_names, self.shapes)
        ]
        self.tensors.update(zip(self.operations.inputs, inputs))
        taken_up = {operation.name for taken in self.behind.values() for operation in taken}
        sources = Counter(affine.source for affine in self.forward.values())
        for operation in self.operations:
            if operation.name in sources:
                bare = self.bare_of(operation)
                self.bare[operation.outputs[0]] = bare
                if sources[operation.name] == self.wiring.readers[operation.outputs[0]]:
                    self.tensors[operation.outputs[0]] = bare
                    continue
                if type(operation.layer) in NORMALIZATIONS:
                    self.tensors[operation.outputs[0]] = self.scaled(operation, bare)
                    continue
            layer = operation.layer
            plain_head = operation.name in self.stripped and not layer_kernels(layer, operation.path)
            if operation.outputs[0] in self.wiring.alias or operation.name in taken_up or plain_head:
                self.tensors[operation.outputs[0]] = self.tensors[operation.inputs[0]]
            elif isinstance(layer, _SEPARABLE) and self.separate:
                self.add_separable(operation)
            else:
                self.add(operation)
        clone = keras.Model(inputs, [self.tensors[key] for key in self.operations.outputs], name=self.user_model.name)
        keep_ports(clone, ports_of(self.user_model))
        folded = {path: taken[-1].path for path, taken in self.behind.items()}
        return Canonical(clone, self.gains(), folded, self.heads, self.operations)

    def find_head(self, key: str) -> Optional[tuple[Operation, str]]:
        """The operation with the softmax or sigmoid of an output that nothing else reads, through what only reshapes."""
        key = self.wiring.resolve(key)
        operation = self.operations.producer.get(key)
        while operation is not None and isinstance(operation.layer, SHAPE_ONLY) and self.wiring.readers[key] == 1:
            key = self.wiring.resolve(operation.inputs[0])
            operation = self.operations.producer.get(key)
        if operation is None or self.wiring.calls[id(operation.layer)] > 1 or self.wiring.readers[key] > 1:
            return None
        name = _HEAD_SYMBOLS.get(symbol_of(operation.layer) or "")
        if isinstance(operation.layer, layers.Softmax):
            name = "softmax"
        elif type(operation.layer) in _HEAD_LAYERS:
            name = activation_name(operation.layer)
        return (operation, name) if name in _HEADS else None

    def gains(self) -> dict[str, np.ndarray]:
        gains = {}
        for operation in self.operations:
            if operation.path in self.behind:
                kernel = layer_kernels(operation.layer, operation.path)[-1]
                gain, _ = self.affine(operation)
                gains[kernel.key] = _along_outputs(kernel, gain).astype(np.float32)
        return gains

    def add(self, operation: Operation) -> None:
        layer = operation.layer
        split = self.separate and type(layer) in FOLDABLE and activation_name(layer) is not None
        strip = operation.name in self.stripped
        new = id(layer) not in self.clones
        if new:
            self.clones[id(layer)] = self.clone_of(operation, linear=split or strip)
        results = operation.call(self.read_by(operation), self.clones[id(layer)])
        if new:
            self.fill(operation, self.clones[id(layer)])
        if split and not strip:
            activation = layers.Activation(layer.activation, name=self.unique(operation.name + "/activation"))
            results = (activation(results[0]),)
        self.tensors.update(zip(operation.outputs, results))

    def bare_of(self, operation: Operation) -> Any:
        """The tensor of an operation without the factors that layers behind it take up."""
        before, layer = self.tensors[operation.inputs[0]], operation.layer
        if type(layer) not in NORMALIZATIONS:
            return before
        without = {"scale": False, "center": False} if type(layer) is layers.LayerNormalization else {"trainable": False}
        return type(layer).from_config({**in_float32(layer.get_config()), "name": operation.path, **without})(before)

    def scaled(self, operation: Operation, bare: Any) -> Any:
        """What those read who take up no factors."""
        gain, offset = (np.asarray(part).tolist() for part in learned_factors(operation.layer))
        return layers.Rescaling(gain, offset, name=self.unique(operation.name + "_scale"))(bare)

    def read_by(self, operation: Operation) -> Mapping[str, Any]:
        """All tensors; of what was taken up behind an operation, the tensors without."""
        if operation.name not in self.entries:
            return self.tensors
        replaced = {key: self.bare.get(self.wiring.resolve(key)) for key in operation.inputs}
        return {**self.tensors, **{key: tensor for key, tensor in replaced.items() if tensor is not None}}

    def clone_of(self, operation: Operation, linear: bool) -> Layer:
        layer = operation.layer
        if self.separate and type(layer) in _ACTIVATIONS:
            return layers.Activation(_function_of(layer), name=operation.path)
        if isinstance(layer, IDENTITIES):  # one that makes numbers of bytes
            return layers.Rescaling(1.0, name=operation.path)
        if operation.equation:
            return Einsum(operation.equation, name=operation.path)
        config = {**in_float32(layer.get_config()), "name": operation.path}
        if operation.path in self.operations.frozen:
            config["trainable"] = False
        if linear:
            config["activation"] = "linear"
        if operation.path in self.behind:
            config.update({key: None for key in config if key.endswith("_constraint")})
            config["use_bias"] = True
        if operation.path in self.forward:
            config["use_bias"] = True
        try:
            return rebuilt(layer, config)
        except Exception as error:  # a custom layer's from_config may raise anything
            raise _cannot_rebuild(operation.path, layer, (str(error) or type(error).__name__).splitlines()[-1]) from None

    def fill(self, operation: Operation, clone: Layer) -> None:
        weights = operation.layer.get_weights()
        if operation.path in self.behind:
            weights = self.folded_weights(operation)
        if operation.path in self.forward:
            weights = self.forward[operation.path].folded_into(weights, depthwise=isinstance(operation.layer, DEPTHWISE))
        try:
            clone.set_weights(weights)
        except ValueError as error:
            raise _cannot_rebuild(operation.path, operation.layer, first_line(error)) from None
        if hasattr(clone, "finalize_state"):  # Normalization keeps derived constants beside its weights
            clone.finalize_state()

    def affine(self, operation: Operation) -> tuple[np.ndarray, np.ndarray]:
        """Gain and offset of what a layer takes up."""
        affines = [affine_of(self.wiring, one) for one in self.behind[operation.path]]
        return combined([one for one in affines if one is not None])

    def folded_weights(self, operation: Operation) -> list[np.ndarray]:
        layer = operation.layer
        gain, offset = self.affine(operation)
        *before, last = layer_kernels(layer, operation.path)
        bias = np.asarray(layer.bias, np.float64) * gain + offset if layer.use_bias else offset
        kernel = last.value.astype(np.float64) * _along_outputs(last, gain)
        return [*(kernel.value for kernel in before), kernel.astype(np.float32), bias.astype(np.float32)]

    def add_separable(self, operation: Operation) -> None:
        layer = operation.layer
        weights = self.folded_weights(operation) if operation.path in self.behind else layer.get_weights()
        if id(layer) not in self.clones:
            keys = [kernel.key for kernel in layer_kernels(layer, operation.path)]
            self.clones[id(layer)] = _split_separable(layer, keys, use_bias=len(weights) == 3)
            self.names.update(keys)
        padding, depthwise, pointwise = self.clones[id(layer)]
        signal = self.tensors[operation.inputs[0]]
        signal = pointwise(depthwise(padding(signal) if padding else signal))
        depthwise.set_weights(weights[:1])
        pointwise.set_weights(weights[1:])
        if activation_name(layer) is not None and operation.name not in self.stripped:
            signal = layers.Activation(layer.activation, name=self.unique(operation.name + "/activation"))(signal)
        self.tensors[operation.outputs[0]] = signal

    def unique(self, name: str) -> str:
        name = name.replace("#", "_")
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name


def _split_separable(layer: Layer, keys: list[str], use_bias: bool) -> tuple[Optional[Layer], Layer, Layer]:
    """The two layers a separable convolution is made of, led by the padding that a causal one needs."""
    is_1d = isinstance(layer, layers.SeparableConv1D)
    same = {"data_format": layer.data_format, "trainable": layer.trainable}
    padding, causal = layer.padding, None
    if padding == "causal":
        padding, before = "valid", (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        causal = layers.ZeroPadding1D((before, 0), name=keys[0] + "/padding")
    depthwise = (layers.DepthwiseConv1D if is_1d else layers.DepthwiseConv2D)(
        layer.kernel_size,
        layer.strides,
        padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        name=keys[0],
        **same,
    )
    pointwise = (layers.Conv1D if is_1d else layers.Conv2D)(
        layer.filters,
        1,
        use_bias=use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        name=keys[1],
        **same,
    )
    return causal, depthwise, pointwise


def _along_outputs(kernel: Kernel, factor: np.ndarray) -> np.ndarray:
    """Per-output-channel factors in a shape that broadcasts over the kernel."""
    return factor.reshape([size if axis in kernel.channel_axes else 1 for axis, size in enumerate(kernel.shape)])


def _function_of(layer: Layer) -> Any:
    if isinstance(layer, layers.ReLU) and layer.threshold == 0 and layer.negative_slope == 0:
        if layer.max_value is None:
            return "relu"
        if layer.max_value == 6:
            return tf.nn.relu6
    config = layer.get_config()
    return type(layer).from_config({**config, "name": None}).call


def _cannot_rebuild(path: str, layer: Layer, reason: str) -> ModelError:
    return ModelError(
        f"layer {path!r} ({type(layer).__name__}) cannot be rebuilt from its configuration ({reason})",
        "a layer whose get_config() holds every argument of its constructor",
        "Add what is missing to get_config(), or replace the layer by standard Keras layers",
    )
