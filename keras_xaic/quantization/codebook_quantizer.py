"""A TFMOT quantizer that trains a codebook and the weights that share it."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

from keras_xaic._keras import Layer, Tensor, keras, tf
from keras_xaic.grids import QuantizedKernel
from keras_xaic.quantization.codebook import LIMIT, choose_levels, importance, level_scale


class CodebookQuantizer(quantizers.Quantizer):
    """A few int8 levels that all weights of a kernel share, trained as centroids; level 0 stays.

    Weights go to the nearest centroid of now, and centroids are rounded to int8 levels in every pass, so that training sees
    what will be written. A centroid's gradient is the sum over its members; that of the master weights passes straight through.
    With one scale per channel the levels are still shared: a channel of small weights uses them at its own scale.

    Args:
        levels: Ascending int8 levels to start from, 0 among them (see `choose_levels`).
        scale: The step, broadcastable to the kernel (see `level_scale`); it is not trained.
        bits: Bit-width of the index.
        mask: Boolean, of the kernel's shape; False stays zero. None: all may be non-zero.
    """

    def __init__(self, levels: np.ndarray, scale: np.ndarray, bits: int, mask: Optional[np.ndarray] = None) -> None:
        self.levels, self.scale, self.bits = np.asarray(levels, np.int8), np.asarray(scale, np.float32), bits
        self.mask, self.unit = mask, float(np.mean(self.scale))

    @classmethod
    def fit(
        cls,
        kernel: np.ndarray,
        bits: int,
        axes: tuple[int, ...],
        mask: Optional[np.ndarray] = None,
        relevance: Optional[np.ndarray] = None,
    ) -> CodebookQuantizer:
        """Returns the quantizer whose ``2^bits`` levels represent `kernel` best.

        Args:
            kernel: The weights.
            bits: Bit-width of the index, 2 to 7.
            axes: Channel axes that get a step each; () for one step.
            mask: As for the class; weights that are masked do not count.
            relevance: Relevance of every weight; None counts all alike.
        """
        scale = level_scale(kernel, axes)
        score = np.ones(kernel.shape) if relevance is None else importance(relevance)
        score = score * np.square(scale / scale.mean(), dtype=np.float64)  # the error of a level is that of weights
        if mask is not None:
            score = score * mask
        return cls(choose_levels(kernel / scale, score, 2**bits), scale, bits, mask)

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds the trainable shifts of the centroids, in units of weights, to the wrapper `layer`."""
        zeros = keras.initializers.Zeros()
        self._shift = layer.add_weight(f"{name}_shift", (len(self.levels),), initializer=zeros, trainable=True)
        return {"shift": self._shift}

    def __call__(self, inputs: Tensor, training: object, weights: dict[str, Any], **kwargs: object) -> Tensor:
        """Returns `inputs` on the codebook."""
        return self._shared(inputs, weights["shift"]) * self.scale + (inputs - tf.stop_gradient(inputs))

    def freeze(self, kernel: np.ndarray) -> QuantizedKernel:
        """Returns what this quantizer makes of `kernel` now, as levels, steps and codebook."""
        levels = self._shared(tf.constant(kernel), self._shift).numpy().astype(np.int8)
        codebook = np.unique(self._centroids(self._shift).numpy().astype(np.int8))
        return QuantizedKernel(levels, self.scale, self.bits, codebook)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {name: getattr(self, name) for name in ("levels", "scale", "bits", "mask")}

    def _centroids(self, shift: Tensor) -> Tensor:
        """Integer levels, straight-through; they keep their sides of 0 and their order."""
        first = tf.constant(self.levels, tf.float32)
        moved = first + shift / self.unit
        bounded = tf.where(first > 0, tf.clip_by_value(moved, 1.0, LIMIT), tf.clip_by_value(moved, -LIMIT, -1.0))
        centroids = tf.sort(tf.where(first == 0, tf.zeros_like(first), bounded))
        return centroids + tf.stop_gradient(tf.round(centroids) - centroids)

    def _shared(self, inputs: Tensor, shift: Tensor) -> Tensor:
        centroids = self._centroids(shift)
        flat = tf.reshape(tf.stop_gradient(inputs) / self.scale, [-1])
        place = tf.searchsorted(tf.stop_gradient(centroids[1:] + centroids[:-1]) / 2, flat, side="right")
        level = tf.gather(centroids, tf.reshape(place, tf.shape(inputs)))
        return level if self.mask is None else level * tf.constant(self.mask, level.dtype)
