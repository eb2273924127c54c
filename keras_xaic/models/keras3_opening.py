"""Layers and models of the user's own, of Keras 3, replaced by the layers and operations of Keras that their call makes.

Twice the graph is gone through. First every class that Keras does not have is called on symbolic tensors of an unlikely number
of samples, until none is left. Then all of it is made again with copies of the layers, for any number of samples.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from keras_xaic._keras import keras
from keras_xaic.errors import ModelError, XaicError, first_line
from keras_xaic.models.keras3_graph import Graph
from keras_xaic.models.keras3_layers import WITHOUT
from keras_xaic.models.keras3_replaying import Replay
from keras_xaic.models.opening import SAMPLES, doing_nothing

_MOST_LEVELS = 30
"""How deep classes of the user's may lie in each other."""


def opened(model: Any, source: str) -> Any:
    """Returns the model with Keras' own layers and operations only.

    Args:
        model: A built model of Keras 3; it stays as it is.
        source: What it is called in messages.

    Returns:
        A functional model that computes the same; `model` itself where Keras has all its classes.

    Raises:
        ModelError: If a layer computes with something else than `keras.ops` and layers, or with random numbers.
    """
    library = sys.modules["keras"]
    if not _is_own(model, library) and not _holds_own(model, library):
        return model
    with _nodes_kept(model):
        opening = _Opening(model, library, source)
        samples = _number_of_samples(model, library)
        inputs = _inputs(model, library, samples)
        outputs = opening.of_model(model, inputs)
        for _ in range(_MOST_LEVELS):
            graph = Graph(library.tree, inputs, outputs)
            if not any(opening.is_left(node.operation) for node in graph.calls()):
                shapes = {tuple(one.shape) for layer in opening.taken_apart for one in layer._trainable_variables}
                return Replay(library, source, samples, opening.names, opening.kept, shapes).of(graph, model.name)
            outputs = opening.of_graph(graph, inputs)
        raise ModelError(f"{source} has layers in layers without end", f"at most {_MOST_LEVELS} levels")


def input_name(tensor: Any) -> str:
    """Returns what an input of a model is called: by its layer, since Keras counts the tensors of a process."""
    return str(tensor._keras_history[0].name)


class _Opening:
    """Calls layers on symbolic tensors, those of the user's by what they are made of.

    Attributes:
        names: ``id`` of a layer -> the name of the user's layer that it lies in.
        kept: ``id`` of layers that lie in none and keep their names.
    """

    def __init__(self, model: Any, library: Any, source: str) -> None:
        self.library, self.source = library, source
        self.names: dict[int, str] = {}
        self.kept = set() if _is_own(model, library) else {id(one) for one in getattr(model, "operations", model.layers)}
        self.closed: set[int] = set()
        self.taken_apart: list[Any] = []
        self.plain: list[Any] = []
        """Layers of which only the user's activation was taken."""
        self.alive: list[Any] = []
        """Tensors of calls that were made: what is known by ``id`` has to stay."""

    def is_left(self, layer: Any) -> bool:
        """Whether a layer is to be taken apart: the user's, and models in it, but not what only Keras can call."""
        inner = isinstance(layer, self.library.Model) and id(layer) in self.names
        return id(layer) not in self.closed and (_is_own(layer, self.library) or _has_own_activation(layer) or inner)

    def of_model(self, model: Any, inputs: Any) -> Any:
        """Calls a model; also one whose class is the user's."""
        if isinstance(model, self.library.Sequential):
            for layer in model.layers:
                inputs = self.call(layer, inputs)
            return inputs
        if _is_functional(model):
            return self.of_graph(Graph(self.library.tree, model._inputs_struct, model._outputs_struct), inputs)
        return self.open(model, [inputs], {})

    def of_graph(self, graph: Graph, inputs: Any) -> Any:
        """Calls what a graph calls."""
        return graph.run(inputs, lambda node, args, kwargs: self.call(node.operation, *args, **kwargs))

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a layer or an operation."""
        if isinstance(layer, self.library.layers.InputLayer):
            return args[0]
        if isinstance(layer, self.library.Model) and (_holds_own(layer, self.library) or id(layer) in self.names):
            self._remember(layer)
            return self.of_model(layer, args[0])
        if _is_own(layer, self.library):
            return self.open(layer, args, kwargs)
        if not _has_own_activation(layer):
            return layer(*args, **kwargs)
        plain = type(layer).from_config(_linear_config(layer, self.library))
        made = plain(*args, **kwargs)
        plain.set_weights(layer.get_weights())
        if id(layer) in self.names:
            self.names[id(plain)] = self.names[id(layer)]
        else:
            self.kept.add(id(plain))
        self.plain.append(plain)
        return layer.activation(made)

    def open(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """Calls what a layer of the user's calls.

        Raises:
            ModelError: If that is more than `keras.ops` and layers.
        """
        self._remember(layer)
        self.taken_apart.append(layer)
        accepted = inspect.signature(layer.call).parameters
        given = {key: value for key, value in kwargs.items() if key != "training"}
        mask = getattr(args[0] if args else None, "_keras_mask", None)
        if "mask" in accepted and given.get("mask") is None and mask is not None:
            given["mask"] = mask
        try:
            with _without_losses(layer), _symbolic_activations(self.library):
                made = layer.call(*args, **given)
        except XaicError:
            raise
        except Exception as error:  # it is the user's code
            if _package(type(layer)) == "keras":
                self.closed.add(id(layer))
                return layer(*args, **kwargs)  # named by what reads it next
            found = f"{self.source}: layer {layer.name!r} ({type(layer).__name__}) cannot be taken apart ({first_line(error)})"
            raise ModelError(
                found, "a call() of keras.ops and layers of Keras", "Write it so, and save the model again"
            ) from error
        for node in Graph(self.library.tree, (), made).calls():
            if not isinstance(node.operation, self.library.layers.Layer) and id(node.operation) not in self.kept:
                self.names.setdefault(id(node.operation), self.names.get(id(layer), layer.name))
        self.alive.append(made)
        return made

    def _remember(self, layer: Any) -> None:
        for inner in layer._flatten_layers(include_self=False):
            self.names.setdefault(id(inner), self.names.get(id(layer), layer.name))


def _is_own(layer: Any, library: Any) -> bool:
    """Whether what is called is Python code, not of Keras, or a layer of it for which nothing stands in Keras 2."""
    if isinstance(layer, library.Model) and type(layer).__name__ in ("Functional", "Sequential"):
        return False
    if not isinstance(layer, library.layers.Layer):
        return False
    kind = type(layer).__name__
    if _package(type(layer)) == "keras":
        return kind in WITHOUT or kind == "Lambda"
    return kind not in {
        name.rpartition(">")[2] for name in keras.utils.get_custom_objects()
    }  # Keras 2 may have one of that name


def _package(value: Any) -> str:
    return str(value.__module__).partition(".")[0]


def _has_own_activation(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    plain = callable(activation) and not hasattr(activation, "trainable_weights")  # no layer
    return plain and _package(activation) != "keras" and hasattr(layer, "get_config")


def _linear_config(layer: Any, library: Any) -> dict[str, Any]:
    """Returns a layer's configuration without its activation, which Keras may not be able to write (``functools.partial``)."""
    own, layer.activation = layer.activation, library.activations.linear
    try:
        return dict(layer.get_config())
    finally:
        layer.activation = own


