"""Layers that Keras 3 has and Keras 2 does not, or not the same: what stands for them, and those that nothing stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_xaic.errors import ModelError
from keras_xaic.models.texts import behind
from keras_xaic.models.wrapped import NORMALIZED

AUGMENTATIONS = frozenset(
    {
        "AugMix",
        "CutMix",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "Solarization",
    }
)
"""Layers that do nothing when the model is used."""
WITHOUT = frozenset(
    {
        "AdaptiveAveragePooling1D",
        "AdaptiveAveragePooling2D",
        "AdaptiveAveragePooling3D",
        "AdaptiveMaxPooling1D",
        "AdaptiveMaxPooling2D",
        "AdaptiveMaxPooling3D",
        "AutoContrast",
        "ContrastLimitedAdaptiveHistogramEqualization",
        "Equalization",
        "FlaxLayer",
        "GroupQueryAttention",
        "GroupedQueryAttention",
        "JaxLayer",
        "MaxNumBoundingBoxes",
        "MelSpectrogram",
        "Pipeline",
        "RandomCrop",
        "ReversibleEmbedding",
        "STFTSpectrogram",
        "TFSMLayer",
        "TorchModuleWrapper",
    }
)
KNOWN = AUGMENTATIONS | WITHOUT | {NORMALIZED}
"""Classes of Keras 3 that are no custom ones."""


def in_place_of(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Returns the configuration of the layer that computes what a layer of Keras 3 does, itself where Keras 2 may have it.

    Args:
        config: Of the layer.
        source: The file, for the error message.

    Raises:
        ModelError: If there is none.
    """
    kind, inner = str(config["class_name"]), config["config"]
    if kind in AUGMENTATIONS:
        kept = {key: inner[key] for key in ("name", "trainable", "dtype") if key in inner}
        return {"class_name": "Activation", "module": "keras.layers", "config": {**kept, "activation": "linear"}}
    if kind == NORMALIZED:
        wrapped = inner["layer"]
        return {**wrapped, "config": {**wrapped["config"], "name": inner["name"]}}
    if kind in WITHOUT:
        raise ModelError(
            f"{source}: layer {inner.get('name')!r} ({kind}) is a layer of Keras 3 that has no counterpart here",
            "layers that Keras 2 has as well",
            f"Use a layer of the same effect, or, where it prepares the input: {behind(str(inner.get('name')))}",
        )
    return config


def refuse_quantized(kind: str, owner: str, source: str) -> None:
    """Refuses a layer whose weights Keras 3 has quantized.

    Raises:
        ModelError: Saying which model to give instead.
    """
    if kind.endswith("QuantizationConfig") or kind == "QuantizedDTypePolicy":
        found = f"{source}: {owner} has weights that Keras quantized ({kind})"
        raise ModelError(found, "the model as it was before model.quantize(...)", "Give that one: weights are quantized here")
