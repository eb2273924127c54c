"""Wraps a model's layers so that they train on their planned grids, and takes the exact integers out afterwards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Optional

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from keras_xaic._keras import Layer, Model, keras, tf
from keras_xaic.grids import QuantizedKernel, fit_scale, quantize
from keras_xaic.models.canonical import Canonical
from keras_xaic.models.frozen import keep_frozen
from keras_xaic.models.kernels import Kernel, layer_kernels, weighted_kernels
from keras_xaic.models.masking import passes_masks
from keras_xaic.models.rebuilding import rebuilt
from keras_xaic.planning.plan import LayerPlan, Plan, find_layer
from keras_xaic.quantization.codebook_quantizer import CodebookQuantizer
from keras_xaic.quantization.entropy import price_by_weight, price_for_sparsity, size_share
from keras_xaic.quantization.entropy_quantizers import SPARSITY_BAND, EntropyQuantizer, RelevanceEntropyQuantizer
from keras_xaic.quantization.quantizers import GridQuantizer, PlannedQuantizeConfig

PREFIX = "quant_"
LEARNED = ("_log_step", "_shift")
"""How the names of variables end that quantizers train beside a layer's own."""


class _Quantized(quantize_wrapper.QuantizeWrapperV2):
    """A layer of Keras on its planned grids; layers of users' own may hold Python conditions on tensors."""

    call = tf.autograph.experimental.do_not_convert(quantize_wrapper.QuantizeWrapperV2.call)
    """As it stands: reading its source takes longer than a small net's epoch."""


def quantize_by_plan(
    model: Model,
    plan: Plan,
    masks: Optional[Mapping[str, np.ndarray]] = None,
    relevance: Optional[Mapping[str, np.ndarray]] = None,
) -> Model:
    """Returns a clone of `model` that computes with weights on the planned grids and trains them there.

    Args:
        model: A flat model. BatchNorm behind a kernel with one scale per channel may stay: folding multiplies the scales.
        plan: Bit-width, granularity and grid of every kernel; kernels that it does not name stay float.
        masks: Kernel key -> boolean mask; False weights stay zero. Grids ``ecq`` and ``ecqx`` find their own zeros.
        relevance: Kernel key -> relevance of every weight, for grids ``codebook`` and ``ecqx``; what is missing counts alike.
    """
    masks, relevance = masks or {}, relevance or {}
    largest = max((layer.weights for layer in plan.layers), default=1)

    def wrap(layer: Layer) -> Layer:
        fresh = rebuilt(layer, layer.get_config())
        grids: dict[str, Any] = {}
        for kernel in layer_kernels(layer, layer.name):
            planned = find_layer(plan, kernel.key)
            if planned is not None and not planned.is_float:
                known = masks.get(kernel.key), relevance.get(kernel.key)
                grids[kernel.attribute] = _quantizer(kernel, planned, plan.entropy_weight, largest, *known)
        if not grids:
            return fresh
        kind = _Quantized if type(fresh).__module__.startswith(("keras.", "tf_keras.")) else quantize_wrapper.QuantizeWrapperV2
        return passes_masks(kind(fresh, PlannedQuantizeConfig(grids), name_prefix=PREFIX))

    wrapped = keras.models.clone_model(model, clone_function=wrap)
    for old, new in zip(model.layers, wrapped.layers):
        _copy_originals(old, new)
    keep_frozen(wrapped)
    refresh_prices(wrapped, relevance)
    return wrapped


def round_to_plan(model: Model, plan: Plan, masks: Optional[Mapping[str, np.ndarray]] = None) -> dict[str, QuantizedKernel]:
    """Rounds kernels to the nearest levels of planned uniform grids: `quantize_by_plan` and `freeze` without training.

    Args:
        model: A flat model; its kernels are replaced in place.
        plan: See `quantize_by_plan`.
        masks: See `quantize_by_plan`.

    Returns:
        See `freeze`.
    """
    kernels: dict[str, QuantizedKernel] = {}
    for kernel in (kernel for layer in model.layers for kernel in layer_kernels(layer, layer.name)):
        planned = find_layer(plan, kernel.key)
        if planned is None or planned.is_float:
            continue
        value, mask = kernel.value, (masks or {}).get(kernel.key)
        scale = fit_scale(value, planned.bits, kernel.channel_axes if planned.granularity == "channel" else ())
        kernels[kernel.key] = quantize(value if mask is None else value * mask, planned.bits, scale)
        kernel.variable.assign(kernels[kernel.key].values)
    return kernels


