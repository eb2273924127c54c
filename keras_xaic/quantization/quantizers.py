"""TFMOT quantizers and configs that train a kernel on exactly the grid that will be written."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, quantizers

from keras_xaic._keras import Layer, Tensor, tf
from keras_xaic.grids import QuantizedKernel, quantize


class GridQuantizer(quantizers.Quantizer):
    """Symmetric uniform grid with a learned step, straight-through rounding and an optional mask of zeros.

    ``q = s * round(clip(w / s, -L, L))`` with ``L = 2^(bits-1) - 1``. The gradient passes rounding unchanged and stops at
    the clip, which makes the step's gradient that of LSQ (Esser et al. 2020, arXiv 1902.08153, eq. 3). The step is trained
    as ``s = s0 * exp(t)``: steps of different layers differ by orders of magnitude, and so must their updates.

    Args:
        bits: Bit-width, 2 to 8.
        scale: First value of the step, broadcastable to the kernel.
        mask: Boolean, of the kernel's shape; False stays zero. None: all may be non-zero.
    """

    def __init__(self, bits: int, scale: np.ndarray, mask: Optional[np.ndarray] = None) -> None:
        self.bits, self.scale, self.mask = bits, np.asarray(scale, np.float32), mask
        self.limit = 2 ** (bits - 1) - 1

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds the trainable log of the step to the wrapper `layer`."""
        self._log_step = layer.add_weight(f"{name}_log_step", shape=self.scale.shape, initializer="zeros", trainable=True)
        return {"log_step": self._log_step}

    def __call__(self, inputs: Tensor, training: object, weights: dict[str, Any], **kwargs: object) -> Tensor:
        """Returns `inputs` on the grid."""
        step = self.scale * tf.exp(weights["log_step"])
        level = tf.clip_by_value(inputs / step, -self.limit, self.limit)
        level += tf.stop_gradient(tf.round(level) - level)
        if self.mask is not None:
            level *= tf.constant(self.mask, level.dtype)
        return level * step

    def freeze(self, kernel: np.ndarray) -> QuantizedKernel:
        """Returns what this quantizer makes of `kernel` now, as integers and steps."""
        masked = kernel if self.mask is None else kernel * self.mask
        return quantize(masked, self.bits, self.scale * np.exp(self._log_step.numpy()))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {"bits": self.bits, "scale": self.scale, "mask": self.mask}


class PlannedQuantizeConfig(quantize_config.QuantizeConfig):
    """TFMOT quantize config of one layer: a grid for each of its kernels, activations left to calibration at export.

    Args:
        grids: Attribute of the layer (``kernel``, ``depthwise_kernel``, ...) -> its quantizer.
    """

    def __init__(self, grids: dict[str, GridQuantizer]) -> None:
        self.grids = grids

    def get_weights_and_quantizers(self, layer: Layer) -> list[tuple[Any, Any]]:
        """Returns the layer's kernels, each with its quantizer."""
        return [(getattr(layer, attribute), quantizer) for attribute, quantizer in self.grids.items()]

    def set_quantize_weights(self, layer: Layer, quantize_weights: list[Any]) -> None:
        """Puts the kernels on the grid into the layer for this call."""
        for attribute, value in zip(self.grids, quantize_weights):
            setattr(layer, attribute, value)

    def get_activations_and_quantizers(self, layer: Layer) -> list[tuple[Any, Any]]:
        """Returns nothing: activations are not fake-quantized."""
        return []

    def set_quantize_activations(self, layer: Layer, quantize_activations: list[Any]) -> None:
        """Does nothing: activations are not fake-quantized."""
        del layer, quantize_activations  # without a statement AutoGraph warns, in notebooks only

    def get_output_quantizers(self, layer: Layer) -> list[Any]:
        """Returns nothing: outputs are not fake-quantized."""
        return []

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {"grids": {attribute: quantizer.get_config() for attribute, quantizer in self.grids.items()}}
