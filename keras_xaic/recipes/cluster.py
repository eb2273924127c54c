"""Baseline: weight clustering as the TensorFlow Model Optimization toolkit does it, then plain int8."""

from __future__ import annotations

from typing import Any

import tensorflow_model_optimization as tfmot

from keras_xaic.compression import CompressedModel
from keras_xaic.recipes.recipe import Recipe
from keras_xaic.recipes.toolkit import train_with_toolkit

DEFAULT_CLUSTERS = 16


def compress_cluster(
    model: Any, data: Any, *, clusters: int = DEFAULT_CLUSTERS, sparsity: float = 0.0, **options: Any
) -> CompressedModel:
    """Clusters the weights of every layer with TFMOT's `cluster_weights`.

    Args:
        model: The trained model.
        data: Anything that `as_data` takes.
        clusters: Values that the weights of a layer share.
        sparsity: Not used: clusters are what makes this file small.
        **options: As for `train_with_toolkit`.
    """

    def wrap(flat: Any, steps: int) -> Any:
        return tfmot.clustering.keras.cluster_weights(flat, number_of_clusters=clusters)

    return train_with_toolkit(model, data, "cluster", wrap, tfmot.clustering.keras.strip_clustering, **options)


CLUSTER = Recipe(
    name="cluster",
    source="TensorFlow Model Optimization toolkit",
    summary="16 shared values in every layer; then plain int8.",
    baseline=compress_cluster,
)
