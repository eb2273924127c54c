"""From relevance and a budget to a plan: which filters go, how sparse, how many bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

from keras_xaic.models.costs import macs
from keras_xaic.planning.budget import Budget
from keras_xaic.planning.filter_plan import FilterPlan
from keras_xaic.planning.filters import FilterRemoval, limits_of
from keras_xaic.planning.options import LayerOptions
from keras_xaic.planning.plan_file import LayerPlan, Plan

if TYPE_CHECKING:
    from keras_xaic.relevance import Relevance


def plan(
    model: Any,
    relevance: Relevance,
    budget: Budget,
    *,
    recipe: str = "auto",
    bits: Sequence[int] = (3, 4, 5, 6, 8),
    filters: bool = True,
    seed: int = 0,
    flash_correction: int = 0,
    protect: Sequence[str] = (),
    sparsity: float = 0.0,
    removal: float = 0.0,
    steps: int = 1,
    align: int = 1,
) -> Plan:
    """Returns what each layer should get so that the model fits the budget with the least predicted damage.

    1. Bit-widths minimise the relevance-weighted rounding error (`rounding_damage`) under both byte limits, as an integer
       program (`allocate`).
    2. Where the download limit needs zeros, weights go lowest `weight_score` first, over the whole model.
    3. Where neither is enough, or multiply-accumulates are limited, filters go, least relevant first over the whole model.

    Args:
        model: The trained `keras.Model`.
        relevance: Its relevance, mean of absolute values over samples.
        budget: What may be spent. Without a flash or download limit every layer gets its highest bit-width.
        recipe: Name written into the plan.
        bits: Bit-widths that a layer may get; () leaves them to the TFLite converter: plain int8, and no layers in the plan.
        filters: Whether filters may be removed.
        seed: Written into the plan; training uses it.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        protect: Name patterns (`fnmatch`) of layers that keep all filters.
        sparsity: Fraction of zeros over all kernels but depthwise ones; more if the download limit needs more.
        removal: Fraction of the multiply-accumulates that goes with filters where the budget names no limit.
        steps: In how many steps filters go, with training in between and relevance refreshed for each.
        align: What stays of a layer that loses filters is a multiple of this.

    Returns:
        The plan. Where the budget cannot be met it is the smallest that the recipe allows.

    Raises:
        PlanError: If the relevance is not that of this model.
    """
    if not bits:
        sparsity = 0.0
    total = sum(macs(model).values())
    if removal and (budget.flash, budget.download, budget.macs) == (None, None, None):
        budget = replace(budget, macs=max(1, round((1 - removal) * total)))
    options = LayerOptions(model, relevance.weights, bits or (8,), flash_correction)
    layers = None if filters and total > (budget.macs_limit or total) else _choose(options, budget, bits, sparsity)
    how = FilterPlan(steps=steps, align=align, protect=tuple(protect))
    removing = FilterRemoval(model, relevance, budget, bits, how) if filters and layers is None else None
    remove: dict[str, list[int]] = {}
    while layers is None and removing is not None:
        following = removing.next()
        if following is None:
            break
        remove = following.remove
        options = LayerOptions(following.model, following.relevance, bits or (8,), flash_correction)
        layers = _choose(options, budget, bits, sparsity)
    layers = options.smallest() if layers is None else layers
    return Plan(
        recipe=recipe,
        seed=seed,
        budget=budget,
        layers=layers if bits else [],
        remove=remove,
        filters=how.model_copy(update=limits_of(layers, budget)) if remove and steps > 1 else None,
        predicted_flash_bytes=options.flash_bytes(layers),
        predicted_download_bytes=options.download_bytes(layers),
    )


def _choose(options: LayerOptions, budget: Budget, bits: Sequence[int], sparsity: float) -> Optional[list[LayerPlan]]:
    """Returns the least damaging choice within the budget, or None; plain int8 has no zeros to meet a download limit with."""
    layers = options.choose(budget.flash_bytes, budget.download_bytes if bits else None, sparsity)
    limit = budget.download_bytes
    if layers is not None and not bits and limit is not None and options.download_bytes(layers) > limit:
        return None
    return layers
