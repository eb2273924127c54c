"""Models that read texts: files for devices take numbers, which a layer in front of the network makes of words."""

from __future__ import annotations

from collections.abc import Iterable

from keras_xaic.errors import ModelError

_READERS = frozenset({"HashedCrossing", "Hashing", "StringLookup", "TextVectorization"})


def behind(name: str) -> str:
    """Returns the advice to take what stands behind the layer `name`."""
    model = f"keras.Model(model.get_layer({name!r}).output, model.outputs)"
    return f"Give the model behind it, {model}, with its other inputs if it has more, and as data what that layer gives"


def takes_texts(source: str, name: str, kinds: Iterable[tuple[str, str]]) -> ModelError:
    """Returns the refusal of a model whose input `name` is of texts.

    Args:
        source: The model, or its file.
        name: Of the input.
        kinds: Class and name of its layers.
    """
    reader = next((layer for kind, layer in kinds if kind in _READERS), "LAYER")
    found = f"{source} takes texts (input {name!r}), of which layer {reader!r} makes numbers"
    return ModelError(found, "inputs of numbers", behind(reader))
