"""Models made regular: flat, BatchNorm folded, nothing left that does nothing at inference.

Folding rewrites ``BN(W x + b)`` as ``(g W) x + (g (b - mean) + beta)`` with ``g = gamma / sqrt(variance + epsilon)``
(Jacob et al. 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, keras, layers, tf
from keras_xaic.errors import ModelError, first_line
from keras_xaic.models.kernels import Kernel, layer_kernels
from keras_xaic.models.operations import Operation, Operations

IDENTITIES = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.RandomBrightness,
    layers.RandomContrast,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
)
"""Layers that do nothing at inference."""

FOLDABLE = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
"""Layers that can take up the BatchNorm behind them. Subclasses may do anything and are left alone."""

_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TAKES_FORWARD = (layers.Dense, layers.Conv1D, layers.Conv2D, *_DEPTHWISE)
_SHAPE_ONLY = (layers.Flatten, layers.Reshape)
_ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.ThresholdedReLU)
_OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
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
        folded: Path of the layer that took up a BatchNorm -> path of that BatchNorm.
        heads: Per output the activation at the user's output, ``"softmax"``, ``"sigmoid"`` or None; it is still in
            `model` unless the clone was made without it.
    """

    model: Model
    gains: Mapping[str, np.ndarray]
    folded: Mapping[str, str]
    heads: tuple[Optional[str], ...]


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

    Nested models are opened, BatchNorm is folded into the convolution or dense layer in front of it (one that is called once,
    has no activation and no other reader; the rest stays BatchNorm), dropout and noise are removed. Layers that are not
    touched keep class, configuration and weights; a layer that takes up a BatchNorm gains a bias and loses its constraints.

    Args:
        model: A built functional or sequential `keras.Model`. It is not changed. The clone computes in float32.
        keep_output_activation: False leaves softmax and sigmoid at the outputs away, so that the outputs are logits.
        separate_activations: True makes every activation an `Activation` layer of its own and splits separable
            convolutions into the layers ``path/depthwise_kernel`` and ``path/pointwise_kernel``.
        fold_into: Layer classes that take up the BatchNorm behind them.
        fold_forward: Whether a BatchNorm that nothing in front of it can take up goes into the dense layer or convolution
            without padding behind it.
        shapes: Shapes of the clone's inputs, batch first, instead of the model's own.

    Returns:
        The clone, trainable, savable and convertible like any Keras model.

    Raises:
        ModelError: If the model has no graph, or has a layer that cannot be rebuilt.
    """
    operations = Operations(model)
    builder = _Builder(model, operations, keep_output_activation, separate_activations, fold_into, fold_forward, shapes)
    with keras.utils.custom_object_scope(_custom_objects(model)):
        return builder.build()


def batchnorm_affine(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Returns gain and offset, float64 (channels,), of what a BatchNorm computes at inference."""
    variance, mean = (np.asarray(v, np.float64) for v in (layer.moving_variance, layer.moving_mean))
    gain = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        gain = gain * np.asarray(layer.gamma, np.float64)
    offset = -mean * gain
    return gain, offset + np.asarray(layer.beta, np.float64) if layer.center else offset


def activation_name(layer: Layer) -> Optional[str]:
    """Returns the name of a layer's activation argument, or None where it has none or it is linear."""
    function = getattr(layer, "activation", None)
    if function is None or function is keras.activations.linear:
        return None
    return getattr(function, "__name__", type(function).__name__)


def symbol_of(layer: Layer) -> Optional[str]:
    """Returns what a layer made from a plain operator or function does (``a + b``: ``"math.add"``), or None."""
    return layer.symbol if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda") else None


