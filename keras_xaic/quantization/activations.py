"""Activations that train on the grids that TFLite will give them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantizers

from keras_xaic._keras import Layer, Model, Tensor, keras, layers, tf
from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.models.front import needed_fronts
from keras_xaic.models.kernels import layer_kernels
from keras_xaic.models.masking import FAR
from keras_xaic.models.operations import Operation, Operations
from keras_xaic.models.rebuilding import inputs_like
from keras_xaic.planning.storages import Activations
from keras_xaic.settings import Ranges

MOMENTUM = 0.99
"""Weight of the past in a moving average of ranges."""
PERCENTILE = 99.99
"""Share of the values on either side of zero that a percentile range holds, in percent."""
BATCH = 64
PASSED_ON = (
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.Dropout,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.Cropping2D,
)
"""Layers whose outputs keep the scale of their inputs."""
FUSING = (layers.Add, layers.BatchNormalization, layers.Subtract)
"""Layers beside those with weights that take up the ReLU behind them."""


class RangeQuantizer(quantizers.Quantizer):
    """8 bits: asymmetric, zero exactly on the grid; 16 bits: symmetric. One step per tensor, as the TFLite converter does.

    ``q = s * (round(x / s) + z)`` clipped to the range (Jacob et al. 2018, arXiv 1712.05877, section 3); gradients pass the
    rounding and stop at the clip. This base class keeps the range it is given.

    Args:
        low: Lower end of the range, at most 0.
        high: Upper end of the range, at least 0.
        activations: ``int8`` or ``int16``.
    """

    def __init__(self, low: float, high: float, activations: Activations = "int8") -> None:
        self.low, self.high, self.activations = min(0.0, float(low)), max(0.0, float(high)), activations
        if self.low == self.high:
            self.high = 1e-6  # nothing ever passes here

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds what the range is kept in to `layer`."""
        return {}

    def range(self, inputs: Tensor, training: object, weights: dict[str, Any]) -> tuple[Any, Any]:
        """Returns both ends of the range for this call."""
        return tf.constant(self.low), tf.constant(self.high)

    def __call__(self, inputs: Tensor, training: object, weights: dict[str, Any], **kwargs: object) -> Tensor:
        """Returns `inputs` on the grid."""
        low, high = self.range(inputs, training, weights)
        if self.activations == "int8":
            return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=8)
        largest = tf.maximum(-low, high)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, -largest, largest, num_bits=16, narrow_range=True)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {"low": self.low, "high": self.high, "activations": self.activations}


