"""Weights that Keras 3 wrote, laid into a model of Keras 2 by the names of layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from keras_xaic._keras import Layer, Model, keras
from keras_xaic.errors import ModelError
from keras_xaic.hdf5 import widened
from keras_xaic.models.keras3 import MODELS
from keras_xaic.models.safety import is_operator


def load_archive_weights(model: Model, config: Mapping[str, Any], file: h5py.File, source: str) -> None:
    """Fills `model` from the ``model.weights.h5`` of a ``.keras`` archive.

    Args:
        model: What `build_model` returned.
        config: The configuration that it was built from: Keras 3 numbers layers of the same class in its order.
        file: The weights.
        source: The file, for error messages.

    Raises:
        ModelError: If weights are missing, left over or of another shape.
    """
    _load_group(model, config, file, source)


def _load_group(model: Model, config: Mapping[str, Any], group: Any, source: str) -> None:
    container = group.get("layers", {})
    named = {str(container[key]["vars"].attrs.get("name")): key for key in container if "vars" in container[key]}
    parts = [part for part in config["config"]["layers"] if not is_operator(part)]
    for part, numbered in zip(parts, _numbered(str(part["class_name"]) for part in parts)):
        name = str(part["config"].get("name", part.get("name")))
        key = named.get(name, name if name in container and numbered not in container else numbered)
        layer = next((layer for layer in model.layers if layer.name == name), None)
        if layer is None or not layer.weights:
            continue
        if key not in container:
            raise ModelError(f"{source} holds no weights for layer {name!r}", "an entry per layer", "Save the model again")
        if part["class_name"] in MODELS:
            _load_group(layer, part, container[key], source)
        else:
            _fill(layer, container[key], name, source)


def _numbered(kinds: Iterable[str]) -> Iterator[str]:
    """Yields what Keras 3 calls layers of these classes in files of weights, in their order: dense, dense_1, ..."""
    count: Counter[str] = Counter()
    for kind in map(_snake_case, kinds):
        yield kind if count[kind] == 0 else f"{kind}_{count[kind]}"
        count[kind] += 1


def _fill(layer: Layer, group: Any, name: str, source: str) -> None:
    """Sets the weights of a layer and of the layers inside it (the cell of an LSTM), each from its own entry."""
    if "layer" in group and not hasattr(layer, "layer"):  # the layer itself, without what it was wrapped in
        _fill(layer, group["layer"], name, source)
        return
    inside: set[int] = set()
    for key in group:
        if key == "vars" or key.startswith("seed_generator"):
            continue
        part = getattr(layer, key, getattr(layer, f"_{key}", None))
        if isinstance(part, (list, tuple)):  # cells one above the other
            for one, numbered in zip(part, _numbered(type(one).__name__ for one in part)):
                _fill(one, group[key][numbered], f"{name}/{numbered}", source)
                inside.update(id(weight) for weight in one.weights)
            continue
        if not isinstance(part, keras.layers.Layer):
            raise ModelError(f"{source}: the weights of layer {name!r} have an unknown part {key!r}", "layers of Keras 2")
        _fill(part, group[key], f"{name}/{key}", source)
        inside.update(id(weight) for weight in part.weights)
    own = group.get("vars", {})
    arrays = [np.asarray(own[str(index)]) for index in range(len(own))]
    _set_weights(layer, [weight for weight in layer.weights if id(weight) not in inside], name, arrays, source)


def load_h5_weights(model: Model, file: h5py.File, source: str) -> None:
    """Fills `model` from a whole-model ``.h5`` file of Keras 3.

    Args:
        model: What `build_model` returned.
        file: The file, with the group ``model_weights``.
        source: The file, for error messages.

    Raises:
        ModelError: If weights are missing, left over or of another shape.
    """
    groups = file["model_weights"]
    for layer in model.layers:
        if not layer.weights:
            continue
        group = groups.get(layer.name)
        names = [] if group is None else [_text(name) for name in group.attrs["weight_names"]]
        names = [name for name in names if not name.endswith("/vector_u")]  # spectral normalization trains with it
        if any("/lora_" in name for name in names):
            found = f"{source}: layer {layer.name!r} has a low-rank adaptation beside its kernel (LoRA)"
            raise ModelError(found, "kernels with it added", "Save the model as .keras, which adds it")
        if isinstance(layer, keras.Model):
            for part in _flat(layer):
                inside = [name for name in names if part.name in name.split("/")[:-1]]
                arrays = [np.asarray(group[name]) for name in inside]
                _set_weights(part, part.weights, f"{layer.name}/{part.name}", arrays, source)
        else:
            _set_weights(layer, layer.weights, layer.name, [np.asarray(group[name]) for name in names], source)


def _flat(model: Model) -> Iterator[Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        elif layer.weights:
            yield layer


def _set_weights(layer: Layer, weights: list[Any], name: str, arrays: list[np.ndarray], source: str) -> None:
    arrays = [widened(array) for array in arrays]  # of a model in memory nobody made a clean copy
    found, expected = [array.shape for array in arrays], [tuple(weight.shape) for weight in weights]
    if found != expected:
        raise ModelError(f"{source}: layer {name!r} has weights of the shapes {found}", f"the shapes {expected}")
    for weight, array in zip(weights, arrays):
        weight.assign(array)
    if hasattr(layer, "finalize_state"):  # Normalization derives what it computes with from its weights
        layer.finalize_state()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
