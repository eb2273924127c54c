"""Layers and models of the user's own, of Keras 2, replaced by the layers of Keras and operations that their call makes.

As `keras_xaic.models.keras3_opening` does it for Keras 3. Where that cannot be done the model stays as it was: such a layer is
converted as a whole, and none of its weights is compressed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor, keras, layers, tf
from keras_xaic.models.added_layers import ADDED
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import symbol_of
from keras_xaic.models.ports import keep_ports, ports_of
from keras_xaic.models.rebuilding import fill

SAMPLES = (97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211)
"""Numbers of samples to call layers with: primes, so that what is a multiple of one counts samples."""
MOST_VALUES = 300_000
"""Largest constant of an operation: it is written into the configuration of the model, as text."""
_TOLERANCE = 1e-4
_MOST_LEVELS = 30
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


def opened(model: Model) -> Model:
    """Returns the model with Keras' own layers only, or itself where that is not possible or it has no others."""
    if not model.built or not _holds_own(model):
        return model
    parts = [(one, list(one._inbound_nodes), list(one._outbound_nodes)) for one in model._flatten_layers()]
    try:
        if _has_graph(model):
            opening = _Opening(model)
        else:
            graph = _with_graph(model)
            opening = _Opening(graph, graph.inputs[0].shape[0])
            opening.kept = set()  # Keras counts names for the whole process
            opening.owners = {id(one): model.name for one in opening.model.layers}
            opening.shapes = {tuple(one.shape) for one in model._trainable_weights}
        made = opening.result()
        return made if _are_alike(model, made) else model
    except Exception:  # whatever the user's code raises on symbolic tensors; it is converted as a whole then
        return model
    finally:  # the user's layers have no trace of it
        for one, inbound, outbound in parts:
            one._inbound_nodes[:], one._outbound_nodes[:] = inbound, outbound


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


def _is_own(layer: Layer) -> bool:
    """Whether a layer is Python code, or its class not of Keras, of the Model Optimization toolkit, or of ours."""
    if isinstance(layer, keras.Model) and _has_graph(layer):
        return False
    if type(layer) is layers.Lambda:
        return True
    known = {"keras", "tf_keras", "tensorflow", "tensorflow_model_optimization", "keras_xaic"}
    return type(layer).__module__.partition(".")[0] not in known and type(layer) not in ADDED.values()


def _holds_own(model: Model) -> bool:
    return any(_is_own(one) for one in model._flatten_layers())


def _has_graph(model: Model) -> bool:
    return bool(getattr(model, "_is_graph_network", False))


def _with_graph(model: Model) -> Model:
    """Returns what a model of the user's own class calls, for `_samples` samples, with the layers of the model."""
    (given,), _ = model.save_spec()
    samples = _samples(model, [spec.shape for spec in tf.nest.flatten(given)])
    keys = sorted(given) if isinstance(given, Mapping) else None  # in the order of `tf.nest`
    names = iter(keys or [f"input_{number}" for number, _ in enumerate(tf.nest.flatten(given), 1)])
    inputs = tf.nest.map_structure(
        lambda spec: keras.Input(batch_shape=(samples, *spec.shape[1:]), dtype=spec.dtype, name=next(names)), given
    )
    made = keras.Model(inputs, model.call(inputs), name=model.name)
    carry_losses(model, made)
    return made


def _samples(model: Model, shapes: Any) -> int:
    """Returns a number of samples of which no size in the model is a multiple."""
    sizes = {int(size) for weight in model.weights for size in weight.shape}
    sizes |= {size for shape in shapes for size in shape[1:] if size}
    return next(one for one in SAMPLES if all(size % one for size in sizes))