class MovingAverageRange(RangeQuantizer):
    """The range follows the batches' smallest and largest values, as TFMOT's `MovingAverageQuantizer` does."""

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds both ends of the range, not trainable."""
        ends = {"low": self.low, "high": self.high}
        return {
            end: layer.add_weight(
                f"{name}_{end}",
                shape=(),
                initializer=keras.initializers.Constant(value),
                trainable=False,
                aggregation=tf.VariableAggregation.MEAN,  # of what several devices see
            )
            for end, value in ends.items()
        }

    def range(self, inputs: Tensor, training: object, weights: dict[str, Any]) -> tuple[Any, Any]:
        """Returns the range, moved towards that of `inputs` in training."""
        if not training:
            return weights["low"], weights["high"]
        seen = {"low": tf.minimum(tf.reduce_min(inputs), 0.0), "high": tf.maximum(tf.reduce_max(inputs), 0.0)}
        moved = [weights[end].assign(MOMENTUM * weights[end] + (1 - MOMENTUM) * seen[end]) for end in ("low", "high")]
        return moved[0], moved[1]


class LearnedRange(RangeQuantizer):
    """Both ends of the range are trained, as logarithms of their change (cf. Jain et al. 2020, TQT, arXiv 1903.08066)."""

    def build(self, tensor_shape: object, name: str, layer: Layer) -> dict[str, Any]:
        """Adds the logarithms."""
        return {
            end: layer.add_weight(f"{name}_log_{end}", shape=(), initializer="zeros", trainable=True) for end in ("low", "high")
        }

    def range(self, inputs: Tensor, training: object, weights: dict[str, Any]) -> tuple[Any, Any]:
        """Returns the range as it is learned now."""
        return self.low * tf.exp(weights["low"]), self.high * tf.exp(weights["high"])


KINDS: dict[str, type[RangeQuantizer]] = {
    "moving_average": MovingAverageRange,
    "learned": LearnedRange,
    "percentile": RangeQuantizer,
}
"""Name -> how ranges are kept."""


def quantize_activations(
    model: Model, samples: Samples, ranges: Ranges = "moving_average", activations: Activations = "int8"
) -> Model:
    """Returns a model of the same layers, weights shared, whose activations lie on grids.

    A tensor gets a grid where the TFLite converter gives it one: inputs, and outputs of operators after BatchNorm and ReLU have
    been merged into them. What a layer with a softmax of its own computes inside stays float, and what holds values of masks,
    which export brings near (see `keras_xaic.tflite.mask_values`). At export the converter sets ranges from calibration data,
    so ranges that training moved far from the data's own are not exported.

    Args:
        model: A flat model, perhaps with weights on grids already (see `quantize_by_plan`).
        samples: Calibration data for the first ranges: smallest and largest value, or `PERCENTILE`.
        ranges: ``moving_average``, ``learned``, or ``percentile`` (fixed).
        activations: ``int8`` or ``int16``.

    Raises:
        PlanError: If there is no such kind of ranges.
    """
    if ranges not in KINDS:
        raise PlanError(f"activation ranges {ranges!r}", f"one of {', '.join(KINDS)}")
    operations = Operations(model)
    fronts = needed_fronts(operations, samples.feeds())  # computed in float32
    inside = {name for front in fronts.values() for name in front.operations}
    real = [key for key, tensor in zip(operations.inputs, model.inputs) if tensor.dtype.is_floating]
    chosen = [fronts[key].key if key in fronts else key for key in real]
    chosen += [op.outputs[0] for op in operations if op.name not in inside and has_own_grid(op, operations)]
    found = _first_ranges(operations, samples, set(chosen), PERCENTILE if ranges == "percentile" else 100.0)
    masked = {key for key, (low, high) in found.items() if low <= -FAR and high < FAR}
    inserted = {
        key: quantize_layer.QuantizeLayer(KINDS[ranges](*found[key], activations), name=f"grid_{number}")
        for number, key in enumerate(chosen)
        if key in found and key not in masked
    }
    for grid in inserted.values():
        grid.supports_masking = True
    inputs = inputs_like(model, any_batch=True)
    tensors = {key: inserted[key](tensor) if key in inserted else tensor for key, tensor in zip(operations.inputs, inputs)}
    for operation in operations:
        for key, value in zip(operation.outputs, operation.call(tensors)):
            tensors[key] = inserted[key](value) if key in inserted else value
    return keras.Model(inputs, [tensors[key] for key in operations.outputs], name=model.name)


def has_own_grid(operation: Operation, operations: Operations) -> bool:
    """Whether the TFLite converter gives the output of an operation a scale of its own."""
    layer, readers = _inner(operation), operations.consumers[operation.outputs[0]]
    if isinstance(layer, PASSED_ON) or len(operation.outputs) > 1:
        return False
    if len(readers) != 1 or operation.outputs[0] in operations.outputs:
        return True
    following = _inner(readers[0])
    linear = getattr(layer, "activation", keras.activations.linear) is keras.activations.linear
    weighted = bool(layer_kernels(layer, operation.path)) and linear
    if isinstance(following, layers.BatchNormalization):
        return not weighted
    relu = isinstance(following, layers.ReLU) or getattr(following, "activation", None) in (keras.activations.relu, tf.nn.relu6)
    merges = weighted or isinstance(layer, FUSING)
    return not (merges and relu and not layer_kernels(following, "") and not isinstance(following, layers.RNN))


def _inner(operation: Operation) -> Layer:
    return getattr(operation.layer, "layer", operation.layer)


def _first_ranges(
    operations: Operations, samples: Samples, chosen: set[str], percentile: float
) -> dict[str, tuple[float, float]]:
    """Smallest and largest values of floats, or percentiles of them averaged over batches."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for start in range(0, len(samples), BATCH):
        tensors: dict[str, Any] = operations.start(samples.feeds(slice(start, start + BATCH)))
        for operation in operations:
            tensors.update(zip(operation.outputs, operation.call(tensors)))
        for key in (key for key in chosen if tensors[key].dtype.is_floating):  # no ids, no conditions
            ends = np.percentile(tensors[key], [100.0 - percentile, percentile])
            found[key].append((float(ends[0]), float(ends[1])))
    if percentile < 100.0:
        return {
            key: (float(np.mean([low for low, _ in ends])), float(np.mean([high for _, high in ends])))
            for key, ends in found.items()
        }
    return {key: (min(low for low, _ in ends), max(high for _, high in ends)) for key, ends in found.items()}
