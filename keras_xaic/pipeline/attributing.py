"""The relevance that a recipe asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keras_xaic.data import Samples
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance, attribute

if TYPE_CHECKING:
    from keras_xaic._keras import Model


def attribute_by(
    recipe: Recipe, model: Model, samples: Samples, task: AnyTask, seed: int = 0, progress: Progress = silent
) -> Relevance:
    """Returns relevance by the recipe's rule; where another rule ranks its filters, their scores are by that.

    Args:
        recipe: Says by which rules.
        model: The model as it stands.
        samples: Calibration data.
        task: Says where relevance starts.
        seed: Seed of everything random.
        progress: Told how far the work is.
    """

    def by(rule: Any) -> Relevance:
        return attribute(
            model,
            samples,
            samples.labels,
            rule=rule,
            reduce=recipe.reduce,
            target=task.explained(samples),
            seed=seed,
            allow_approximate=True,  # what has no rule was refused or accepted before
            progress=progress,
        )

    made = by(recipe.rule or "lrp.epsilon")
    if recipe.filter_rule is None:
        return made
    ranked = by(recipe.filter_rule)
    return replace(made, filters=ranked.filters, layers=ranked.layers, filter_rule=ranked.rule)
