"""From relevance and a budget to a plan: which filters go, how sparse, how many bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.planning.budget import Budget
from keras_xaic.planning.filters import FilterRemoval
from keras_xaic.planning.options import LayerOptions
from keras_xaic.planning.plan_file import Plan, Score
from keras_xaic.planning.policy import Policy
from keras_xaic.planning.sensitivity import Damage, assess
from keras_xaic.planning.storages import Activations

if TYPE_CHECKING:
    from keras_xaic.relevance import Relevance

BITS = (3, 4, 5, 6, 8)


def plan(
    model: Any,
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
    score: Score = "geometric_mean",
    sensitivity: Union[str, Damage] = "auto",
    samples: Optional[Samples] = None,
    pin: Optional[Mapping[str, int]] = None,
    float_layers: Sequence[str] = (),
    activations: Activations = "int8",
) -> Plan:
    """Returns what each layer should get so that the model fits the budget with the least predicted damage.

    1. Bit-widths minimise the predicted damage (see `SENSITIVITIES`) under all limits, as an integer program (`allocate`).
    2. Where the download limit needs zeros, weights go lowest `weight_score` first, over the whole model.
    3. Where neither is enough, filters go, least relevant first over the whole model, until it is.

    >>> made = plan(model, relevance, Budget(mean_bits=4.0), samples=x, pin={"head": 8})

    Args:
        model: The trained `keras.Model`.
        relevance: Its relevance, mean of absolute values over samples (for the score ``signed_relevance``: mean).
        budget: What may be spent. Without a limit every layer gets its highest bit-width.
        recipe: Name written into the plan.
        bits: Bit-widths that a layer may get.
        filters: Whether filters may be removed.
        seed: Written into the plan; training uses it.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        protect: Name patterns (`fnmatch`) of layers that keep all filters.
        sparsity: Fraction of zeros over all kernels but depthwise ones; more if the download limit needs more.
        score: What ranks weights for pruning. With ``signed_relevance`` all weights with relevance <= 0 go, no others.
        sensitivity: What predicts damage: a name of `SENSITIVITIES`; ``auto`` is ``combined`` with `samples` and
            ``relevance`` without; or what `measure_damage` returned, to measure once for several plans.
        samples: Calibration data to measure on.
        pin: Name pattern -> bit-width that those layers get whatever the budget, e.g. for the first and the last layer.
        float_layers: Name patterns of layers that are not quantized.
        activations: Type of activations between layers; behind ``int16`` weights take 8 bits of storage.

    Returns:
        The plan. Where the budget cannot be met it is the smallest that the recipe allows.

    Raises:
        PlanError: If the relevance is not that of this model, or an option is not usable.
    """
    policy = Policy(bits, pin or {}, float_layers, activations)
    if score == "signed_relevance" and relevance.reduce not in ("mean", "sum", "momentum"):
        raise PlanError(
            f"score signed_relevance with relevance reduced by {relevance.reduce}", "signed relevance: reduce='mean'"
        )
    options = LayerOptions(model, relevance.weights, policy, score, flash_correction)
    policy.check(kernel.key for kernel in options.kernels)
    damage = assess(options.rounding(samples, seed), sensitivity) if isinstance(sensitivity, str) else sensitivity
    limits = (budget.flash_bytes, budget.download_bytes, budget.mean_bits, sparsity)
    layers = options.choose(damage, *limits)
    bytes_limited = budget.flash_bytes is not None or budget.download_bytes is not None
    removal = FilterRemoval(model, relevance, budget, bits, protect) if filters and layers is None and bytes_limited else None
    remove: dict[str, list[int]] = {}
    while layers is None and removal is not None:
        following = removal.next()
        if following is None:
            break
        remove = following.remove
        options = LayerOptions(following.model, following.relevance, policy, score, flash_correction)
        layers = options.choose(damage, *limits)
    layers = options.smallest(damage) if layers is None else layers
    return Plan(
        recipe=recipe,
        seed=seed,
        budget=budget,
        score=score,
        activations=activations,
        sensitivity=damage.sensitivity.name,
        layers=layers,
        remove=remove,
        predicted_flash_bytes=options.flash_bytes(layers),
        predicted_download_bytes=options.download_bytes(layers),
    )


def measure_damage(
    model: Any,
    relevance: Relevance,
    *,
    sensitivity: str = "auto",
    samples: Optional[Samples] = None,
    bits: Sequence[int] = BITS,
    seed: int = 0,
) -> Damage:
    """Returns what `plan` would measure, for several plans of one model that allow the same bit-widths (see `plan`)."""
    return assess(LayerOptions(model, relevance.weights, Policy(bits)).rounding(samples, seed), sensitivity)
