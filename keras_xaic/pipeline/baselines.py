"""Runs the baselines: what TFLite's converter and the Model Optimization toolkit do by themselves, with our training."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_xaic._keras import Layer, Model, keras
from keras_xaic.compression import CompressedModel
from keras_xaic.models import weighted_kernels
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.frozen import keep_frozen
from keras_xaic.models.masking import passes_masks
from keras_xaic.models.operations import Operations
from keras_xaic.pipeline.toolkit import Wrappers, train_with_toolkit
from keras_xaic.planning import PLAIN_BITS, Plan
from keras_xaic.recipes.recipe import Baseline

DEFAULT_SPARSITY = 0.8
RAMP_SHARE = 0.7
"""Share of training over which sparsity ramps up, as in our own pruning; only later epochs can be chosen."""
CLUSTERS = 16
"""Values that the weights of a layer share."""


def run_baseline(name: Baseline, model: Model, data: Any, **options: object) -> CompressedModel:
    """Returns what a method of others makes of a model; export then quantizes it to plain int8.

    Args:
        name: Which of them.
        model: The trained model; it is not changed.
        data: Anything that `as_data` takes.
        **options: As for `train_with_toolkit`; `sparsity` for ``magnitude``, which gives every layer the same.
    """
    return _RUNNERS[name](model, data, **options)


def equal_download_sparsity(original: Model, small: CompressedModel) -> float:
    """Returns the sparsity at which `original` in 8 bits takes as many bits as `small` does, by entropy, to 1 %."""
    grids = {key: kernel.entropy_bits for key, kernel in small.kernels.items()}
    bits = sum(grids.get(kernel.key, PLAIN_BITS) * kernel.size for kernel in weighted_kernels(small.model))
    bits /= max(1, sum(kernel.size for kernel in weighted_kernels(original)))
    shares = np.arange(0.01, 0.99, 0.01)
    needed = -(shares * np.log2(shares) + (1 - shares) * np.log2(1 - shares)) + (1 - shares) * PLAIN_BITS
    return float(shares[int(np.argmin(np.abs(needed - bits)))])


def _int8(model: Model, data: Any, **_: object) -> CompressedModel:
    return CompressedModel(canonicalize(model).model, {}, Plan(recipe="int8"), {})


def _magnitude(model: Model, data: Any, *, sparsity: float = DEFAULT_SPARSITY, **options: Any) -> CompressedModel:
    def wrap(flat: Model, steps: int) -> Model:
        end = max(2, round(steps * RAMP_SHARE))
        often = min(50, max(1, end // 4))
        decay = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=often)
        return _wrapped(flat, tfmot.sparsity.keras.prune_low_magnitude, pruning_schedule=decay)

    strip, update = tfmot.sparsity.keras.strip_pruning, tfmot.sparsity.keras.UpdatePruningStep()
    return train_with_toolkit(model, data, "magnitude", Wrappers(wrap, strip, [update], RAMP_SHARE), **options)


def _cluster(model: Model, data: Any, *, sparsity: float = 0.0, **options: Any) -> CompressedModel:
    def wrap(flat: Model, steps: int) -> Model:
        frozen = Operations(flat).frozen
        flat.trainable = True  # the toolkit sees the weights of no frozen layer
        clustered = _wrapped(flat, tfmot.clustering.keras.cluster_weights, number_of_clusters=CLUSTERS)
        for layer in clustered.layers:
            layer.trainable = getattr(layer, "layer", layer).name not in frozen
        keep_frozen(clustered)
        return clustered

    def strip(clustered: Model) -> Model:
        clustered.trainable = True
        return tfmot.clustering.keras.strip_clustering(clustered)

    return train_with_toolkit(model, data, "cluster", Wrappers(wrap, strip), **options)


def _wrapped(model: Model, wrap: Callable[..., Layer], **options: Any) -> Model:
    """Returns the model with every layer wrapped by a function of the toolkit, as that does it for a whole model."""
    return keras.models.clone_model(model, clone_function=lambda layer: passes_masks(wrap(layer, **options)))


_RUNNERS: dict[str, Callable[..., CompressedModel]] = {"int8": _int8, "magnitude": _magnitude, "cluster": _cluster}
