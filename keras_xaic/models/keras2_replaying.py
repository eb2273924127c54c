"""A graph of Keras 2 made again with copies of its layers, for any number of samples, operations with weights as layers."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Layer, Tensor, keras, layers, tf
from keras_xaic.models.keras2_graph import calls_to, is_symbolic, run_again
from keras_xaic.models.operations import symbol_of
from keras_xaic.models.rebuilding import fill, rebuilt

MOST_VALUES = 300_000
"""Largest constant of an operation: it is written into the configuration of the model, as text."""
_SUMS = ("math.add", "__operators__.add", "nn.bias_add")
_OF_WEIGHTS = {
    "linalg.matmul": ("a", "b"),
    "tensordot": ("a", "b", "axes"),
    "nn.convolution": ("input", "filters", "strides", "padding", "data_format", "dilations"),
    "nn.conv2d": ("input", "filters", "strides", "padding", "data_format", "dilations"),
    "compat.v1.nn.conv2d": ("input", "filter", "strides", "padding", "use_cudnn_on_gpu", "data_format", "dilations"),
    "nn.depthwise_conv2d": ("input", "filter", "strides", "padding", "data_format", "dilations"),
    "compat.v1.nn.depthwise_conv2d": ("input", "filter", "strides", "padding", "rate", "name", "data_format", "dilations"),
}
"""Functions that a layer of Keras computes where the second argument is a constant -> their arguments."""
_SHAPES = ("compat.v1.shape", "shape")


def input_like(tensor: Tensor, samples: Optional[int]) -> Tensor:
    """Returns an input of that name, shape and type, for so many samples; None: any number."""
    return keras.Input(batch_shape=(samples, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.node.layer.name)


def name_in(owner: str, layer: Any) -> str:
    """Returns what a part of a layer is called: a number by Keras, in the order in which all were made, is left out."""
    kind = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", type(layer).__name__).lower()
    return f"{owner}_{kind if re.fullmatch(re.escape(kind) + r'(_[0-9]+)?', layer.name) else layer.name}"


def free_name(wanted: str, taken: set[str]) -> str:
    """Returns a name that no layer has, and adds it to those that are taken."""
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name


class Replay:
    """Makes a graph again.

    Args:
        name: What the model is called.
        samples: How many samples its tensors have; what is a multiple of it counts samples.
        owners: ``id`` of a layer -> the name of the user's layer that it lay in.
        kept: ``id`` of layers that keep their names.
        shapes: Of the weights that layers of the user's train: constants of others are nobody's weights.
    """

    def __init__(self, name: str, samples: int, owners: dict[int, str], kept: set[int], shapes: set[tuple[int, ...]]) -> None:
        self.name, self.samples, self.owners, self.kept, self.shapes = name, samples, owners, kept, shapes
        self.copies: dict[int, Layer] = {}
        self.shared: dict[Any, Layer] = {}
        """Layers that were made for weights, by these."""
        self.taken: set[str] = set()
        self.readers: dict[int, list[Any]] = defaultdict(list)
        self.done: set[int] = set()
        """``id`` of calls that the layer made for the one before them does, too."""

    def of(self, inputs: list[Tensor], outputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Returns inputs and outputs of the new graph."""
        calls = calls_to(outputs)
        self.taken |= {node.layer.name for node in calls if id(node.layer) in self.kept}
        for node in calls:
            for tensor in node.keras_inputs:
                self.readers[id(tensor)].append(node)
        for tensor in outputs:
            self.readers[id(tensor)] += [tensor.node] * 2  # what is an output has to stay
        free = [input_like(tensor, None) for tensor in inputs]
        last = run_again(calls, inputs, free, outputs, self._again)
        for node in calls_to(last):  # named in their order here
            symbol = symbol_of(node.layer)
            if symbol is not None and id(node.layer) not in self.kept:
                node.layer._name = self._free(f"{self.owners.get(id(node.layer), 'tf')}.{symbol}")
        return free, last

    def _again(self, node: Any, args: Any, kwargs: Any) -> Any:
        """Makes a call with a copy of its layer, for any number of samples; of constants alone a constant."""
        layer, symbol = node.layer, symbol_of(node.layer)
        if id(node) in self.done:
            return next(filter(is_symbolic, tf.nest.flatten((args, kwargs))))
        if symbol in _SHAPES:
            return np.array(node.keras_inputs[0].shape.as_list(), np.int32)
        owner = self.owners.get(id(layer), "")
        if not any(map(is_symbolic, tf.nest.flatten((args, kwargs)))):
            return tf.nest.map_structure(np.asarray, layer(*args, **kwargs))
        if symbol is None:
            args, kwargs = self._for_all_samples(args, kwargs)
        args, kwargs = tf.nest.map_structure(self._constant, (args, kwargs))
        if symbol is None:
            return self._copied(layer, args, kwargs)
        made = self._instead(node, symbol, args, kwargs, owner)
        if made is not None:
            return made
        if any(isinstance(one, np.ndarray) and one.size > MOST_VALUES for one in tf.nest.flatten((args, kwargs))):
            raise ValueError("a large constant would be written into the configuration of the model")
        new = type(layer).from_config(layer.get_config())
        if id(layer) in self.kept:
            self.kept.add(id(new))
        elif id(layer) in self.owners:
            self.owners[id(new)] = self.owners[id(layer)]
        return new(*args, **kwargs)

    def _copied(self, layer: Layer, args: Any, kwargs: Any) -> Any:
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        if id(layer) in self.copies:
            return self.copies[id(layer)](*args, **kwargs)
        if isinstance(layer, keras.Model):
            new = keras.models.clone_model(layer)
        else:
            new = rebuilt(layer, {**layer.get_config(), "name": self._name(layer)})
        made = new(*args, **kwargs)
        fill(new, layer.get_weights())
        self.copies[id(layer)] = new
        return made

    def _name(self, layer: Layer) -> str:
        if id(layer) in self.kept:
            return str(layer.name)
        return self._free(name_in(self.owners.get(id(layer), self.name), layer))

    def _free(self, wanted: str) -> str:
        return free_name(wanted, self.taken)

    def _constant(self, value: Any) -> Any:
        """Returns weights and values as arrays, those that are the same for all samples for one."""
        if isinstance(value, (tf.Variable, tf.Tensor)):
            value = value.numpy()
        if isinstance(value, np.ndarray) and value.ndim and value.shape[0] == self.samples:
            if not np.array_equal(value, np.broadcast_to(value[:1], value.shape)):
                raise ValueError("every sample gets another constant")
            value = value[:1]
        return value

    def _for_all_samples(self, args: Any, kwargs: Any) -> Any:
        """Gives constants that a layer takes beside tensors, one for each sample, as many samples as those have."""
        some = next(filter(is_symbolic, tf.nest.flatten((args, kwargs))))

        def spread(one: Any) -> Any:
            shape: Any = getattr(one, "shape", ()) if isinstance(one, (tf.Variable, tf.Tensor, np.ndarray)) else ()
            return _zeros(some, len(shape)) + self._constant(one) if len(shape) and shape[0] == self.samples else one

        return tf.nest.map_structure(spread, (args, kwargs))

    def _instead(self, node: Any, symbol: str, args: Any, kwargs: Any, owner: str) -> Any:
        """Returns what an operation is in layers and operations for any number of samples; None where it stays."""
        x: Any = args[0] if args else None
        shape = tuple(tf.nest.flatten(node.outputs)[0].shape)
        free = [-1 if size is None or size % self.samples == 0 else int(size) for size in shape]
        if symbol == "reshape" and free.count(-1) == 1:
            return tf.reshape(x, free)
        if symbol == "broadcast_to":
            return x + np.zeros([1 if size == -1 else size for size in free], np.float32)
        if symbol == "concat" and isinstance(x, (list, tuple)) and not all(map(is_symbolic, x)):
            some = next(filter(is_symbolic, x))
            parts = [one if is_symbolic(one) else _zeros(some, np.ndim(one)) + one for one in x]
            return tf.concat(parts, **kwargs) if len(args) == 1 else tf.concat(parts, args[1])
        if symbol.removeprefix("compat.v1.") in ("gather", "nn.embedding_lookup") and isinstance(x, np.ndarray):
            return self._looked_up(x, args[1:], kwargs, owner)
        if symbol in _OF_WEIGHTS:
            return self._weighted(node, symbol, {**dict(zip(_OF_WEIGHTS[symbol], args)), **kwargs}, owner)
        if symbol == "image.extract_patches":
            return self._patches(args, kwargs)
        return None

    def _looked_up(self, table: np.ndarray, args: Any, kwargs: Any, owner: str) -> Any:
        rows = [one for one in tf.nest.flatten((args, kwargs)) if is_symbolic(one)]
        if (
            len(rows) != 1
            or kwargs.get("axis") not in (None, 0)
            or len(args) > 3
            or table.ndim != 2
            or table.shape not in self.shapes
        ):
            return None
        make = functools.partial(layers.Embedding, *table.shape)
        return self._with_weights(make, [table], owner or f"{self.name}_table", rows[0])

    def _with_weights(self, make: Callable[..., Layer], weights: list[np.ndarray], name: str, x: Any) -> Any:
        """Calls a layer with weights; for the same ones of the same layer of the user's it is the same, called again."""
        key = (name, repr(make), *(one.tobytes() for one in weights))
        layer = self.shared.get(key)
        if layer is not None:
            return layer(x)
        layer = self.shared[key] = make(name=self._free(name))
        made = layer(x)
        layer.set_weights(weights)
        return made

    def _weighted(self, node: Any, symbol: str, given: dict[str, Any], owner: str) -> Any:
        """Makes a layer of an operation with constant weights, and of the addition of a bias behind it."""
        x, weights = (given.pop(name, None) for name in _OF_WEIGHTS[symbol][:2])
        weights = given.pop("filters", None) if weights is None else weights
        unused = ("name", "use_cudnn_on_gpu")
        given = {key: value for key, value in given.items() if key not in unused and value is not None and value is not False}
        if not is_symbolic(x) or not isinstance(weights, np.ndarray) or weights.shape not in self.shapes:
            return None
        make = _layer_of(symbol, len(x.shape), weights, given)
        if make is None:
            return None
        bias = self._bias_behind(node, tf.nest.flatten(node.outputs)[0].shape[-1])
        values = [weights] if bias is None else [weights, bias]
        make = functools.partial(make, use_bias=bias is not None)
        return self._with_weights(make, values, owner or f"{self.name}_{symbol}", x)

    def _bias_behind(self, node: Any, units: int) -> Optional[np.ndarray]:
        """Returns the constant that nothing but the next call adds to a result; that call is done then."""
        readers = self.readers[id(node.outputs)]
        if len(readers) != 1 or symbol_of(readers[0].layer) not in _SUMS:
            return None
        others = [one for one in tf.nest.flatten((readers[0].call_args, readers[0].call_kwargs)) if not is_symbolic(one)]
        values = [self._constant(one) for one in others if isinstance(one, (tf.Variable, tf.Tensor, np.ndarray))]
        if len(values) != 1 or values[0].size != units or values[0].shape[-1] != units:
            return None
        self.done.add(id(readers[0]))
        return np.ravel(values[0])

    def _patches(self, args: Any, kwargs: Any) -> Any:
        given = {**dict(zip(("images", "sizes", "strides", "rates", "padding"), args)), **kwargs}
        x, (_, high, wide, _) = given["images"], given["sizes"]
        shape, strides, rates = x.shape, list(given["strides"]), list(given["rates"])
        if None in shape[1:]:
            return None
        if strides != [1, high, wide, 1] or rates != [1, 1, 1, 1] or high != wide or given["padding"] != "VALID":
            values = np.eye(high * wide * shape[3], dtype=np.float32).reshape(high, wide, shape[3], -1)
            return tf.nn.conv2d(x, values, strides, given["padding"], dilations=rates)
        rows, columns = shape[1] // high * high, shape[2] // wide * wide
        if (rows, columns) != (shape[1], shape[2]):
            x = x[:, :rows, :columns]
        return tf.nn.space_to_depth(x, high)


