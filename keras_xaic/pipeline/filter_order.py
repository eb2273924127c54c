"""Under a limit on the similarity of explanations, the order in which filters go is the one that changes maps least."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

from keras_xaic.budget import Budget
from keras_xaic.data import Samples
from keras_xaic.errors import ModelError
from keras_xaic.models import remove_branches, remove_channels
from keras_xaic.models.statistics import remeasure_batchnorm
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.reasons import RULE, Reasons
from keras_xaic.pipeline.size_fitting import SizeFitter
from keras_xaic.planning import Plan, keep_masks
from keras_xaic.relevance import attribute

if TYPE_CHECKING:
    from keras_xaic._keras import Model

ORDERS = (RULE, "deeplift.rescale", "magnitude")
"""Rules whose order of filters is tried beside the recipe's."""


def most_alike(fitter: SizeFitter, budget: Budget, reasons: Reasons, samples: Samples, task: AnyTask) -> SizeFitter:
    """Returns what plans with the order of filters that leaves explanations most alike, before any training.

    Each order is planned down to the same limits. The recipe's own stays unless another is better by more than the standard
    error of its similarity; where no filters go there is nothing to choose.

    Args:
        fitter: Plans by the recipe's order.
        budget: What may be spent.
        reasons: What the original looks at.
        samples: Calibration data.
        task: What the model does.
    """
    made = fitter.plan(budget)
    if not made.branches and not made.remove:
        return fitter
    best, (most, doubt) = fitter, _similarity(fitter.model, made, samples, reasons)
    if most is None:
        return fitter
    most += doubt
    for rule in ORDERS:
        try:
            ranked = attribute(
                fitter.model, samples, samples.labels, rule=rule, target=task.explained(samples), allow_approximate=True
            )
        except ModelError:
            continue
        other = copy.copy(fitter)
        facts: dict[str, Any] = {"filter_rule": ranked.rule, "filter_reduce": ranked.reduce}
        other.relevance = replace(fitter.relevance, filters=ranked.filters, layers=ranked.layers, **facts)
        similarity, _ = _similarity(fitter.model, other.plan(budget), samples, reasons)
        if similarity is not None and similarity > most:
            best, most = other, similarity
    return best


def _similarity(model: Model, made: Plan, samples: Samples, reasons: Reasons) -> tuple[Optional[float], float]:
    """Returns how alike maps stay without the filters and branches that a plan takes, and the standard error of that."""
    small = remove_branches(model, made.branches)
    small = remove_channels(small, keep_masks(small, made.remove))
    remeasure_batchnorm(small, samples)
    return reasons.similarity(small)