class _Opening:
    def __init__(self, model: Model, samples: Optional[int] = None) -> None:
        self.model = model
        self.owners: dict[int, str] = {}
        self.kept = {id(one) for one in model.layers}
        self.copies: dict[int, Layer] = {}
        self.shared: dict[Any, Layer] = {}
        """Layers that were made for weights, by these."""
        self.closed: set[int] = set()
        """``id`` of layers that cannot be taken apart."""
        self.shapes: set[tuple[int, ...]] = set()
        """Of the weights that layers of the user's train: constants of others are nobody's weights."""
        self.alive: list[Any] = []
        """Tensors of calls that were made: what is known by ``id`` has to stay."""
        self.taken: set[str] = set()
        self.readers: dict[int, list[Any]] = defaultdict(list)
        self.done: set[int] = set()
        """``id`` of calls that the layer made for the one before them does, too."""
        inner = [tensor.shape for node in _calls(model.outputs) for tensor in tf.nest.flatten(node.outputs)]
        self.samples = samples or _samples(model, [*inner, *(tensor.shape for tensor in model.inputs)])

    def result(self) -> Model:
        """Returns the new model."""
        inputs = [self._input(tensor, self.samples) for tensor in self.model.inputs]
        outputs = self._run(_calls(self.model.outputs), self.model.inputs, inputs, self.model.outputs, self._open)
        for _ in range(_MOST_LEVELS):
            calls = _calls(outputs)
            if not any(self._is_left(node.layer) for node in calls):
                break
            outputs = self._run(calls, inputs, inputs, outputs, self._open)
        calls = _calls(outputs)
        self.taken |= {node.layer.name for node in calls if id(node.layer) in self.kept}
        for node in calls:
            for tensor in node.keras_inputs:
                self.readers[id(tensor)].append(node)
        for tensor in outputs:
            self.readers[id(tensor)] += [tensor.node] * 2  # what is an output has to stay
        free = [self._input(tensor, None) for tensor in inputs]
        last = self._run(calls, inputs, free, outputs, self._again)
        for node in _calls(last):  # named in their order here
            symbol = symbol_of(node.layer)
            if symbol is not None and id(node.layer) not in self.kept:
                node.layer._name = self._free(f"{self.owners.get(id(node.layer), 'tf')}.{symbol}")
        like = self.model
        given = tf.nest.pack_sequence_as(like.input, free)
        made = keras.Model(given, tf.nest.pack_sequence_as(like.output, last), name=like.name)
        keep_ports(made, ports_of(like))
        carry_losses(like, made)
        return made

    def _input(self, tensor: Tensor, samples: Any) -> Tensor:
        name = tensor.node.layer.name
        return keras.Input(batch_shape=(samples, *tensor.shape[1:]), dtype=tensor.dtype, name=name)

    def _run(self, calls: list[Any], inputs: Any, given: Any, outputs: Any, call: Any) -> list[Any]:
        table = {id(old): new for old, new in zip(inputs, given)}
        for node in calls:
            args, kwargs = tf.nest.map_structure(lambda one: table.get(id(one), one), (node.call_args, node.call_kwargs))
            made = tf.nest.flatten(call(node, args, kwargs))
            table.update(zip(map(id, tf.nest.flatten(node.outputs)), made))
        return [table[id(tensor)] for tensor in outputs]

    def _is_inner_model(self, layer: Layer) -> bool:
        return isinstance(layer, keras.Model) and (id(layer) in self.owners or _holds_own(layer))

    def _is_left(self, layer: Layer) -> bool:
        return id(layer) not in self.closed and (_is_own(layer) or self._is_inner_model(layer))

    def _open(self, node: Any, args: Any, kwargs: Any) -> Any:
        """Calls a layer, one of the user's by what its call makes."""
        layer = node.layer
        if self._is_inner_model(layer) and _has_graph(layer):
            self._remember(layer)
            ends, given = layer.outputs, tf.nest.flatten(args[0])
            return self._run(_calls(ends), layer.inputs, given, ends, self._open)
        if not _is_own(layer) or id(layer) in self.closed:
            return layer(*args, **kwargs)
        try:
            return self._call(layer, args, dict(kwargs))
        except Exception:  # whatever the user's code raises on symbolic tensors; that layer is converted as a whole
            self.closed.add(id(layer))
            return layer(*args, **kwargs)

    def _call(self, layer: Layer, args: Any, kwargs: dict[str, Any]) -> Any:
        """Calls what a layer of the user's calls."""
        self._remember(layer)
        accepted = inspect.signature(layer.call).parameters
        kwargs = {key: value for key, value in kwargs.items() if key in accepted and key != "training"}
        mask = getattr(tf.nest.flatten(args)[0], "_keras_mask", None)
        if "mask" in accepted and kwargs.get("mask") is None and mask is not None:
            kwargs["mask"] = mask
        if "training" in accepted:
            kwargs["training"] = False
        self.shapes |= {tuple(one.shape) for one in layer._trainable_weights}
        with _without_losses(layer):
            made = layer.call(*args, **kwargs)
        for part in _calls(tf.nest.flatten(made)):
            if symbol_of(part.layer) is not None and id(part.layer) not in self.kept:
                self.owners.setdefault(id(part.layer), self.owners.get(id(layer), layer.name))
        self.alive.append(made)
        return made

    def _remember(self, layer: Layer) -> None:
        owner = self.owners.get(id(layer), layer.name)
        for part in (*layer._flatten_layers(include_self=False), *layer.weights):
            self.owners.setdefault(id(part), owner)

    def _again(self, node: Any, args: Any, kwargs: Any) -> Any:
        """Makes a call with a copy of its layer, for any number of samples; of constants alone a constant."""
        layer, symbol = node.layer, symbol_of(node.layer)
        if id(node) in self.done:
            return next(filter(_is_symbolic, tf.nest.flatten((args, kwargs))))
        if symbol in _SHAPES:
            return np.array(node.keras_inputs[0].shape.as_list(), np.int32)
        owner = self.owners.get(id(layer), "")
        if not any(map(_is_symbolic, tf.nest.flatten((args, kwargs)))):
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
            new = type(layer).from_config({**layer.get_config(), "name": self._name(layer)})
        made = new(*args, **kwargs)
        fill(new, layer.get_weights())
        self.copies[id(layer)] = new
        return made

    def _name(self, layer: Layer) -> str:
        if id(layer) in self.kept:
            return str(layer.name)
        return self._free(name_in(self.owners.get(id(layer), self.model.name), layer))

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
        some = next(filter(_is_symbolic, tf.nest.flatten((args, kwargs))))

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
        if symbol == "concat" and isinstance(x, (list, tuple)) and not all(map(_is_symbolic, x)):
            some = next(filter(_is_symbolic, x))
            parts = [one if _is_symbolic(one) else _zeros(some, np.ndim(one)) + one for one in x]
            return tf.concat(parts, **kwargs) if len(args) == 1 else tf.concat(parts, args[1])
        if symbol.removeprefix("compat.v1.") in ("gather", "nn.embedding_lookup") and isinstance(x, np.ndarray):
            return self._looked_up(x, args[1:], kwargs, owner)
        if symbol in _OF_WEIGHTS:
            return self._weighted(node, symbol, {**dict(zip(_OF_WEIGHTS[symbol], args)), **kwargs}, owner)
        if symbol == "image.extract_patches":
            return self._patches(args, kwargs)
        return None

    def _looked_up(self, table: np.ndarray, args: Any, kwargs: Any, owner: str) -> Any:
        rows = [one for one in tf.nest.flatten((args, kwargs)) if _is_symbolic(one)]
        if (
            len(rows) != 1
            or kwargs.get("axis") not in (None, 0)
            or len(args) > 3
            or table.ndim != 2
            or table.shape not in self.shapes
        ):
            return None
        make = functools.partial(layers.Embedding, *table.shape)
        return self._with_weights(make, [table], owner or f"{self.model.name}_table", rows[0])

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
        if not _is_symbolic(x) or not isinstance(weights, np.ndarray) or weights.shape not in self.shapes:
            return None
        make = _layer_of(symbol, len(x.shape), weights, given)
        if make is None:
            return None
        bias = self._bias_behind(node, tf.nest.flatten(node.outputs)[0].shape[-1])
        values = [weights] if bias is None else [weights, bias]
        make = functools.partial(make, use_bias=bias is not None)
        return self._with_weights(make, values, owner or f"{self.model.name}_{symbol}", x)

    def _bias_behind(self, node: Any, units: int) -> Optional[np.ndarray]:
        """Returns the constant that nothing but the next call adds to a result; that call is done then."""
        readers = self.readers[id(node.outputs)]
        if len(readers) != 1 or symbol_of(readers[0].layer) not in _SUMS:
            return None
        others = [one for one in tf.nest.flatten((readers[0].call_args, readers[0].call_kwargs)) if not _is_symbolic(one)]
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


