"""A graph of Keras 3 made again with copies of its layers, for any number of samples, in operations that have counterparts."""

from __future__ import annotations

import copy
import functools
import re
from collections import defaultdict
from typing import Any

import numpy as np

from keras_xaic.errors import ModelError, first_line
from keras_xaic.models.keras2_replaying import MOST_VALUES, free_name, name_in
from keras_xaic.models.keras3_graph import Graph


class Replay:
    """Makes a graph again.

    Args:
        library: Keras 3.
        source: What the model is called in messages.
        samples: How many samples its tensors have; what is a multiple of it counts samples.
        owners: ``id`` of a layer -> the name of the user's layer that it lay in.
        kept: ``id`` of layers that keep their names.
        shapes: Of the weights that layers of the user's train: constants of others are nobody's weights.
    """

    def __init__(
        self, library: Any, source: str, samples: int, owners: dict[int, str], kept: set[int], shapes: set[Any]
    ) -> None:
        self.library, self.source, self.samples = library, source, samples
        self.owners, self.kept, self.shapes = owners, kept, shapes
        self.copies: dict[int, Any] = {}
        self.name, self.alive = "model", list[Any]()
        self.taken: set[str] = set()
        self.shared: dict[Any, Any] = {}
        """Layers that were made for weights, by these."""
        self.done: set[int] = set()
        """``id`` of nodes that the layer made for the one before them computes, too."""
        self.readers: dict[int, list[Any]] = defaultdict(list)
        self.special = {
            "BroadcastTo": self._broadcast,
            "Concatenate": self._joined,
            "Conv": self._convolution,
            "DepthwiseConv": self._convolution,
            "Dot": self._product,
            "DotProductAttention": self._attention,
            "Einsum": self._einsum,
            "ExtractPatches": self._patches,
            "Glu": self._glu,
            "LayerNorm": self._normalized,
            "Matmul": self._product,
            "Moments": self._moments,
            "Reshape": self._reshape,
            "Stack": self._joined,
            "Take": self._looked_up,
        }

    def of(self, graph: Graph, name: str) -> Any:
        """Returns the new model, called `name`.

        Args:
            graph: What it computes, for `samples` samples.
        """
        tree, calls, self.name = self.library.tree, graph.calls(), name
        self.taken |= {node.operation.name for node in calls if id(node.operation) in self.kept}
        for node in calls:
            for tensor in node.input_tensors:
                self.readers[id(tensor)].append(node)
        for tensor in tree.flatten(graph.outputs):
            self.readers[id(tensor)].append(None)

        def free(tensor: Any) -> Any:
            return self.library.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)

        inputs = tree.map_structure(free, graph.inputs)
        made = Graph(tree, inputs, graph.run(inputs, self._called))
        for node in made.calls():  # Keras counts names for the whole process
            if not isinstance(node.operation, self.library.layers.Layer):
                owner = self.owners.get(id(node.operation), "")
                node.operation.name = self._free(f"{owner}_{type(node.operation).__name__.lower()}".lstrip("_"))
        return self.library.Model(made.inputs, made.outputs, name=name)

    def _called(self, node: Any, args: Any, kwargs: Any) -> Any:
        layer = node.operation
        if id(node) in self.done:
            return next(one for one in self.library.tree.flatten((args, kwargs)) if self._is_tensor(one))
        if isinstance(layer, self.library.layers.Layer):
            kwargs = {key: value for key, value in kwargs.items() if value is not None and key != "training"}
            args, kwargs = self._constants(self._for_all_samples(args, kwargs))
            new = self._copy(layer)
            made = new(*args, **kwargs)
            if id(layer) not in self.copies:
                new.set_weights(layer.get_weights())
                self.copies[id(layer)] = new
            return made
        owner = next(
            (one.path for one in self.library.tree.flatten((args, kwargs)) if isinstance(one, self.library.Variable)), ""
        )
        args, kwargs = self._constants((args, kwargs))
        change = self.special.get(type(layer).__name__)
        made = None if change is None else change(node, args, owner)
        if made is not None:
            return made
        for one in self.library.tree.flatten((args, kwargs)):
            if isinstance(one, np.ndarray) and one.size > MOST_VALUES:
                found = (
                    f"{self.source}: operation {layer.name!r} ({type(layer).__name__}) holds a constant of {one.size:,} values"
                )
                raise ModelError(found, f"at most {MOST_VALUES:,}, others as weights of layers", "Use a layer of Keras for it")
        return self._anew(layer)(*args, **kwargs)

    def _copy(self, layer: Any) -> Any:
        if id(layer) in self.copies:
            return self.copies[id(layer)]
        try:
            if isinstance(layer, self.library.Model):
                return self.library.models.clone_model(layer)
            return type(layer).from_config({**layer.get_config(), "name": self._name(layer)})
        except Exception as error:  # Keras raises whatever it stumbles upon
            found = f"{self.source}: layer {layer.name!r} ({type(layer).__name__}) cannot be copied ({first_line(error)})"
            raise ModelError(found, "layers of Keras") from error

    def _anew(self, operation: Any) -> Any:
        """Returns an operation without the calls of another."""
        made = copy.copy(operation)
        made._inbound_nodes, made._outbound_nodes = [], []
        if id(operation) in self.owners:
            self.owners[id(made)] = self.owners[id(operation)]
            self.alive.append(made)
        return made

    def _name(self, layer: Any) -> str:
        if id(layer) in self.kept:
            return str(layer.name)
        return self._free(name_in(self.owners.get(id(layer), self.name), layer))

    def _free(self, wanted: str) -> str:
        return free_name(re.sub(r"[^\w.-]", "_", wanted), self.taken)

    def _is_tensor(self, value: object) -> bool:
        return isinstance(value, self.library.KerasTensor)

    def _constants(self, values: Any) -> Any:
        return self.library.tree.map_structure(self._constant, values)

    def _constant(self, value: Any) -> Any:
        """Returns weights and tensors with values as arrays, those that are the same for all samples for one."""
        if self._is_tensor(value):
            return value
        if isinstance(value, self.library.Variable) or self.library.ops.is_tensor(value):
            value = np.asarray(self.library.ops.convert_to_numpy(value))
        if isinstance(value, np.ndarray) and value.ndim and value.shape[0] == self.samples:
            if not np.array_equal(value, np.broadcast_to(value[:1], value.shape)):
                found = f"{self.source} gives every sample another constant, as random numbers do"
                raise ModelError(found, "outputs that depend on inputs alone", "Give the model without them")
            value = value[:1]
        return value

    def _zeros(self, tensor: Any, rank: int) -> Any:
        """Returns a zero for each sample of a tensor."""
        first = tensor[(slice(None), *[slice(0, 1)] * (len(tensor.shape) - 1))]
        ops = self.library.ops
        return ops.zeros_like(first if len(tensor.shape) == rank else ops.reshape(first, (-1, *[1] * (rank - 1))))

    def _for_all_samples(self, args: Any, kwargs: Any) -> Any:
        """Gives constants that a layer takes beside tensors, one for each sample, as many samples as those have."""
        tree, ops = self.library.tree, self.library.ops
        some = next(one for one in tree.flatten((args, kwargs)) if self._is_tensor(one))

        def spread(one: Any) -> Any:
            shape: Any = () if self._is_tensor(one) else getattr(one, "shape", ())
            if len(shape) == 0 or shape[0] != self.samples:
                return one
            return ops.add(self._zeros(some, len(shape)), self._constant(one))

        return tree.map_structure(spread, (args, kwargs))

    def _without_samples(self, shape: Any) -> list[int]:
        return [-1 if size is None or size % self.samples == 0 else size for size in shape]

    def _reshape(self, node: Any, args: Any, _: str) -> Any:
        shape = self._without_samples(node.outputs[0].shape)
        if shape.count(-1) > 1:
            return None
        return self.library.ops.reshape(args[0], shape)

    def _broadcast(self, node: Any, args: Any, _: str) -> Any:
        shape = [1 if size == -1 else size for size in self._without_samples(node.outputs[0].shape)]
        return self.library.ops.add(args[0], np.zeros(shape, node.outputs[0].dtype))

    def _joined(self, node: Any, args: Any, _: str) -> Any:
        """Constants among the parts get as many samples as the others have."""
        ops, parts = self.library.ops, list(args[0])
        if all(map(self._is_tensor, parts)):
            return None
        some = next(part for part in parts if self._is_tensor(part))
        parts = [part if self._is_tensor(part) else ops.add(self._zeros(some, np.ndim(part)), part) for part in parts]
        return self._anew(node.operation)(parts)

    def _product(self, node: Any, args: Any, owner: str) -> Any:
        x, weights = args[:2]
        if not self._is_tensor(x) or self._is_tensor(weights) or np.ndim(weights) != 2 or len(x.shape) < 2:
            return None
        make = self.library.layers.Dense
        return self._weighted(node, x, weights, owner, lambda **how: make(weights.shape[1], **how))

    def _einsum(self, node: Any, args: Any, owner: str) -> Any:
        left, _, result = str(node.operation.subscripts).replace(" ", "").partition("->")
        terms, operands = left.split(","), args[1:] if isinstance(args[0], str) else args
        if len(operands) != 2 or sum(map(self._is_tensor, operands)) != 1 or "." in left:
            return None
        if not self._is_tensor(operands[0]):
            terms, operands = terms[::-1], operands[::-1]
        x, weights = operands
        made = None
        if terms[0][0] == result[:1] and terms[0][0] not in terms[1]:
            shape = [None if size == -1 else size for size in self._without_samples(node.outputs[0].shape)][1:]
            make = functools.partial(self.library.layers.EinsumDense, f"{terms[0]},{terms[1]}->{result}", shape)
            made = self._weighted(
                node, x, weights, owner, lambda use_bias, **how: make(bias_axes=result[-1] if use_bias else None, **how)
            )
        return self._contracted(terms, x, weights, result) if made is None else made

    def _contracted(self, terms: list[str], x: Any, constant: Any, result: str) -> Any:
        """A product of a tensor and a constant, of which all that both have is summed over."""
        ops, shared = self.library.ops, [axis for axis in terms[1] if axis in terms[0]]
        left = [axis for axis in terms[0] + terms[1] if axis not in shared]
        if not shared or sorted(left) != sorted(result):
            return None
        made = ops.tensordot(x, constant, [[term.index(axis) for axis in shared] for term in terms])
        return made if left == list(result) else ops.transpose(made, [left.index(axis) for axis in result])

    def _convolution(self, node: Any, args: Any, owner: str) -> Any:
        how, layers = node.operation, self.library.layers
        x, kernel = args[:2]
        if not self._is_tensor(x) or self._is_tensor(kernel) or how.data_format == "channels_first":
            return None
        size, rank = kernel.shape[:-2], len(kernel.shape) - 2
        given = {"strides": how.strides, "padding": how.padding, "dilation_rate": how.dilation_rate}
        if type(how).__name__ == "DepthwiseConv":
            make = getattr(layers, f"DepthwiseConv{rank}D")
            return self._weighted(
                node, x, kernel, owner, lambda **more: make(size, depth_multiplier=kernel.shape[-1], **given, **more)
            )
        make, groups = getattr(layers, f"Conv{rank}D"), x.shape[-1] // kernel.shape[-2]
        return self._weighted(
            node, x, kernel, owner, lambda **more: make(kernel.shape[-1], size, groups=groups, **given, **more)
        )

    def _weighted(self, node: Any, x: Any, weights: np.ndarray, owner: str, make: Any) -> Any:
        """Makes a layer of an operation with weights, and of the addition of a bias behind it."""
        if tuple(weights.shape) not in self.shapes:
            return None
        bias, units = None, node.outputs[0].shape[-1]
        reader = self.readers[id(node.outputs[0])]
        if len(reader) == 1 and reader[0] is not None and type(reader[0].operation).__name__ == "Add":
            others = [one for one in reader[0].arguments.args if not self._is_tensor(one)]
            value = self._constant(others[0]) if len(others) == 1 else None
            if isinstance(value, np.ndarray) and value.size == units == value.shape[-1]:
                bias = value.ravel()
                self.done.add(id(reader[0]))
        name = self.owners.get(id(node.operation)) or owner.rpartition("/")[0]
        name = name or f"{self.name}_{type(node.operation).__name__}".lower()
        make = functools.partial(make, use_bias=bias is not None)
        return self._with_weights(node, make, [weights] if bias is None else [weights, bias], name, x)

    def _with_weights(self, node: Any, make: Any, weights: list[np.ndarray], name: str, x: Any) -> Any:
        """Calls a layer with weights; for the same ones of the same layer of the user's it is the same, called again."""
        how = {key: value for key, value in node.operation.get_config().items() if key != "name"}
        key = (name, type(node.operation), repr(how), *(one.tobytes() for one in weights))
        layer = self.shared.get(key)
        if layer is not None:
            return layer(x)
        layer = self.shared[key] = make(name=self._free(name))
        made = layer(x)
        layer.set_weights(weights)
        return made

    def _patches(self, node: Any, args: Any, _: str) -> Any:
        how, ops = node.operation, self.library.ops
        (high, wide), strides = (2 * [how.size] if isinstance(how.size, int) else how.size), how.strides
        strides = 2 * (strides,) if isinstance(strides, int) else tuple(strides or (high, wide))
        shape, apart = args[0].shape, (strides == (high, wide)) and how.dilation_rate in (1, (1, 1), [1, 1])
        if None in shape[1:] or how.data_format == "channels_first":
            return None
        if not apart or how.padding.lower() != "valid":
            rates = 2 * (how.dilation_rate,) if isinstance(how.dilation_rate, int) else tuple(how.dilation_rate)
            values = np.eye(high * wide * shape[3], dtype=np.float32).reshape(high, wide, shape[3], -1)
            return ops.conv(args[0], values, strides, how.padding, dilation_rate=rates)
        rows, columns, channels = shape[1] // high, shape[2] // wide, shape[3]
        x = args[0]
        if (rows * high, columns * wide) != tuple(shape[1:3]):
            x = x[:, : rows * high, : columns * wide]
        if high == wide and hasattr(ops.nn, "space_to_depth"):
            return ops.nn.space_to_depth(x, high)
        parts = ops.transpose(ops.reshape(x, (-1, rows, high, columns, wide, channels)), (0, 1, 3, 2, 4, 5))
        return ops.reshape(parts, (-1, rows, columns, high * wide * channels))

    def _looked_up(self, node: Any, args: Any, owner: str) -> Any:
        table, rows = args[:2]
        if not self._is_tensor(rows) or node.operation.axis != 0 or np.ndim(table) != 2 or table.shape not in self.shapes:
            return None
        name = self.owners.get(id(node.operation)) or owner.rpartition("/")[0] or f"{self.name}_take"
        make = functools.partial(self.library.layers.Embedding, *table.shape)
        return self._with_weights(node, make, [table], name, rows)

    def _attention(self, node: Any, args: Any, _: str) -> Any:
        """Attention as it is defined (Vaswani et al. 2017, arXiv 1706.03762, equation 1), without masks."""
        ops, (query, key, value, *others) = self.library.ops, args
        given = node.arguments.kwargs
        scale = others.pop(2) if len(others) > 2 else given.get("scale")
        masks = [*others, given.get("bias"), given.get("mask"), getattr(node.operation, "attn_logits_soft_cap", None)]
        if node.operation.is_causal or any(one is not None for one in masks) or query.shape[2] != key.shape[2]:
            return None
        scores = ops.multiply(ops.einsum("btnh,bsnh->bnts", query, key), scale or query.shape[-1] ** -0.5)
        return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores), value)

    def _normalized(self, node: Any, args: Any, _: str) -> Any:
        how, (x, gamma, beta) = node.operation, (*args, None, None)[:3]
        if how.rms_scaling or any(map(self._is_tensor, (gamma, beta))):
            return None
        epsilon = self.library.config.epsilon() if how.epsilon is None else how.epsilon
        given = {"axis": how.axis, "epsilon": epsilon, "scale": gamma is not None, "center": beta is not None}
        layer = self.library.layers.LayerNormalization(**given, name=self._free("layernorm"))
        made = layer(x)
        layer.set_weights([one for one in (gamma, beta) if one is not None])
        return made

    def _moments(self, node: Any, args: Any, _: str) -> Any:
        ops, how = self.library.ops, node.operation
        return [make(args[0], axis=how.axes, keepdims=how.keepdims) for make in (ops.mean, ops.var)]

    def _glu(self, node: Any, args: Any, _: str) -> Any:
        ops = self.library.ops
        values, gates = ops.split(args[0], 2, axis=node.operation.axis)
        return ops.multiply(values, ops.sigmoid(gates))