def refresh_prices(quantized: Model, relevance: Optional[Mapping[str, np.ndarray]] = None) -> None:
    """Prices the levels of every ``ecq`` and ``ecqx`` grid from the master weights of now.

    Args:
        quantized: What `quantize_by_plan` returns.
        relevance: Kernel key -> relevance of every weight, where a new one is known.
    """
    for wrapper in quantized.layers:
        if not isinstance(wrapper, quantize_wrapper.QuantizeWrapperV2):
            continue
        masters = _masters(wrapper)
        for kernel in layer_kernels(wrapper.layer, wrapper.layer.name):
            quantizer = wrapper.quantize_config.grids.get(kernel.attribute)
            if isinstance(quantizer, EntropyQuantizer):
                quantizer.refresh(masters[kernel.attribute].numpy(), (relevance or {}).get(kernel.key))


def copy_into_wrapped(model: Model, quantized: Model, names: Collection[str]) -> None:
    """Writes weights of the plain model into what `quantize_by_plan` made of such a model.

    Args:
        model: The plain model.
        quantized: The other; its weights are replaced in place.
        names: Of the plain model's layers that are copied.
    """
    for old, new in zip(model.layers, quantized.layers):
        if old.name in names:
            _copy_originals(old, new)


def copy_master_weights(quantized: Model, model: Model) -> None:
    """Writes the weights that are being trained, before they go onto their grids, into the plain model.

    Args:
        quantized: What `quantize_by_plan` made of `model`.
        model: The plain model; its weights are replaced in place.
    """
    for layer, wrapper in zip(model.layers, quantized.layers):
        if not isinstance(wrapper, quantize_wrapper.QuantizeWrapperV2):
            if layer.weights:
                layer.set_weights(wrapper.get_weights())
            continue
        masters = _masters(wrapper)
        for weight in layer.weights:
            weight.assign(masters[_last_name(weight)])


def freeze(quantized: Model, model: Model) -> dict[str, QuantizedKernel]:
    """Writes the trained weights, exactly on their grids, into `model` and returns the grids.

    Args:
        quantized: What `quantize_by_plan` made of `model`, trained.
        model: The plain model; its weights are replaced in place.

    Returns:
        Kernel key -> integers and steps; the model's kernels equal their `values` bit for bit.
    """
    copy_master_weights(quantized, model)
    kernels: dict[str, QuantizedKernel] = {}
    for layer, wrapper in zip(model.layers, quantized.layers):
        if not isinstance(wrapper, quantize_wrapper.QuantizeWrapperV2):
            continue
        grids = wrapper.quantize_config.grids
        for kernel in layer_kernels(layer, layer.name):
            if kernel.attribute in grids:  # the others stay float
                kernels[kernel.key] = grids[kernel.attribute].freeze(kernel.value)
                kernel.variable.assign(kernels[kernel.key].values)
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


def _quantizer(
    kernel: Kernel,
    planned: LayerPlan,
    entropy_weight: float,
    largest: int,
    mask: Optional[np.ndarray],
    relevance: Optional[np.ndarray],
) -> Model:
    """Returns the quantizer for the planned grid of one kernel."""
    axes = kernel.channel_axes if planned.granularity == "channel" else ()
    if planned.grid == "codebook":
        return CodebookQuantizer.fit(kernel.value, planned.bits, axes, mask, relevance)
    scale = fit_scale(kernel.value, planned.bits, axes)
    if planned.grid == "uniform":
        return GridQuantizer(planned.bits, scale, mask)
    if planned.sparsity > 0:
        pricing, band = price_for_sparsity(planned.sparsity), 0.0
    else:
        pricing, band = price_by_weight(entropy_weight * size_share(kernel.size, largest)), SPARSITY_BAND
    if planned.grid == "ecq":
        return EntropyQuantizer(planned.bits, scale, pricing)
    return RelevanceEntropyQuantizer(planned.bits, scale, pricing, band)


def _masters(wrapper: Layer) -> dict[str, Any]:
    """Name -> variable of the layer inside a wrapper, trained or frozen: weights before they go onto their grids."""
    return {_last_name(weight): weight for weight in wrapper.weights if not _last_name(weight).endswith(LEARNED)}


def _last_name(weight: Any) -> str:
    return str(weight.name).split("/")[-1].split(":")[0]


def _copy_originals(layer: Layer, wrapper: Layer) -> None:
    """Gives a cloned, perhaps wrapped layer the weights of the original."""
    if isinstance(wrapper, quantize_wrapper.QuantizeWrapperV2):
        masters = _masters(wrapper)
        for weight in layer.weights:
            masters[_last_name(weight)].assign(weight)
    elif layer.weights:
        wrapper.set_weights(layer.get_weights())