@contextlib.contextmanager
def _without_losses(layer: Layer) -> Iterator[None]:
    """Losses and metrics that a call adds concern training only, and would stay in the user's layer."""
    names = ("add_loss", "add_metric")
    kept = {name: vars(layer)[name] for name in names if name in vars(layer)}
    vars(layer).update(dict.fromkeys(names, lambda *_, **__: None))
    try:
        yield
    finally:
        for name in names:
            vars(layer).pop(name)
        vars(layer).update(kept)


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


def _is_symbolic(value: object) -> bool:
    return hasattr(value, "_keras_history")


def _calls(outputs: Any) -> list[Any]:
    """Returns the calls that lead to tensors, each behind those that it reads; inputs are no calls."""
    order: dict[int, Any] = {}
    waiting = [(tensor, False) for tensor in reversed(outputs)]
    while waiting:
        tensor, is_ready = waiting.pop()
        if not hasattr(tensor, "_keras_history"):
            continue
        node = tensor.node
        if is_ready:
            order.setdefault(id(node), node)
        elif id(node) not in order:
            waiting.append((tensor, True))
            waiting.extend((one, False) for one in reversed(node.keras_inputs))
    return [node for node in order.values() if not node.is_input]


def _are_alike(model: Model, made: Model) -> bool:
    arrays = list(_examples(made))
    x = tf.nest.pack_sequence_as(made.input, arrays)
    wanted, found = (tf.nest.flatten(one.predict_on_batch(x)) for one in (model, made))
    return all(
        a.shape == b.shape and np.allclose(a, b, 0, _TOLERANCE * max(1.0, float(np.abs(a).max(initial=0))), equal_nan=True)
        for a, b in zip(map(np.asarray, wanted), map(np.asarray, found))
    )


def _examples(model: Model) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for tensor in model.inputs:
        values = random.uniform(0, 2, (3, *(size or 4 for size in tensor.shape[1:])))
        yield values.astype(tensor.dtype.as_numpy_dtype)
