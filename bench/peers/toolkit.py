"""Peer: TensorFlow's Model Optimization toolkit through its own interface, and the ordinary converter after it.

Epochs, optimizer, learning rate, batches and the choice of the epoch on held-back data are those of our recipes. The loss is
that of the labels, as the toolkit's guides have it; `magnitude` and `cluster` are the same methods with our teacher.
"""

from __future__ import annotations

import numpy as np
import tensorflow_model_optimization as tfmot
from peers.converter import to_int8
from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as preserving

from keras_xaic.models import canonicalize, infer_task, remove_channels, weighted_kernels
from keras_xaic.tflite import int8_twin, pack_download
from keras_xaic.training import Schedule, fit

RAMP = 0.7
"""Share of training over which sparsity rises; only later epochs can be chosen."""
TRAINED = 1e-6
"""Any epoch can be chosen, the model before them cannot: it does not yet hold what it was wrapped for."""
CLUSTERS = 16
PCQAT_SPARSITY, PCQAT_CLUSTERS = 0.5, 8
"""As in the toolkit's guide to PCQAT."""


class Toolkit:
    """A model on its way through the toolkit's stages."""

    def __init__(self, model, data, epochs, seed):
        self.model, self.data, self.seed, self.epochs = remove_channels(model, {}), data, seed, epochs
        self.task = infer_task(model, data)

    def train(self, wrapped, epochs, select_from=TRAINED, callbacks=()):
        train, held_back = self.data.split(seed=self.seed)
        schedule = Schedule(epochs, select_from=select_from, distillation=0.0, seed=self.seed)
        fit(wrapped, train, held_back, self.task, schedule, callbacks=callbacks)
        return wrapped

    def prune(self, sparsity):
        steps = Schedule(self.epochs).steps(len(self.data.split(seed=self.seed)[0]))
        end = max(2, round(steps * RAMP))
        ramp = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, end, frequency=min(50, max(1, end // 4)))
        return self._pruned(ramp, self.epochs, RAMP)

    def _pruned(self, schedule, epochs, select_from=TRAINED):
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(self.model, pruning_schedule=schedule)
        update = tfmot.sparsity.keras.UpdatePruningStep()
        self.model = tfmot.sparsity.keras.strip_pruning(self.train(wrapped, epochs, select_from, [update]))
        return self

    def cluster(self, epochs, cluster_weights=tfmot.clustering.keras.cluster_weights, clusters=CLUSTERS, **options):
        wrapped = cluster_weights(self.model, number_of_clusters=clusters, **options)
        self.model = tfmot.clustering.keras.strip_clustering(self.train(wrapped, epochs))
        return self

    def quantize(self):
        self.model = self.train(tfmot.quantization.keras.quantize_model(self.model), self.epochs)
        return self

    def prune_cluster_quantize(self):
        """Each stage has a third of the epochs, one at least, and the last what is left over."""
        third = max(1, self.epochs // 3)
        self._pruned(tfmot.sparsity.keras.ConstantSparsity(PCQAT_SPARSITY, begin_step=0, frequency=100), third)
        best = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        self.cluster(third, preserving.cluster_weights, PCQAT_CLUSTERS, cluster_centroids_init=best, preserve_sparsity=True)
        annotated = tfmot.quantization.keras.quantize_annotate_model(self.model)
        scheme = tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
        wrapped = tfmot.quantization.keras.quantize_apply(annotated, scheme=scheme)
        self.train(wrapped, max(1, self.epochs - 2 * third))
        self.model = tfmot.experimental.combine.strip_clustering_cqat(wrapped)
        return self


METHODS = {
    "tfmot-prune50": lambda toolkit: toolkit.prune(0.5),
    "tfmot-prune80": lambda toolkit: toolkit.prune(0.8),
    "tfmot-cluster16": lambda toolkit: toolkit.cluster(toolkit.epochs),
    "tfmot-qat": Toolkit.quantize,
    "tfmot-pcqat": Toolkit.prune_cluster_quantize,
}


def compress(method, model, data, epochs, seed, calibration) -> bytes:
    """Returns the .tflite file that a method of the toolkit makes of a model."""
    toolkit = METHODS[method](Toolkit(model, data, epochs, seed))
    return to_int8(toolkit.model, None if "qat" in method else calibration)


def sparsity_for(model, calibration, limit, most) -> dict:
    """Returns the least sparsity, to 1 %, at which the model pruned in one step and in int8 downloads within `limit` bytes."""
    flat = canonicalize(model).model
    kernels = {kernel.key: kernel.value for kernel in weighted_kernels(flat)}

    def size(percent):
        for kernel in weighted_kernels(flat):
            weights = kernels[kernel.key]
            kernel.variable.assign(np.where(np.abs(weights) > np.quantile(np.abs(weights), percent / 100), weights, 0))
        return len(pack_download(int8_twin(flat, calibration.take(slice(32)))))

    low, high = 0, round(100 * most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) <= limit else (middle + 1, high)
    choice = "meets the download budget" if size(low) <= limit else "the largest tried: misses the download budget"
    return {"sparsity": low / 100, "sparsity_choice": choice}
