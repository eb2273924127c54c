"""A Keras model as a flat list of operations: nested models opened, layers called twice listed twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Optional, Union

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor, keras, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.einsum import SYMBOLS, Einsum

SLICES = ("__operators__.getitem", "getitem")
"""What Keras calls a slice of a tensor."""
_WHOLE = {"start": None, "stop": None, "step": None}
"""All of an axis, as Keras keeps slices."""


@dataclass(frozen=True)
class Operation:
    """One call of one layer.

    Attributes:
        name: Unique name: the layer's name, led by the names of the nested models around it (``backbone/conv``),
            followed by ``#2``, ``#3`` ... for further calls of a shared layer.
        path: Name of the layer without the call number; calls of a shared layer have the same path.
        layer: The layer of the user's model.
        inputs: Keys of the tensors that go in, in the order of the call's arguments.
        outputs: Keys of the tensors that come out.
        node: The Keras node of the call.
    """

    name: str
    path: str
    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    node: Any

    def call(
        self, tensors: Mapping[str, Union[Tensor, np.ndarray]], function: Optional[Callable[..., Any]] = None
    ) -> tuple[Tensor, ...]:
        """Calls the layer (or `function` in its place) on tensors of any batch size, in inference mode.

        Args:
            tensors: Values for the keys in `inputs`; what is not a tensor in the original call is passed as it was.
            function: Called instead of the layer, with the same arguments.

        Returns:
            The output tensors, flat, in the order of `outputs`.
        """
        values: dict[str, list[Any]] = {id_: [] for id_ in self.node.flat_input_ids}
        for id_, key in zip(self.node.flat_input_ids, self.inputs):
            values[id_].insert(0, tensors[key])  # Keras pops from the end
        args, kwargs = self.node.map_arguments(values)
        if "training" in kwargs:
            kwargs["training"] = False
        if symbol_of(self.layer) in SLICES:
            places = args[1] if len(args) > 1 else kwargs["slice_spec"]
            args, kwargs = (args[0], _without_ellipsis(places, len(args[0].shape))), {}
        if symbol_of(self.layer) == "reshape" and self._for_any_batch:
            args, kwargs = (args[0], self._for_any_batch), {}
        called = function or self.layer
        if isinstance(function, Layer) and not function._call_spec.expects_mask_arg:
            kwargs.pop("mask", None)  # what stands for a layer may have no use for a mask
        if self.equation and isinstance(called, Einsum):
            args, kwargs = (list(args[1:]),), {}
        return tuple(tf.nest.flatten(called(*args, **kwargs)))

    @property
    def _for_any_batch(self) -> Optional[tuple[int, ...]]:
        """The shape that a call with a shape of a fixed batch makes of a batch of any size; None where it names none."""
        before, after = (tuple(tensor.shape) for tensor in (self.node.keras_inputs[0], tf.nest.flatten(self.node.outputs)[0]))
        is_fixed = len(self.inputs) == 1 and before and before[0] is not None and after and None not in after
        return (-1, *after[1:]) if is_fixed else None

    @property
    def mask(self) -> Optional[str]:
        """Key of the tensor that a call with one sequence takes as ``mask``, as models of Keras 3 do; None without."""
        given = self.node.call_kwargs.get("mask")
        return self.inputs[1] if len(self.inputs) == 2 and hasattr(given, "_keras_history") else None

    @property
    def equation(self) -> str:
        """The equation of a call of ``tf.einsum``, or ""."""
        return str(self.node.call_args[0]) if symbol_of(self.layer) in SYMBOLS else ""


class Operations:
    """The operations of a functional or sequential model, in an order in which they can run.

    Args:
        model: A built `keras.Model`; nested functional and sequential models are opened.

    Raises:
        ModelError: If the model is subclassed, so that Keras does not know its graph.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.inputs = tuple(f"input:{i}" for i in range(len(graph_of(model).inputs)))
        self._list: list[Operation] = []
        self._calls: dict[str, int] = defaultdict(int)
        self._owners: dict[str, Layer] = {}
        self.shapes: dict[str, tuple[Any, ...]] = {}
        """Shape of every tensor, `None` for the batch and other free dimensions."""
        for key, tensor in zip(self.inputs, model.inputs):
            self.shapes[key] = tuple(tensor.shape)
        self.outputs = tuple(self._open(model, self.inputs, ""))

    def _open(self, model: Model, inputs: tuple[str, ...], prefix: str) -> list[str]:
        model = graph_of(model)
        keys = {str(id(tensor)): key for tensor, key in zip(model.inputs, inputs)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                going_in = tuple(keys[id_] for id_ in node.flat_input_ids)
                path = self._path_of(node.layer, prefix)
                if _is_nested(node.layer):
                    coming_out = tuple(self._open(node.layer, going_in, path + "/"))
                else:
                    self._calls[path] += 1
                    name = path if self._calls[path] == 1 else f"{path}#{self._calls[path]}"
                    tensors = tf.nest.flatten(node.outputs)
                    coming_out = tuple(f"{name}:{i}" for i in range(len(tensors)))
                    self.shapes.update((key, tuple(tensor.shape)) for key, tensor in zip(coming_out, tensors))
                    self._list.append(Operation(name, path, node.layer, going_in, coming_out, node))
                keys.update(zip(node.flat_output_ids, coming_out))
        return [keys[str(id(tensor))] for tensor in model.outputs]

    def _path_of(self, layer: Layer, prefix: str) -> str:
        path = prefix + layer.name
        while self._owners.setdefault(path, layer) is not layer:  # "a/b" beside a nested model "a" that has a layer "b"
            path += "_"
        return path

    def start(self, arrays: Sequence[Any]) -> dict[str, Tensor]:
        """Returns what the operations start with: one array per input of the model, in its order, in the type that it takes."""
        given = zip(self.inputs, arrays, self.model.inputs)
        return {key: tf.cast(tf.constant(array), tensor.dtype) for key, array, tensor in given}

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._list)

    def __len__(self) -> int:
        return len(self._list)

    @cached_property
    def frozen(self) -> frozenset[str]:
        """Paths of layers with weights that training leaves alone: frozen themselves, or in a nested model that is frozen."""
        trained = {id(weight) for weight in self.model.trainable_weights}
        return frozenset(
            operation.path
            for operation in self
            if (operation.layer.weights and not operation.layer.trainable)
            or (operation.layer.trainable_weights and not any(id(one) in trained for one in operation.layer.trainable_weights))
        )

    @cached_property
    def producer(self) -> dict[str, Operation]:
        """The operation that makes each tensor (inputs of the model have none)."""
        return {key: operation for operation in self for key in operation.outputs}

    @cached_property
    def consumers(self) -> dict[str, list[Operation]]:
        """The operations that read each tensor, in order."""
        readers: dict[str, list[Operation]] = defaultdict(list)
        for operation in self:
            for key in operation.inputs:
                readers[key].append(operation)
        return readers


