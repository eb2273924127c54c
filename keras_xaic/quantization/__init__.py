"""Grids, and TFMOT quantizers that train weights exactly on them."""

from __future__ import annotations

from keras_xaic.quantization.activations import quantize_activations
from keras_xaic.quantization.apply import (
    copy_into_wrapped,
    copy_master_weights,
    fold_kernels,
    freeze,
    quantize_by_plan,
    refresh_prices,
    round_to_plan,
)
from keras_xaic.quantization.codebook import choose_levels
from keras_xaic.quantization.codebook_quantizer import CodebookQuantizer
from keras_xaic.quantization.entropy_quantizers import EntropyQuantizer, RelevanceEntropyQuantizer
from keras_xaic.quantization.quantizers import GridQuantizer, PlannedQuantizeConfig
from keras_xaic.quantization.rounding import round_by_outputs

__all__ = [
    "CodebookQuantizer",
    "EntropyQuantizer",
    "GridQuantizer",
    "PlannedQuantizeConfig",
    "RelevanceEntropyQuantizer",
    "choose_levels",
    "copy_into_wrapped",
    "copy_master_weights",
    "fold_kernels",
    "freeze",
    "quantize_activations",
    "quantize_by_plan",
    "refresh_prices",
    "round_by_outputs",
    "round_to_plan",
]
