"""Dense weights of three values as INT2, two bits each, for LiteRT alone: as fast as a byte a weight."""

from __future__ import annotations

import numpy as np

from keras_xaic.tflite.flatbuffer import INT2, ModelT, TensorType, copied, require_version, set_constant
from keras_xaic.tflite.pairing import WeightOperator, weight_operators
from keras_xaic.tflite.rewrite import quantization

VERSION = 14
"""The newest operator version of LiteRT 2.3.0; interpreters that do not know it refuse the file in one line."""
TOGETHER = 4
"""Inputs of a unit share bytes: LiteRT 2.3.0 does not delegate other numbers of inputs."""


def with_int2(model: ModelT) -> ModelT:
    """Returns a loaded int8 file whose dense INT4 kernels of three values are INT2, where LiteRT delegates them.

    It computes the same bits there; other interpreters refuse the file.
    """
    made = copied(model)
    for one in weight_operators(made):
        if _fits(one):
            set_constant(made, one.weight_tensor, one.weights, INT2)
            require_version(one.operator, VERSION)
            scales = np.resize(one.weight_tensor.quantization.scale, len(one.weights))
            one.weight_tensor.quantization = quantization(scales, axis=0)  # with one for all units it is not delegated
    return made


def _fits(one: WeightOperator) -> bool:
    data = one.operator.input(one.data_position)
    return bool(
        one.kind == "dense"
        and one.weight_tensor.type == TensorType.INT4
        and data is not None
        and data.type == TensorType.INT8
        and one.weights.shape[-1] % TOGETHER == 0
        and np.abs(one.weights).max() <= 1
    )
