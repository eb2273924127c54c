"""Layers that the user froze: their weights go onto grids and may become zero, but training leaves their values alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from keras_xaic._keras import Model, keras
from keras_xaic.models.kernels import kernels_in
from keras_xaic.models.operations import Operations
from keras_xaic.models.surgery import remove_channels

NAMED = 4
"""Most layers that a message names."""


def thawed(model: Model) -> Model:
    """Returns the model without frozen layers: itself where it has none, else a flat clone."""
    if not Operations(model).frozen:
        return model
    clone = remove_channels(model, {})
    clone.trainable = True
    return clone


def keep_frozen(model: Model) -> None:
    """Makes what wrappers train beside the weights of a frozen layer, such as the scale of its grid, frozen, too."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Wrapper) and not layer.layer.trainable:
            layer._non_trainable_weights.extend(layer._trainable_weights)
            del layer._trainable_weights[:]


def named(paths: Sequence[str]) -> str:
    """Returns the first few of many names, and how many more there are."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{', '.join(paths[:NAMED])}{more}"


def said_of_frozen(model: Model, train_frozen: bool) -> Optional[str]:
    """Returns what a report says of a model with frozen kernels; None where there are none."""
    operations = Operations(model)
    kernels = kernels_in(operations)
    paths = list(dict.fromkeys(one.path for one in kernels if one.path in operations.frozen))
    if not paths:
        return None
    weights = sum(one.size for one in kernels if one.path in operations.frozen)
    whole = sum(one.size for one in kernels)
    found = f"{named(paths)} are frozen ({weights:,} of {whole:,} weights)"
    if train_frozen:
        return f"{found} in the original and were trained nevertheless, as train_frozen says."
    return (
        f"{found}: their weights went onto grids and became zero where the plan says so, but training did not make up for it. "
        "What that costs is part of the drop; train_frozen of the training settings trains them, too."
    )