def _layer_of(symbol: str, rank: int, weights: np.ndarray, given: dict[str, Any]) -> Optional[Callable[..., Layer]]:
    """Returns what makes the layer of Keras that computes a function with weights; None where there is none."""
    size, units = weights.shape[:-2], int(weights.shape[-1])
    if symbol in ("linalg.matmul", "tensordot"):
        axes = given.pop("axes", 1)
        last = axes == 1 or ([int(np.ravel(one)[0]) % rank for one in axes[:1]] == [rank - 1] and not np.any(axes[1]))
        return functools.partial(layers.Dense, units) if weights.ndim == 2 and last and not given else None
    if given.get("data_format", "NHWC") not in ("NHWC", "NWC", "NDHWC") or given.get("padding") not in ("SAME", "VALID"):
        return None
    how = {"padding": given["padding"].lower()}
    for key, ours in (("strides", "strides"), ("dilations", "dilation_rate")):
        value = [int(one) for one in np.ravel(given.get(key, 1))]
        how[ours] = tuple(value[1:-1] if len(value) == rank else value * (rank - 2) if len(value) == 1 else value)
    if "rate" in given:
        how["dilation_rate"] = tuple(given["rate"])
    if "depthwise" in symbol:
        return functools.partial(layers.DepthwiseConv2D, size, depth_multiplier=units, **how)
    return functools.partial(getattr(layers, f"Conv{len(size)}D"), units, size, **how)


def _zeros(tensor: Tensor, rank: int) -> Tensor:
    """Returns a zero for each sample of a tensor."""
    first = tensor[(slice(None), *[slice(0, 1)] * (len(tensor.shape) - 1))]
    return tf.zeros_like(first if len(tensor.shape) == rank else tf.reshape(first, (-1, *[1] * (rank - 1))))
