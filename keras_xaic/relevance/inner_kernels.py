"""Kernels inside recurrent and attention layers, by weight key."""

from __future__ import annotations

from typing import Any

from keras_xaic._keras import Layer, layers


def inner_kernels(layer: Layer, path: str) -> dict[str, Any]:
    """Returns weight key -> variable; nothing for other layers.

    Args:
        layer: A built Keras layer.
        path: Its path. Keys are ``path/kernel`` and ``path/recurrent_kernel`` for recurrent layers, led by ``forward_`` and
            ``backward_`` inside `Bidirectional`; ``path/query_kernel``, ``key_kernel``, ``value_kernel`` and ``output_kernel``
            for attention.
    """
    if isinstance(layer, layers.Bidirectional):
        both = (("forward_", layer.forward_layer), ("backward_", layer.backward_layer))
        return {f"{path}/{side}{name}": kernel for side, part in both for name, kernel in _of_cell(part).items()}
    if isinstance(layer, layers.MultiHeadAttention):
        parts = ("query", "key", "value", "output")
        return {f"{path}/{part}_kernel": getattr(layer, f"_{part}_dense").kernel for part in parts}
    return {f"{path}/{name}": kernel for name, kernel in _of_cell(layer).items()}


def _of_cell(layer: Layer) -> dict[str, Any]:
    if not isinstance(layer, (layers.LSTM, layers.GRU, layers.SimpleRNN)):
        return {}
    return {"kernel": layer.cell.kernel, "recurrent_kernel": layer.cell.recurrent_kernel}
