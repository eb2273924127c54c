"""From relevance and a budget to a plan: which filters go, how sparse, how many bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_xaic.planning.budget import Budget
from keras_xaic.planning.filters import FilterRemoval
from keras_xaic.planning.options import LayerOptions
from keras_xaic.planning.plan_file import Plan

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
) -> Plan:
    """Returns what each layer should get so that the model fits the budget with the least predicted damage.

    1. Bit-widths minimise the relevance-weighted rounding error (`rounding_damage`) under both byte limits, as an integer
       program (`allocate`).
    2. Where the download limit needs zeros, weights go lowest `weight_score` first, over the whole model.
    3. Where neither is enough, filters go, least relevant first over the whole model, until it is.

    Args:
        model: The trained `keras.Model`.
        relevance: Its relevance, mean of absolute values over samples.
        budget: What may be spent. Without a flash or download limit every layer gets its highest bit-width.
        recipe: Name written into the plan.
        bits: Bit-widths that a layer may get.
        filters: Whether filters may be removed.
        seed: Written into the plan; training uses it.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        protect: Name patterns (`fnmatch`) of layers that keep all filters.
        sparsity: Fraction of zeros over all kernels but depthwise ones; more if the download limit needs more.

    Returns:
        The plan. Where the budget cannot be met it is the smallest that the recipe allows.

    Raises:
        PlanError: If the relevance is not that of this model.
    """
    options = LayerOptions(model, relevance.weights, bits, flash_correction)
    layers = options.choose(budget.flash_bytes, budget.download_bytes, sparsity)
    removal = FilterRemoval(model, relevance, budget, bits, protect) if filters and layers is None else None
    remove: dict[str, list[int]] = {}
    while layers is None and removal is not None:
        following = removal.next()
        if following is None:
            break
        remove = following.remove
        options = LayerOptions(following.model, following.relevance, bits, flash_correction)
        layers = options.choose(budget.flash_bytes, budget.download_bytes, sparsity)
    layers = options.smallest() if layers is None else layers
    return Plan(
        recipe=recipe,
        seed=seed,
        budget=budget,
        layers=layers,
        remove=remove,
        predicted_flash_bytes=options.flash_bytes(layers),
        predicted_download_bytes=options.download_bytes(layers),
    )
