"""The relevance that a recipe asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from keras_xaic.data import Samples
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.relevance.choices import Reduce

if TYPE_CHECKING:
    from keras_xaic._keras import Model

Choice = tuple[Any, Reduce]
"""An attribution rule, and how samples are brought together."""


def attribute_by(
    recipe: Recipe, model: Model, samples: Samples, task: AnyTask, seed: int = 0, progress: Progress = silent
) -> Relevance:
    """Returns relevance by the recipe's rule; where others rank its filters or weigh its rounding, those scores are by them.

    Args:
        recipe: Says by which rules.
        model: The model as it stands.
        samples: Calibration data.
        task: Says where relevance starts.
        seed: Seed of everything random.
        progress: Told how far the work is.
    """

    def by(rule: Any, reduce: Reduce) -> Relevance:
        return attribute(
            model,
            samples,
            samples.labels,
            rule=rule,
            reduce=reduce,
            target=task.explained(samples),
            seed=seed,
            allow_approximate=True,  # what has no rule was refused or accepted before
            progress=progress,
        )

    rule = recipe.rule or "lrp.epsilon"
    usual: Choice = (rule, recipe.reduce)
    filters: Choice = (recipe.filter_rule or rule, recipe.filter_reduce or recipe.reduce)
    return attribute_each(by, usual, filters, usual if recipe.bits_rule is None else (recipe.bits_rule, "mean_abs"))


def attribute_each(by: Callable[[Any, Reduce], Relevance], weights: Choice, filters: Choice, bits: Choice) -> Relevance:
    """Returns relevance by one choice, with the scores of filters and layers by another one and those of rounding by a third.

    Args:
        by: Computes it; called once for choices that are the same.
        weights: Rule and reduction.
        filters: The same, of filters and layers.
        bits: The same, of rounding.
    """
    made: dict[str, Relevance] = {}

    def once(rule: Any, reduce: Reduce) -> Relevance:
        key = json.dumps([rule, reduce])
        if key not in made:
            made[key] = by(rule, reduce)
        return made[key]

    return together(once(*weights), once(*filters), once(*bits))


def together(first: Relevance, ranked: Relevance, weighed: Relevance) -> Relevance:
    """Returns relevance with the scores of filters and layers of a second one, and with those of rounding of a third."""
    entries: dict[str, Any] = {}
    if ranked is not first:
        entries.update(filters=ranked.filters, layers=ranked.layers, filter_rule=ranked.rule)
        entries.update(filter_reduce=ranked.reduce if ranked.reduce != first.reduce else "")
    if weighed is not first:
        entries.update(rounding=weighed.weights, bits_rule=weighed.rule)
    return replace(first, **entries)