@dataclass(frozen=True)
class _Affine:
    """What a BatchNorm does to the input channels of the layer behind it."""

    batchnorm: str
    gain: np.ndarray
    offset: np.ndarray

    def folded_into(self, weights: list[np.ndarray], depthwise: bool) -> list[np.ndarray]:
        """Returns kernel and bias of a layer that does both."""
        kernel = weights[0].astype(np.float64)
        gain, offset = self.gain[:, None], self.offset[:, None]
        added = (kernel * offset).sum(axis=tuple(range(kernel.ndim - (2 if depthwise else 1)))).ravel()
        bias = added + (weights[1].astype(np.float64) if len(weights) > 1 else 0.0)
        return [(kernel * gain).astype(np.float32), bias.astype(np.float32)]


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
        self.alias = {op.outputs[0]: op.inputs[0] for op in operations if _does_nothing(op)}
        self.calls = Counter(id(op.layer) for op in operations)
        self.readers = Counter(self.resolve(key) for op in operations if op.outputs[0] not in self.alias for key in op.inputs)
        self.readers.update(self.resolve(key) for key in operations.outputs)
        self.shapes = list(shapes) or [tuple(tensor.shape) for tensor in model.inputs]
        self.batchnorms = self.find_foldable(fold_into)
        self.forward = self.find_forward() if fold_forward else {}
        heads = [self.find_head(key) for key in operations.outputs]
        self.heads = tuple(head[1] if head else None for head in heads)
        self.stripped = set() if keep_heads else {head[0].name for head in heads if head}
        self.clones: dict[int, Any] = {}
        self.names: set[str] = set(model.input_names) | {op.path for op in operations}
        self.tensors: dict[str, Any] = {}

    def build(self) -> Canonical:
        inputs = [
            keras.Input(batch_shape=shape, dtype=_float32(tensor.dtype.name), name=name)
            for tensor, name, shape in zip(self.user_model.inputs, self.user_model.input_names, self.shapes)
        ]
        self.tensors.update(zip(self.operations.inputs, inputs))
        taken_up = {operation.name for operation in self.batchnorms.values()}
        taken_up |= {affine.batchnorm for affine in self.forward.values()}
        for operation in self.operations:
            layer = operation.layer
            plain_head = operation.name in self.stripped and not layer_kernels(layer, operation.path)
            if operation.outputs[0] in self.alias or operation.name in taken_up or plain_head:
                self.tensors[operation.outputs[0]] = self.tensors[operation.inputs[0]]
            elif isinstance(layer, _SEPARABLE) and self.separate:
                self.add_separable(operation)
            else:
                self.add(operation)
        clone = keras.Model(inputs, [self.tensors[key] for key in self.operations.outputs], name=self.user_model.name)
        return Canonical(clone, self.gains(), {path: bn.path for path, bn in self.batchnorms.items()}, self.heads)

    def resolve(self, key: str) -> str:
        while key in self.alias:
            key = self.alias[key]
        return key

    def find_foldable(self, fold_into: tuple[type, ...]) -> dict[str, Operation]:
        """Path of a layer -> the BatchNorm operation it takes up."""
        found = {}
        for operation in self.operations:
            if not isinstance(operation.layer, layers.BatchNormalization):
                continue
            key = self.resolve(operation.inputs[0])
            before = self.operations.producer.get(key)
            if (
                before is not None
                and type(before.layer) in fold_into
                and activation_name(before.layer) is None
                and self.calls[id(before.layer)] == 1
                and self.readers[key] == 1
                and getattr(before.layer, "data_format", "channels_last") == "channels_last"
                and list(operation.layer.axis) == [len(self.operations.shapes[key]) - 1]
            ):
                found[before.path] = operation
        return found

    def find_forward(self) -> dict[str, _Affine]:
        """Path of a layer -> what the BatchNorm in front of it does to its input channels."""
        reading = {self.resolve(key): op for op in self.operations if op.outputs[0] not in self.alias for key in op.inputs}
        behind = {operation.name for operation in self.find_foldable(FOLDABLE).values()}
        found: dict[str, _Affine] = {}
        for operation in self.operations:
            shape = self.operations.shapes[operation.outputs[0]]
            if (
                not isinstance(operation.layer, layers.BatchNormalization)
                or operation.name in behind
                or self.calls[id(operation.layer)] > 1
                or list(operation.layer.axis) != [len(shape) - 1]
            ):
                continue
            full = tuple(size or 1 for size in shape[1:])
            parts = [np.broadcast_to(part, full) for part in batchnorm_affine(operation.layer)]
            key = operation.outputs[0]
            while self.readers[key] == 1 and key in reading:
                reader, key = reading[key], reading[key].outputs[0]
                after = self.operations.shapes[key][1:]
                if isinstance(reader.layer, _SHAPE_ONLY) and None not in (*shape[1:], *after) and _keeps_order(reader.layer):
                    parts = [part.reshape(after) for part in parts]
                    continue
                rows = [part.reshape(-1, part.shape[-1]) for part in parts]
                if all(np.all(part == part[:1]) for part in rows) and self.takes_forward(reader) and reader.path not in found:
                    found[reader.path] = _Affine(operation.name, rows[0][0], rows[1][0])
                break
        return found

    def takes_forward(self, operation: Operation) -> bool:
        """Whether a layer's weights can take up a factor and an offset of its input channels."""
        layer = operation.layer
        if self.calls[id(layer)] > 1 or type(layer) not in _TAKES_FORWARD:
            return False
        if isinstance(layer, layers.Dense):
            return True
        unpadded = layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)
        return bool(unpadded and layer.groups == 1 and layer.data_format == "channels_last")

    def find_head(self, key: str) -> Optional[tuple[Operation, str]]:
        """The operation with the softmax or sigmoid of an output that nothing else reads, through what only reshapes."""
        key = self.resolve(key)
        operation = self.operations.producer.get(key)
        while operation is not None and isinstance(operation.layer, _SHAPE_ONLY) and self.readers[key] == 1:
            key = self.resolve(operation.inputs[0])
            operation = self.operations.producer.get(key)
        if operation is None or self.calls[id(operation.layer)] > 1 or self.readers[key] > 1:
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
            if operation.path in self.batchnorms:
                kernel = layer_kernels(operation.layer, operation.path)[-1]
                gain, _ = batchnorm_affine(self.batchnorms[operation.path].layer)
                gains[kernel.key] = _along_outputs(kernel, gain).astype(np.float32)
        return gains

    def add(self, operation: Operation) -> None:
        layer = operation.layer
        split = self.separate and type(layer) in FOLDABLE and activation_name(layer) is not None
        strip = operation.name in self.stripped
        new = id(layer) not in self.clones
        if new:
            self.clones[id(layer)] = self.clone_of(operation, linear=split or strip)
        results = operation.call(self.tensors, self.clones[id(layer)])
        if new:
            self.fill(operation, self.clones[id(layer)])
        if split and not strip:
            activation = layers.Activation(layer.activation, name=self.unique(operation.name + "/activation"))
            results = (activation(results[0]),)
        self.tensors.update(zip(operation.outputs, results))

    def clone_of(self, operation: Operation, linear: bool) -> Layer:
        layer = operation.layer
        if self.separate and type(layer) in _ACTIVATIONS:
            return layers.Activation(_function_of(layer), name=operation.path)
        if isinstance(layer, IDENTITIES):  # one that makes numbers of bytes
            return layers.Rescaling(1.0, name=operation.path)
        config = {**_in_float32(layer.get_config()), "name": operation.path}
        if linear:
            config["activation"] = "linear"
        if operation.path in self.batchnorms:
            config.update({key: None for key in config if key.endswith("_constraint")})
            config["use_bias"] = True
        if operation.path in self.forward:
            config["use_bias"] = True
        try:
            return type(layer).from_config(config)
        except Exception as error:  # a custom layer's from_config may raise anything
            raise _cannot_rebuild(operation.path, layer, (str(error) or type(error).__name__).splitlines()[-1]) from None

    def fill(self, operation: Operation, clone: Layer) -> None:
        weights = operation.layer.get_weights()
        if operation.path in self.batchnorms:
            weights = self.folded_weights(operation)
        if operation.path in self.forward:
            weights = self.forward[operation.path].folded_into(weights, depthwise=isinstance(operation.layer, _DEPTHWISE))
        try:
            clone.set_weights(weights)
        except ValueError as error:
            raise _cannot_rebuild(operation.path, operation.layer, first_line(error)) from None
        if hasattr(clone, "finalize_state"):  # Normalization keeps derived constants beside its weights
            clone.finalize_state()

    def folded_weights(self, operation: Operation) -> list[np.ndarray]:
        layer = operation.layer
        gain, offset = batchnorm_affine(self.batchnorms[operation.path].layer)
        *before, last = layer_kernels(layer, operation.path)
        bias = np.asarray(layer.bias, np.float64) * gain + offset if layer.use_bias else offset
        kernel = last.value.astype(np.float64) * _along_outputs(last, gain)
        return [*(kernel.value for kernel in before), kernel.astype(np.float32), bias.astype(np.float32)]

    def add_separable(self, operation: Operation) -> None:
        layer = operation.layer
        weights = self.folded_weights(operation) if operation.path in self.batchnorms else layer.get_weights()
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


