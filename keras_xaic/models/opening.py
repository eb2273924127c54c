"""Layers and models of the user's own, of Keras 2, replaced by the layers of Keras and operations that their call makes.

As `keras_xaic.models.keras3_opening` does it for Keras 3. Where that cannot be done the model stays as it was: such a layer is
converted as a whole, and none of its weights is compressed.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, keras, layers, tf
from keras_xaic.models.activations import ACTIVATIONS
from keras_xaic.models.added_layers import ADDED
from keras_xaic.models.keras2_graph import calls_to, run_again
from keras_xaic.models.keras2_replaying import Replay, input_like
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import symbol_of
from keras_xaic.models.ports import keep_ports, ports_of

SAMPLES = (97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211)
"""Numbers of samples to call layers with: primes, so that what is a multiple of one counts samples."""
_TOLERANCE = 1e-4
_MOST_LEVELS = 30
_KNOWN = ("keras", "tf_keras", "tensorflow", "tensorflow_model_optimization", "keras_xaic")
"""Packages whose code is not the user's."""


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


def _is_own(layer: Layer) -> bool:
    """Whether a layer is Python code, or its class not of Keras, of the Model Optimization toolkit, or of ours."""
    if isinstance(layer, keras.Model) and _has_graph(layer):
        return False
    if type(layer) is layers.Lambda:
        return True
    return _package(type(layer)) not in _KNOWN and type(layer) not in ADDED.values()


def _package(value: Any) -> str:
    return str(value.__module__).partition(".")[0]


def _holds_own(model: Model) -> bool:
    return any(_is_own(one) or has_nameless_activation(one) for one in model._flatten_layers())


def has_nameless_activation(layer: Layer) -> bool:
    """Whether a layer has an activation that no configuration can name: a lambda, a ``functools.partial``."""
    own = [one for one in (getattr(layer, key, None) for key in ACTIVATIONS) if callable(one) and not isinstance(one, Layer)]
    return any(getattr(one, "__name__", "<lambda>") == "<lambda>" and _package(one) not in _KNOWN for one in own)


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
        self.plain: dict[int, Layer] = {}
        """Layers without their activations, by the ``id`` of those with them."""
        self.closed: set[int] = set()
        """``id`` of layers that cannot be taken apart."""
        self.shapes: set[tuple[int, ...]] = set()
        """Of the weights that layers of the user's train: constants of others are nobody's weights."""
        self.alive: list[Any] = []
        """Tensors of calls that were made: what is known by ``id`` has to stay."""
        inner = [tensor.shape for node in calls_to(model.outputs) for tensor in tf.nest.flatten(node.outputs)]
        self.samples = samples or _samples(model, [*inner, *(tensor.shape for tensor in model.inputs)])

    def result(self) -> Model:
        """Returns the new model."""
        inputs = [input_like(tensor, self.samples) for tensor in self.model.inputs]
        outputs = run_again(calls_to(self.model.outputs), self.model.inputs, inputs, self.model.outputs, self._open)
        for _ in range(_MOST_LEVELS):
            calls = calls_to(outputs)
            if not any(self._is_left(node.layer) for node in calls):
                break
            outputs = run_again(calls, inputs, inputs, outputs, self._open)
        free, last = Replay(self.model.name, self.samples, self.owners, self.kept, self.shapes).of(inputs, outputs)
        like = self.model
        given = tf.nest.pack_sequence_as(like.input, free)
        made = keras.Model(given, tf.nest.pack_sequence_as(like.output, last), name=like.name)
        keep_ports(made, ports_of(like))
        carry_losses(like, made)
        return made

    def _is_inner_model(self, layer: Layer) -> bool:
        return isinstance(layer, keras.Model) and (id(layer) in self.owners or _holds_own(layer))

    def _is_left(self, layer: Layer) -> bool:
        own = _is_own(layer) or has_nameless_activation(layer)
        return id(layer) not in self.closed and (own or self._is_inner_model(layer))

    def _open(self, node: Any, args: Any, kwargs: Any) -> Any:
        """Calls a layer, one of the user's by what its call makes."""
        layer = node.layer
        if self._is_inner_model(layer) and _has_graph(layer):
            self._remember(layer)
            ends, given = layer.outputs, tf.nest.flatten(args[0])
            return run_again(calls_to(ends), layer.inputs, given, ends, self._open)
        if not self._is_left(layer):
            return layer(*args, **kwargs)
        try:
            return self._call(layer, args, dict(kwargs)) if _is_own(layer) else self._activated(layer, args, kwargs)
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
        for part in calls_to(tf.nest.flatten(made)):
            if symbol_of(part.layer) is not None and id(part.layer) not in self.kept:
                self.owners.setdefault(id(part.layer), self.owners.get(id(layer), layer.name))
        self.alive.append(made)
        return made

    def _activated(self, layer: Layer, args: Any, kwargs: Any) -> Any:
        """Calls a layer of Keras, then its activation."""
        if id(layer) not in self.plain:
            activation, layer.activation = layer.activation, keras.activations.linear
            try:
                self.plain[id(layer)] = type(layer).from_config(layer.get_config())
            finally:
                layer.activation = activation
        plain = self.plain[id(layer)]
        made = plain(*args, **kwargs)
        plain.set_weights(layer.get_weights())
        if id(layer) in self.kept:
            self.kept.add(id(plain))
        else:
            self.owners[id(plain)] = self.owners.get(id(layer), layer.name)
        self.alive.append(made)
        return layer.activation(made)

    def _remember(self, layer: Layer) -> None:
        owner = self.owners.get(id(layer), layer.name)
        for part in (*layer._flatten_layers(include_self=False), *layer.weights):
            self.owners.setdefault(id(part), owner)


@contextlib.contextmanager
def _without_losses(layer: Layer) -> Iterator[None]:
    """Losses and metrics that a call adds concern training only, and would stay in the user's layer."""
    names = [(layer, "add_loss"), (layer, "add_metric"), *((metric, "update_state") for metric in layer.metrics)]
    with contextlib.ExitStack() as stack:
        for owner, name in names:
            stack.enter_context(doing_nothing(owner, name))
        yield


@contextlib.contextmanager
def doing_nothing(owner: Any, name: str) -> Iterator[None]:
    """Has a method of one object do nothing in the block."""
    kept = {name: vars(owner)[name]} if name in vars(owner) else {}
    vars(owner)[name] = lambda *_, **__: None
    try:
        yield
    finally:
        vars(owner).pop(name)
        vars(owner).update(kept)


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