def _without_ellipsis(places: Any, rank: int) -> Any:
    """Writes out the axes that ``...`` stands for in a slice of a tensor: Keras 2 cannot save it."""
    places = list(places) if isinstance(places, (list, tuple)) else [places]
    at = next((number for number, place in enumerate(places) if place is ...), None)
    if at is None:
        return tuple(places)
    named = sum(place is not None for place in places) - 1
    return (*places[:at], *[_WHOLE] * (rank - named), *places[at + 1 :])


def _is_nested(layer: Layer) -> bool:
    return isinstance(layer, keras.Model)


def graph_of(model: Model) -> Model:
    """Returns a model whose layers are known to be called one after another.

    Raises:
        ModelError: If it is a subclassed one, or nothing says what its inputs are.
    """
    if isinstance(model, keras.Sequential) and model.built and model._graph_initialized:
        return model
    if getattr(model, "_is_graph_network", False):
        return model
    raise ModelError(
        f"model {model.name!r} ({type(model).__name__}) has no graph of layers",
        "a functional or Sequential model with a known input shape",
        "Rebuild it with keras.Model(inputs, outputs), or give a Sequential model an Input layer",
    )


def activation_name(layer: Layer) -> Optional[str]:
    """Returns the name of a layer's activation argument, or None where it has none or it is linear."""
    function = getattr(layer, "activation", None)
    if function is None or function is keras.activations.linear:
        return None
    return getattr(function, "__name__", type(function).__name__)


def symbol_of(layer: Layer) -> Optional[str]:
    """Returns what a layer made from a plain operator or function does (``a + b``: ``"math.add"``), or None."""
    return layer.symbol if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda") else None
