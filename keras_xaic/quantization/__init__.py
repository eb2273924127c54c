"""Grids, and TFMOT quantizers that train weights exactly on them."""

from __future__ import annotations

from keras_xaic.quantization.activations import Ranges, quantize_activations
from keras_xaic.quantization.apply import fold_kernels, freeze, quantize_by_plan
from keras_xaic.quantization.quantizers import GridQuantizer, PlannedQuantizeConfig
from keras_xaic.quantization.rounding import round_by_outputs

__all__ = [
    "GridQuantizer",
    "PlannedQuantizeConfig",
    "Ranges",
    "fold_kernels",
    "freeze",
    "quantize_activations",
    "quantize_by_plan",
    "round_by_outputs",
]
