"""From relevance and a budget to a plan: which filters go, how sparse, how many bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Optional, Union

from keras_xaic.budget import Budget
from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.models.costs import macs
from keras_xaic.models.kernels import other_matrices
from keras_xaic.planning.allocation import Limits
from keras_xaic.planning.candidates import LayerOptions
from keras_xaic.planning.checking import check_relevance
from keras_xaic.planning.choosing import best_effort, choose
from keras_xaic.planning.fastest import fastest
from keras_xaic.planning.filters import FilterRemoval, limits_of
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.plan import FilterPlan, LayerPlan, Plan
from keras_xaic.planning.sensitivity import Damage, assess
from keras_xaic.planning.storages import RUN_BY
from keras_xaic.progress import Progress, silent

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.relevance import Relevance

STEP_RATIO = 4.0
"""Where steps are not given, each leaves about this part of the weights: more at once is hard to recover from."""


def plan(
    model: Model,
    relevance: Relevance,
    budget: Budget,
    options: Optional[PlanOptions] = None,
    *,
    samples: Optional[Samples] = None,
    seed: int = 0,
    recipe: str = "auto",
    flash_correction: int = 0,
    plain: Optional[float] = None,
) -> Plan:
    """Returns what each layer should get so that the model fits the budget with the least predicted damage.

    1. Bit-widths and, under a download limit, zeros minimise the predicted damage (see `SENSITIVITIES`) under all limits, as
       one integer program (`allocate`). Within a layer weights go lowest `weight_score` first.
    2. Where that is not enough, or time, multiply-accumulates or RAM are limited, filters go, least relevant first over the
       whole model; under a limit on time, least relevant for the time that they save, and residual branches as a whole where
       that loses less.
    3. Layers are stored as they take the least time on LiteRT; those that flash needs packed are the ones that it costs least.

    >>> from keras_xaic._keras import keras, layers
    >>> from keras_xaic.relevance.magnitude import magnitude
    >>> body, head = layers.Dense(16, "relu", name="body"), layers.Dense(3, "softmax", name="head")
    >>> model = keras.Sequential([keras.Input((8,)), body, head])
    >>> made = plan(model, magnitude(model), Budget(mean_bits=5.0), PlanOptions(pin={"head": 8}))
    >>> [(layer.key, layer.bits) for layer in made.layers]
    [('body', 3), ('head', 8)]

    Args:
        model: The trained `keras.Model`.
        relevance: Its relevance, mean of absolute values over samples (for the score ``signed_relevance``: mean).
        budget: What may be spent. Without a limit every layer gets its highest bit-width.
        options: What layers may get, and how filters go; None: the defaults.
        samples: Calibration data to measure on what bit-widths do.
        seed: Written into the plan; training uses it.
        recipe: Name written into the plan.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        plain: Microseconds that the original is predicted to take as plain int8 (see `keras_xaic.planning.latency`), where
            `model` is what is left of it; None: `model` is the original.

    Returns:
        The plan. Limits that cannot be met are eased to the least that the recipe allows, that on flash first.

    Raises:
        PlanError: If the relevance is not that of this model, or the options do not go with the budget or the relevance; or if
            the budget is in milliseconds, which `keras_xaic.plan` makes a multiple of plain int8's time.
    """
    options = options or PlanOptions()
    bits, activations = options.bits, options.activations
    sparsity = options.sparsity if bits else 0.0
    total = sum(macs(model).values())
    if budget.latency is not None:
        raise PlanError("a limit in milliseconds, which only a measurement tells", "max_slowdown", "Use keras_xaic.plan")
    if options.removal and (budget.flash, budget.download, budget.macs, budget.max_slowdown) == (None,) * 4:
        budget = replace(budget, macs=max(1, round((1 - options.removal) * total)))
    on_micro = "tflm" in RUN_BY[activations]
    _check(model, relevance, budget, options, on_micro)
    kernels = LayerOptions(model, relevance.weights, options, flash_correction, relevance.of_rounding)
    options.check(kernels.kernels, others=other_matrices(model) if options.pin else ())
    plain = kernels.accounts.times.plain() if plain is None else plain
    time = None if budget.max_slowdown is None else budget.max_slowdown * plain
    damage = _damage(kernels, options.sensitivity, samples, seed)
    too_slow = options.filters and total > (budget.macs_limit or total)
    layers = None if too_slow else _choose(kernels, damage, budget, bits, sparsity, time)
    how = FilterPlan(steps=options.steps or 1, align=options.align, protect=tuple(options.protect))
    limited = any(limit is not None for limit in (budget.flash, budget.download, budget.macs, budget.ram, time))
    short = options.filters and limited and not _fits(kernels, layers, budget, bits)
    more = (flash_correction, options.branches)
    removing = FilterRemoval(model, relevance, budget, bits, how, activations, time, *more) if short else None
    branches: dict[str, list[str]] = {}
    remove: dict[str, list[int]] = {}
    while removing is not None and not _fits(kernels, layers, budget, bits):
        following = removing.next()
        if following is None:
            break
        branches, remove = following.branches, following.remove
        kernels = LayerOptions(following.model, following.relevance, options, flash_correction, following.rounding)
        layers = _choose(kernels, damage, budget, bits, sparsity, time)
    if layers is None:
        layers = best_effort(kernels, damage, _limits(budget, bits), sparsity)
    lookup = True
    if bits and not (options.packed and (budget.flash, budget.download, time) == (None, None, None)):
        layers, lookup = fastest(kernels.accounts, layers, budget.flash_bytes, plain)
    if options.steps is None:
        how = how.model_copy(update={"steps": _steps(relevance, kernels)})
    limits = limits_of(layers, budget, activations, time, lookup)
    return Plan(
        recipe=recipe,
        seed=seed,
        budget=budget,
        score=options.score,
        activations=activations,
        lookup=lookup,
        sensitivity=damage.sensitivity.name,
        layers=layers if bits else [],
        branches=branches,
        remove=remove,
        filters=how.model_copy(update=limits) if remove and how.steps > 1 else None,
        predicted_flash_bytes=kernels.accounts.flash_bytes(layers),
        predicted_download_bytes=kernels.accounts.download_bytes(layers),
        predicted_ram_bytes=_ram_bytes(kernels, layers, bits) if on_micro else None,
        predicted_slowdown=round(kernels.accounts.microseconds(layers) / plain, 4) if plain else None,
    )


def measure_damage(
    model: Model,
    relevance: Relevance,
    options: Optional[PlanOptions] = None,
    *,
    samples: Optional[Samples] = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Damage:
    """Returns what `plan` would measure, for several plans of one model with the same bits and activations (see `plan`)."""
    options = options or PlanOptions()
    kernels = LayerOptions(model, relevance.weights, options, rounding=relevance.of_rounding)
    return _damage(kernels, options.sensitivity, samples, seed, progress)


def _damage(
    kernels: LayerOptions,
    sensitivity: Union[str, Damage],
    samples: Optional[Samples],
    seed: int,
    progress: Progress = silent,
) -> Damage:
    if not isinstance(sensitivity, str):
        return sensitivity
    return assess(replace(kernels.rounding(samples, seed), progress=progress), sensitivity)


def _check(model: Model, relevance: Relevance, budget: Budget, options: PlanOptions, on_micro: bool) -> None:
    """Refuses what does not go together."""
    if budget.ram is not None and not on_micro:
        raise PlanError(
            f"a RAM budget with {options.activations} activations, which TensorFlow Lite Micro does not run", "none"
        )
    if options.score == "signed_relevance" and relevance.reduce not in ("mean", "sum", "momentum"):
        raise PlanError(
            f"score signed_relevance with relevance reduced by {relevance.reduce}", "signed relevance: reduce='mean'"
        )
    check_relevance(relevance, model)


def _steps(relevance: Relevance, kernels: LayerOptions) -> int:
    """Returns in how many steps filters go, one for every `STEP_RATIO` times that the model has fewer weights in the end."""
    before = sum(value.size for value in relevance.weights.values())
    left = sum(kernel.size for kernel in kernels.kernels.values())
    return max(1, math.ceil(math.log(before / left, STEP_RATIO))) if left else 1  # all weights may be those of other layers


def _choose(
    kernels: LayerOptions, damage: Damage, budget: Budget, bits: Sequence[int], sparsity: float, time: Optional[float]
) -> Optional[list[LayerPlan]]:
    """Returns the least damaging choice within the budget, or None; plain int8 has no zeros to meet a download limit with."""
    download = budget.download_bytes
    layers = choose(kernels, damage, replace(_limits(budget, bits), microseconds=time), sparsity)
    if layers is not None and not bits and download is not None and kernels.accounts.download_bytes(layers) > download:
        return None
    return layers


def _limits(budget: Budget, bits: Sequence[int]) -> Limits:
    """Returns the limits on flash, download and mean bit-width that a choice of bits and zeros can do something about."""
    return Limits(budget.flash_bytes, budget.download_bytes if bits else None, budget.mean_bits)


def _fits(kernels: LayerOptions, layers: Optional[Sequence[LayerPlan]], budget: Budget, bits: Sequence[int]) -> bool:
    """Whether there is a choice, and the model runs with it in the RAM there is."""
    return layers is not None and (budget.ram_bytes is None or _ram_bytes(kernels, layers, bits) <= budget.ram_bytes)


def _ram_bytes(kernels: LayerOptions, layers: Sequence[LayerPlan], bits: Sequence[int]) -> int:
    """Returns the predicted arena; without bit-widths the converter stores the weights, not the plan."""
    return kernels.accounts.ram_bytes(layers if bits else ())
