"""Baseline: what the TFLite converter does by itself."""

from __future__ import annotations

from typing import Any

from keras_xaic.compression import CompressedModel
from keras_xaic.models.canonical import canonicalize
from keras_xaic.planning import Plan
from keras_xaic.recipes.recipe import Recipe


def compress_int8(model: Any, data: Any, **_: Any) -> CompressedModel:
    """Returns the model as it is; export quantizes weights and activations to 8 bits after training."""
    return CompressedModel(canonicalize(model).model, {}, Plan(recipe="int8"), {})


INT8 = Recipe(
    name="int8",
    source="TensorFlow Lite post-training quantization",
    summary="8-bit weights and activations, no training.",
    baseline=compress_int8,
)
