"""Wraps a model's layers so that they train on their planned grids, and takes the exact integers out afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from keras_xaic._keras import keras
from keras_xaic.grids import QuantizedKernel, fit_scale
from keras_xaic.models.canonical import Canonical
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.planning.plan_file import Plan, find_layer
from keras_xaic.quantization.quantizers import GridQuantizer, PlannedQuantizeConfig

PREFIX = "quant_"


def quantize_by_plan(model: Any, plan: Plan, masks: Optional[Mapping[str, np.ndarray]] = None) -> Any:
    """Returns a clone of `model` that computes with weights on the planned grids and trains them there.

    Args:
        model: A flat model. BatchNorm behind a kernel with one step per channel may stay: folding scales the steps.
        plan: Bit-width and granularity of every kernel; kernels that it does not name stay float.
        masks: Kernel key -> boolean mask; False weights stay zero.
    """

    def wrap(layer: Any) -> Any:
        fresh = layer.__class__.from_config(layer.get_config())
        grids = {}
        for kernel in layer_kernels(layer, layer.name):
            planned = find_layer(plan, kernel.key)
            if planned is not None and not planned.is_float:
                axes = kernel.channel_axes if planned.granularity == "channel" else ()
                mask = None if masks is None else masks.get(kernel.key)
                grids[kernel.attribute] = GridQuantizer(planned.bits, fit_scale(kernel.value, planned.bits, axes), mask)
        if not grids:
            return fresh
        return quantize_wrapper.QuantizeWrapperV2(fresh, PlannedQuantizeConfig(grids), name_prefix=PREFIX)

    wrapped = keras.models.clone_model(model, clone_function=wrap)
    for old, new in zip(model.layers, wrapped.layers):
        _original_variables(new, old.get_weights())
    return wrapped


def freeze(quantized: Any, model: Any) -> dict[str, QuantizedKernel]:
    """Writes the trained weights, exactly on their grids, into `model` and returns the grids.

    Args:
        quantized: What `quantize_by_plan` made of `model`, trained.
        model: The plain model; its weights are replaced in place.

    Returns:
        Kernel key -> integers and steps; the model's kernels equal their `values` bit for bit.
    """
    kernels: dict[str, QuantizedKernel] = {}
    for layer, wrapper in zip(model.layers, quantized.layers):
        if not isinstance(wrapper, quantize_wrapper.QuantizeWrapperV2):
            if layer.weights:
                layer.set_weights(wrapper.get_weights())
            continue
        trained = {variable.name.split("/")[-1].split(":")[0]: variable.numpy() for variable in wrapper.trainable_weights}
        for kernel in layer_kernels(layer, layer.name):
            if kernel.attribute not in wrapper.quantize_config.grids:  # stays float
                kernel.variable.assign(trained[kernel.attribute])
                continue
            kernels[kernel.key] = wrapper.quantize_config.grids[kernel.attribute].freeze(trained[kernel.attribute])
            kernel.variable.assign(kernels[kernel.key].values)
        if getattr(layer, "use_bias", False):
            layer.bias.assign(trained["bias"])
    return kernels


def fold_kernels(kernels: Mapping[str, QuantizedKernel], canonical: Canonical) -> dict[str, QuantizedKernel]:
    """Returns the grids of the BatchNorm-folded clone and writes their exact values into it.

    Folding multiplies every channel by a constant, so the integers stay and the steps take the gain.

    Args:
        kernels: Grids of the model that `canonical` was made from, as `freeze` returns them.
        canonical: Its canonical clone; its kernels are replaced in place.
    """
    folded = {}
    for kernel in weighted_kernels(canonical.model):
        if kernel.key in kernels:
            gain = canonical.gains.get(kernel.key)
            folded[kernel.key] = kernels[kernel.key] if gain is None else kernels[kernel.key].scaled(gain)
            kernel.variable.assign(folded[kernel.key].values)
    return folded


def _original_variables(layer: Any, values: list[np.ndarray]) -> None:
    """Gives a cloned, perhaps wrapped layer the weights of the original."""
    if not isinstance(layer, quantize_wrapper.QuantizeWrapperV2):
        if values:
            layer.set_weights(values)
        return
    originals = [v for v in layer.trainable_weights if not v.name.split(":")[0].endswith("_log_step")]
    for variable, value in zip(originals, values):
        variable.assign(value)
