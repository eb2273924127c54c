"""TFMOT quantizers for entropy-constrained training: ECQ, and ECQx, which also listens to relevance."""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

from keras_xaic._keras import Layer, Tensor, keras, tf
from keras_xaic.grids import QuantizedKernel
from keras_xaic.quantization.entropy import Prices, Pricing, first_exponent, relevance_exponent, settle

MOMENTUM = 0.1
"""Weight of the relevance so far when a new one comes (published)."""
SPARSITY_BAND = 0.1
"""Sparsity that relevance may give back to revive small weights (the published p)."""
LEAST_RELEVANCE = 1e-12


class EntropyQuantizer(quantizers.Quantizer):
    """ECQ: a symmetric uniform grid on which every weight takes the level with the least ``(x - k)^2 + lambda * I_k``.

    The layer's own kernel holds the master weights w, x = w / s, and never the quantized ones. Prices lambda * I_k stay as they
    are between two calls of `refresh`, so a training step costs one search among 2^b thresholds per weight. The gradient of
    the result goes to the master weight as it is; that of the step s is the sum of ``k * g`` over all weights, as for a
    centroid with fixed members. (The published code multiplies the former by the signed centroid, which turns descent into
    ascent for negative weights; and takes s from the largest weight, with which 2 bits start from 96 % zeros.)

    Args:
        bits: Bit-width, 2 to 8.
        scale: First value of the step, broadcastable to the kernel (see `fit_scale`).
        pricing: What levels cost (see `price_by_weight` and `price_for_sparsity`).
    """

    def __init__(self, bits: int, scale: np.ndarray, pricing: Pricing) -> None:
        self.bits, self.scale, self.pricing = bits, np.asarray(scale, np.float32), pricing
        self.limit = 2 ** (bits - 1) - 1
        self.others = np.array([level for level in range(-self.limit, self.limit + 1) if level], np.float32)

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds the trainable log of the step, and the prices that `refresh` sets, to the wrapper `layer`."""
        add, zeros = layer.add_weight, keras.initializers.Zeros()
        thresholds = keras.initializers.Constant((self.others[1:] + self.others[:-1]) / 2)
        self.variables = {
            "log_step": add(f"{name}_log_step", shape=self.scale.shape, initializer=zeros, trainable=True),
            "thresholds": add(f"{name}_thresholds", (len(self.others) - 1,), initializer=thresholds, trainable=False),
            "cost": add(f"{name}_cost", (len(self.others),), initializer=zeros, trainable=False),
            "zero_cost": add(f"{name}_zero_cost", (), initializer=zeros, trainable=False),
        }
        return self.variables

    def __call__(self, inputs: Tensor, training: object, weights: dict[str, Any], **kwargs: object) -> Tensor:
        """Returns `inputs` on the grid."""
        step = self.scale * tf.exp(weights["log_step"])
        level = tf.stop_gradient(self._levels(inputs / step, weights))
        return level * step + (inputs - tf.stop_gradient(inputs))

    def refresh(self, kernel: np.ndarray, relevance: Optional[np.ndarray] = None) -> None:
        """Prices the levels again, from the weights as they are now.

        Args:
            kernel: Master weights.
            relevance: Relevance of every weight; nothing here uses it.
        """
        self._set_prices(settle(self._in_steps(kernel), self.limit, self.pricing))

    def freeze(self, kernel: np.ndarray) -> QuantizedKernel:
        """Returns what this quantizer makes of `kernel` now, as integers and steps."""
        step = self.scale * tf.exp(self.variables["log_step"])
        levels = self._levels(tf.constant(kernel) / step, self.variables)
        return QuantizedKernel(levels.numpy().astype(np.int8), step.numpy(), self.bits)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {"bits": self.bits, "scale": self.scale, "pricing": self.pricing}

    def _levels(self, x: Tensor, weights: dict[str, Any]) -> Tensor:
        place = tf.searchsorted(weights["thresholds"], tf.reshape(x, [-1]), side="right")
        other = tf.reshape(tf.gather(tf.constant(self.others), place), tf.shape(x))
        other_cost = tf.square(x - other) + tf.reshape(tf.gather(weights["cost"], place), tf.shape(x))
        zero_cost = (tf.square(x) + weights["zero_cost"]) * self._zero_factor(weights)
        return tf.where(zero_cost < other_cost, tf.zeros_like(x), other)

    def _zero_factor(self, weights: dict[str, Any]) -> Union[Tensor, float]:
        """What the cost of level 0 is multiplied by."""
        return 1.0

    def _in_steps(self, kernel: np.ndarray) -> np.ndarray:
        return np.asarray(kernel, np.float64) / (self.scale * np.exp(self.variables["log_step"].numpy()))

    def _set_prices(self, prices: Prices) -> None:
        others = prices.without_zero()
        self.variables["thresholds"].assign(others.thresholds)
        self.variables["cost"].assign(others.cost)
        self.variables["zero_cost"].assign(prices.zero)


class RelevanceEntropyQuantizer(EntropyQuantizer):
    """ECQx: as ECQ, but zero costs a weight of relevance R ``2 * R^beta`` times as much (Becking et al. 2022, eq. 3).

    Small weights that matter stay, larger ones that do not become zero. beta is the one published start value that brings
    sparsity into [s - band, s], where s is that of ECQ at the same prices, or else the closest that does.

    Args:
        bits: As for `EntropyQuantizer`.
        scale: As for `EntropyQuantizer`.
        pricing: As for `EntropyQuantizer`.
        band: Sparsity that may be given back; 0 keeps that of ECQ, for a comparison at equal sparsity.
    """

    def __init__(self, bits: int, scale: np.ndarray, pricing: Pricing, band: float = SPARSITY_BAND) -> None:
        super().__init__(bits, scale, pricing)
        self.band = band

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds log R and beta to the variables of ECQ; without any relevance so far the factor is 1."""
        super().build(tensor_shape, name, layer)
        half = keras.initializers.Constant(np.log(0.5))
        self.variables["log_relevance"] = layer.add_weight(
            f"{name}_log_relevance", tensor_shape, initializer=half, trainable=False
        )
        one = keras.initializers.Ones()
        self.variables["exponent"] = layer.add_weight(f"{name}_exponent", (), initializer=one, trainable=False)
        self._known = layer.add_weight(f"{name}_known", (), initializer=keras.initializers.Zeros(), trainable=False)
        return self.variables

    def refresh(self, kernel: np.ndarray, relevance: Optional[np.ndarray] = None) -> None:
        """Prices the levels again and finds beta; a new `relevance` is mixed with those before by `MOMENTUM`."""
        x = self._in_steps(kernel)
        prices = settle(x, self.limit, self.pricing)
        self._set_prices(prices)
        if relevance is not None:
            self._add_relevance(np.abs(relevance).astype(np.float64))
        if self._known.numpy():
            log_relevance = self.variables["log_relevance"].numpy().astype(np.float64)
            sparsity = float(np.mean(prices.assign(x) == 0))
            least = max(0.0, sparsity - self.band)
            first = first_exponent(log_relevance)
            exponent = relevance_exponent(x, prices, log_relevance, least, sparsity, first)
            self.variables["exponent"].assign(exponent)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "band": self.band}

    def _add_relevance(self, relevance: np.ndarray) -> None:
        if relevance.max() <= 0.0:  # a layer that is silent for now says nothing about its weights
            return
        fresh = relevance / relevance.max()
        if self._known.numpy():
            fresh = (1.0 - MOMENTUM) * fresh + MOMENTUM * np.exp(self.variables["log_relevance"].numpy())
        self.variables["log_relevance"].assign(np.log(np.clip(fresh, LEAST_RELEVANCE, 1.0)))
        self._known.assign(1.0)

    def _zero_factor(self, weights: dict[str, Any]) -> Union[Tensor, float]:
        return 2.0 * tf.exp(weights["exponent"] * weights["log_relevance"])