def _does_nothing(operation: Operation) -> bool:
    if not isinstance(operation.layer, IDENTITIES):
        return False
    before, after = operation.node.keras_inputs[0].dtype.name, tf.nest.flatten(operation.node.outputs)[0].dtype.name
    return _float32(before) == _float32(after)


def _keeps_order(layer: Layer) -> bool:
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")


def _float32(dtype: str) -> str:
    return "float32" if dtype in _OTHER_FLOATS else dtype


def _in_float32(config: Any) -> Any:
    """A layer's configuration, with whatever is inside it, computing in float32."""
    if isinstance(config, Mapping):
        changed = {key: _in_float32(part) for key, part in config.items()}
        policy = config.get("dtype")
        name = policy.get("config", {}).get("name") if isinstance(policy, Mapping) else policy
        return {**changed, "dtype": "float32"} if name in _OTHER_FLOATS else changed
    return [_in_float32(part) for part in config] if isinstance(config, list) else config


def _cannot_rebuild(path: str, layer: Layer, reason: str) -> ModelError:
    return ModelError(
        f"layer {path!r} ({type(layer).__name__}) cannot be rebuilt from its configuration ({reason})",
        "a layer whose get_config() holds every argument of its constructor",
        "Add what is missing to get_config(), or replace the layer by standard Keras layers",
    )


def _custom_objects(model: Model) -> dict[str, Any]:
    """Classes and functions that the layers' configurations name but Keras may not know."""
    found: dict[str, Any] = {}
    for layer in model._flatten_layers():
        found[type(layer).__name__] = type(layer)
        for value in (getattr(layer, "activation", None), getattr(layer, "recurrent_activation", None)):
            if callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>":
                found[value.__name__] = value
    return found
