"""From relevance and a budget to a plan: which filters go, how sparse, how many bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Optional, Union

from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.models.costs import macs
from keras_xaic.planning.budget import Budget
from keras_xaic.planning.candidates import LayerOptions, Policy
from keras_xaic.planning.filters import FilterRemoval, limits_of
from keras_xaic.planning.plan import FilterPlan, LayerPlan, Plan, Score, check_relevance
from keras_xaic.planning.sensitivity import Damage, assess
from keras_xaic.planning.storages import RUN_BY, Activations

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.relevance import Relevance

BITS = (3, 4, 5, 6, 8)
STEP_RATIO = 4.0
"""Where steps are not given, each leaves about this part of the weights: more at once is hard to recover from."""


def plan(
    model: Model,
    relevance: Relevance,
    budget: Budget,
    *,
    recipe: str = "auto",
    bits: Sequence[int] = BITS,
    filters: bool = True,
    seed: int = 0,
    flash_correction: int = 0,
    protect: Sequence[str] = (),
    sparsity: float = 0.0,
    removal: float = 0.0,
    steps: Optional[int] = 1,
    align: int = 1,
    score: Score = "geometric_mean",
    sensitivity: Union[str, Damage] = "auto",
    samples: Optional[Samples] = None,
    pin: Optional[Mapping[str, int]] = None,
    float_layers: Sequence[str] = (),
    activations: Activations = "int8",
    zeros: Optional[Mapping[str, str]] = None,
) -> Plan:
    """Returns what each layer should get so that the model fits the budget with the least predicted damage.

    1. Bit-widths and, under a download limit, zeros minimise the predicted damage (see `SENSITIVITIES`) under all limits, as
       one integer program (`allocate`). Within a layer weights go lowest `weight_score` first.
    2. Where that is not enough, or multiply-accumulates or RAM are limited, filters go, least relevant first over the whole
       model.

    >>> import numpy as np
    >>> from keras_xaic._keras import keras, layers
    >>> from keras_xaic.relevance import attribute
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(50, name="hidden"), layers.Dense(2, name="head")])
    >>> relevance = attribute(model, np.eye(4, dtype="float32"))
    >>> made = plan(model, relevance, Budget(mean_bits=6.0), pin={"head": 8})
    >>> {layer.key: layer.bits for layer in made.layers}
    {'hidden': 5, 'head': 8}

    Args:
        model: The trained `keras.Model`.
        relevance: Its relevance, mean of absolute values over samples (for the score ``signed_relevance``: mean).
        budget: What may be spent. Without a limit every layer gets its highest bit-width.
        recipe: Name written into the plan.
        bits: Bit-widths that a layer may get; () leaves them to the TFLite converter: plain int8, and no layers in the plan.
        filters: Whether filters may be removed.
        seed: Written into the plan; training uses it.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        protect: Name patterns (`fnmatch`) of layers that keep all filters.
        sparsity: Fraction of zeros over all kernels but depthwise ones; more if the download limit needs more.
        removal: Fraction of the multiply-accumulates that goes with filters where the budget limits neither those, flash nor
            download.
        steps: In how many steps filters go, with training in between and relevance refreshed for each; None: one for every
            `STEP_RATIO` times that the model has fewer weights in the end.
        align: What stays of a layer that loses filters is a multiple of this.
        score: What ranks weights for pruning. With ``signed_relevance`` all weights with relevance <= 0 go, no others.
        sensitivity: What predicts damage: a name of `SENSITIVITIES`; ``auto`` is ``combined`` with `samples` and
            ``relevance`` without; or what `measure_damage` returned, to measure once for several plans.
        samples: Calibration data to measure on.
        pin: Name pattern -> bit-width that those layers get whatever the budget, e.g. for the first and the last layer.
        float_layers: Name patterns of layers that are not quantized.
        zeros: Name pattern -> which zeros go together in those layers: ``2:4`` (2 in every 4) or ``4x1`` (blocks of 4 inputs by
            1 output); unstructured elsewhere.
        activations: Type of activations between layers. Behind ``int16`` and ``float32`` weights take a byte each, but dense
            layers of up to 4 bits half a byte behind ``float32``. ``float32`` is about as fast as the float32 model where
            int8 is slow, and does not run on TensorFlow Lite Micro.

    Returns:
        The plan. Limits that cannot be met are eased to the least that the recipe allows, that on flash first.

    Raises:
        PlanError: If the relevance is not that of this model, or an option is not usable.
    """
    if not bits:
        sparsity = 0.0
    total = sum(macs(model).values())
    if removal and (budget.flash, budget.download, budget.macs) == (None, None, None):
        budget = replace(budget, macs=max(1, round((1 - removal) * total)))
    policy = Policy(bits or (8,), pin or {}, float_layers, activations, zeros or {})
    on_micro = "tflm" in RUN_BY[activations]
    if budget.ram is not None and not on_micro:
        raise PlanError(f"a RAM budget with {activations} activations, which TensorFlow Lite Micro does not run", "none")
    if score == "signed_relevance" and relevance.reduce not in ("mean", "sum", "momentum"):
        raise PlanError(
            f"score signed_relevance with relevance reduced by {relevance.reduce}", "signed relevance: reduce='mean'"
        )
    check_relevance(relevance, model)
    options = LayerOptions(model, relevance.weights, policy, score, flash_correction)
    policy.check(kernel.key for kernel in options.kernels)
    damage = assess(options.rounding(samples, seed), sensitivity) if isinstance(sensitivity, str) else sensitivity
    too_slow = filters and total > (budget.macs_limit or total)
    layers = None if too_slow else _choose(options, damage, budget, bits, sparsity)
    how = FilterPlan(steps=steps or 1, align=align, protect=tuple(protect))
    limited = any(limit is not None for limit in (budget.flash, budget.download, budget.macs, budget.ram))
    short = filters and limited and not _fits(options, layers, budget, bits)
    removing = FilterRemoval(model, relevance, budget, bits, how, activations) if short else None
    remove: dict[str, list[int]] = {}
    while removing is not None and not _fits(options, layers, budget, bits):
        following = removing.next()
        if following is None:
            break
        remove = following.remove
        options = LayerOptions(following.model, following.relevance, policy, score, flash_correction)
        layers = _choose(options, damage, budget, bits, sparsity)
    if layers is None:
        layers = options.best_effort(damage, *_limits(budget, bits), sparsity)
    if steps is None:
        left = sum(kernel.size for kernel in options.kernels)
        steps = max(1, math.ceil(math.log(sum(value.size for value in relevance.weights.values()) / left, STEP_RATIO)))
        how = how.model_copy(update={"steps": steps})
    return Plan(
        recipe=recipe,
        seed=seed,
        budget=budget,
        score=score,
        activations=activations,
        sensitivity=damage.sensitivity.name,
        layers=layers if bits else [],
        remove=remove,
        filters=how.model_copy(update=limits_of(layers, budget, activations)) if remove and steps > 1 else None,
        predicted_flash_bytes=options.flash_bytes(layers),
        predicted_download_bytes=options.download_bytes(layers),
        predicted_ram_bytes=_ram_bytes(options, layers, bits) if on_micro else None,
    )


def measure_damage(
    model: Model,
    relevance: Relevance,
    *,
    sensitivity: str = "auto",
    samples: Optional[Samples] = None,
    bits: Sequence[int] = BITS,
    seed: int = 0,
    activations: Activations = "int8",
) -> Damage:
    """Returns what `plan` would measure, for several plans of one model with the same bits and activations (see `plan`)."""
    policy = Policy(bits, activations=activations)
    return assess(LayerOptions(model, relevance.weights, policy).rounding(samples, seed), sensitivity)


def _choose(
    options: LayerOptions, damage: Damage, budget: Budget, bits: Sequence[int], sparsity: float
) -> Optional[list[LayerPlan]]:
    """Returns the least damaging choice within the budget, or None; plain int8 has no zeros to meet a download limit with."""
    download = budget.download_bytes
    layers = options.choose(damage, *_limits(budget, bits), sparsity)
    if layers is not None and not bits and download is not None and options.download_bytes(layers) > download:
        return None
    return layers


def _limits(budget: Budget, bits: Sequence[int]) -> tuple[Optional[int], Optional[int], Optional[float]]:
    """Returns the limits on flash, download and mean bit-width that a choice of bits and zeros can do something about."""
    return budget.flash_bytes, budget.download_bytes if bits else None, budget.mean_bits


def _fits(options: LayerOptions, layers: Optional[Sequence[LayerPlan]], budget: Budget, bits: Sequence[int]) -> bool:
    """Whether there is a choice, and the model runs with it in the RAM there is."""
    return layers is not None and (budget.ram_bytes is None or _ram_bytes(options, layers, bits) <= budget.ram_bytes)


def _ram_bytes(options: LayerOptions, layers: Sequence[LayerPlan], bits: Sequence[int]) -> int:
    """Returns the predicted arena; without bit-widths the converter stores the weights, not the plan."""
    return options.ram_bytes(layers if bits else ())
