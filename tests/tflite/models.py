"""Small models on synthetic grids, and the interpreter that judges what is written of them."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import keras, layers, tf
from keras_xaic.edge import judge
from keras_xaic.edge.child.adapters import Lite
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.tflite.flatbuffer import TensorType, constant, load, pack, set_constant
from keras_xaic.tflite.pairing import weight_operators
from keras_xaic.tflite.rewrite import write_grids


def litert_since(*release: int) -> bool:
    """Whether LiteRT of this release, or a newer one, is installed: Python 3.9 gets no later one than 2.1."""
    try:
        found = importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in found.split(".")[:2]) >= release


@dataclass(frozen=True)
class Small:
    """A compressed model as export takes it."""

    model: Any
    kernels: dict[str, QuantizedKernel]
    storages: dict[str, str]
    plan: Optional[Any] = None


def digits_cnn() -> Any:
    """Convolution, depthwise, separable, residual, dense: what small image models are made of."""
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="first")(x)
    x = skip = layers.Conv2D(6, 1, name="point", activation="relu6")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depth")(x)
    x = layers.Conv2D(6, 3, padding="same", name="inner")(x)
    x = layers.ReLU()(layers.Add()([x, skip]))
    x = layers.SeparableConv2D(7, 3, strides=2, padding="same", activation="relu", name="sep")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(9, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))


def odd_layers() -> Any:
    """Conv1D, transposed convolution, a layer called twice, two inputs and two outputs."""
    image, extra = keras.Input((6, 6, 2)), keras.Input((5,))
    x = layers.Conv2DTranspose(3, 2, strides=2, name="up")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="doubling")(x)
    x = layers.Reshape((10, 60))(x)
    x = layers.Conv1D(4, 3, activation="relu", name="line")(x)
    x = layers.Flatten()(x)
    twice = layers.Dense(5, activation="relu", name="twice")
    x = twice(layers.Concatenate()([twice(extra), layers.Dense(5, name="five")(x)])[:, 3:8])
    return keras.Model([image, extra], [layers.Dense(3, name="a")(x), layers.Dense(2, use_bias=False, name="b")(x)])


def on_grids(model: Any, bits: int = 4, storage: str = "int4", per_tensor: bool = False, seed: int = 0) -> Small:
    """Gives every kernel of `model` a random grid of `bits` (dense kernels one step) and small random biases."""
    random = np.random.default_rng(seed)
    limit = 2 ** (bits - 1) - 1
    kernels, storages = {}, {}
    for kernel in weighted_kernels(model):
        integers = random.integers(-limit, limit + 1, kernel.shape).astype(np.int8)
        one_step = per_tensor or kernel.kind == "dense"
        axes = tuple(1 if one_step or axis not in kernel.channel_axes else n for axis, n in enumerate(kernel.shape))
        fan_in = kernel.size / kernel.channels
        scale = (random.uniform(0.5, 1.5, axes) / (limit * np.sqrt(fan_in))).astype(np.float32)
        kernels[kernel.key] = QuantizedKernel(integers, scale, bits)
        storages[kernel.key] = "int8" if kernel.kind == "conv_transpose" else storage
        kernel.variable.assign(kernels[kernel.key].values)
        bias = getattr(kernel.layer, "bias", None)
        if bias is not None:
            bias.assign(random.normal(0, 0.1, bias.shape))
    return Small(model, kernels, storages)


def inputs_of(model: Any, count: int = 16, seed: int = 1) -> list[np.ndarray]:
    """Returns random inputs, one array per input of the model."""
    random = np.random.default_rng(seed)
    return [random.normal(size=(count, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]


def open_file(content: bytes) -> Any:
    """Opens a file in the interpreter that judges, without delegates: their kernels round otherwise than the built-in ones."""
    module = importlib.import_module(Lite.modules[judge()][0])
    kernels = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return module.Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)


def require_reference_bits(micro: np.ndarray, reference: np.ndarray) -> None:
    """TensorFlow Lite Micro gives the bits of TensorFlow 2.14's reference kernels; newer ones round some codes otherwise."""
    if tf.__version__.startswith("2.14"):
        np.testing.assert_array_equal(micro, reference)
    else:
        difference = np.abs(micro.astype(int) - reference.astype(int))
        assert difference.max() <= 1
        assert np.mean(difference == 0) > 0.95


def run(content: bytes, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Runs a file with a batch of 1 (see `open_file`); floats are quantized to what an int8 input takes."""
    interpreter = open_file(content)
    interpreter.allocate_tensors()
    outputs = []
    for row in zip(*arrays):
        for detail, sample in zip(interpreter.get_input_details(), row):
            if detail["dtype"] == np.int8 and sample.dtype != np.int8:
                scale, zero = detail["quantization"]
                sample = np.clip(np.rint(sample / scale) + zero, -128, 127).astype(np.int8)
            interpreter.set_tensor(detail["index"], sample[np.newaxis])
        interpreter.invoke()
        outputs.append([interpreter.get_tensor(detail["index"])[0] for detail in interpreter.get_output_details()])
    return [np.stack(column) for column in zip(*outputs)]


def with_grids(int8, float32, kernels, storages):
    """The int8 twin, as a file, with grids written into it."""
    file = load(int8)
    write_grids(file, weight_operators(load(float32)), kernels, storages)
    return pack(file)


def as_int8(content: bytes) -> bytes:
    """The same integers and steps, one byte each."""
    model = load(content)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == TensorType.INT4:
            set_constant(model, tensor, constant(model, tensor), TensorType.INT8)
    return pack(model)