def _holds_own(model: Any, library: Any) -> bool:
    if _is_functional(model) or isinstance(model, library.Sequential):
        return any(
            _is_own(one, library) or _has_own_activation(one) or (isinstance(one, library.Model) and _holds_own(one, library))
            for one in model.layers
        )
    return True


def _is_functional(model: Any) -> bool:
    return hasattr(model, "_inputs_struct") and hasattr(model, "_outputs_struct")


def _number_of_samples(model: Any, library: Any) -> int:
    sizes = {int(size) for weight in model.weights for size in weight.shape}
    tensors = list(getattr(model, "inputs", None) or ())
    if _is_functional(model):
        calls = Graph(library.tree, model._inputs_struct, model._outputs_struct).calls()
        tensors += [tensor for node in calls for tensor in node.outputs]
    for tensor in tensors:
        sizes |= {size for size in tensor.shape[1:] if size}
    return next(one for one in SAMPLES if all(size % one for size in sizes))


def _inputs(model: Any, library: Any, samples: int) -> Any:
    """New inputs in the structure of the model's."""
    if getattr(model, "inputs", None):

        def made(tensor: Any) -> Any:
            return library.Input(batch_shape=(samples, *tensor.shape[1:]), dtype=tensor.dtype, name=input_name(tensor))

        structure = model.inputs[0] if isinstance(model, library.Sequential) else model._inputs_struct
        return library.tree.map_structure(made, structure)
    found = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(found, (list, tuple, dict)) or not found:
        fix = "Make it with keras.Model(inputs, model.call(inputs)), and save that"
        raise ModelError(
            f"{model.name!r} is a model of the user's own class that does not say the shapes of its inputs", "", fix
        )

    def of_shape(shape: Any, name: str) -> Any:
        if isinstance(shape, dict):
            return {key: of_shape(part, key) for key, part in shape.items()}
        if all(size is None or isinstance(size, int) for size in shape):
            return library.Input(batch_shape=(samples, *shape[1:]), name=name)
        return [of_shape(part, f"{name}_{number}") for number, part in enumerate(shape, 1)]

    return of_shape(found, "input")


@contextlib.contextmanager
def _without_losses(layer: Any) -> Iterator[None]:
    """Losses and metrics that a call adds concern training only."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(doing_nothing(layer, "add_loss"))
        for metric in layer.metrics:
            stack.enter_context(doing_nothing(metric, "update_state"))
        yield


class _Symbolic:
    """Keras' backend for symbolic tensors: operations in place of its functions."""

    def __init__(self, library: Any, backend: Any) -> None:
        self.nn = self.numpy = library.ops
        self._backend = backend

    def convert_to_tensor(self, x: Any, *_: Any, **__: Any) -> Any:
        return x

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@contextlib.contextmanager
def _symbolic_activations(library: Any) -> Iterator[None]:
    """Has activations take symbolic tensors that a user's call gives them: some (mish) are no operations of Keras 3 (3.13)."""
    module = sys.modules.get("keras.src.activations.activations")
    backend = getattr(module, "backend", None)
    if module is None or backend is None:
        yield
        return
    vars(module)["backend"] = _Symbolic(library, backend)
    try:
        yield
    finally:
        vars(module)["backend"] = backend


@contextlib.contextmanager
def _nodes_kept(model: Any) -> Iterator[None]:
    """Calls of the user's layers in the block leave no trace in them."""
    parts = {id(one): one for one in [*model._flatten_layers(), *getattr(model, "operations", ())]}
    for one in list(parts.values()):
        parts.update({id(inner): inner for inner in getattr(one, "operations", ())})
    kept = [(one, list(one._inbound_nodes), list(one._outbound_nodes)) for one in parts.values()]
    try:
        yield
    finally:
        for one, inbound, outbound in kept:
            one._inbound_nodes[:], one._outbound_nodes[:] = inbound, outbound
