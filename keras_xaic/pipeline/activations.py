"""Whether a run may compute with the activations that it asks for; said before any long work."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Optional, Union, get_args

from keras_xaic.errors import PlanError
from keras_xaic.planning import Budget, Plan
from keras_xaic.planning.storages import RUN_BY, Activations
from keras_xaic.recipes import Recipe
from keras_xaic.tflite import Target


def wider_activations(
    recipe: Recipe, budget: Budget, target: Target, interpreters: Union[str, Sequence[str]]
) -> tuple[Activations, ...]:
    """Returns the types of activations that may take the place of the recipe's where it cannot keep the accuracy.

    Args:
        recipe: The recipe.
        budget: As for `chosen_activations`, as are `target` and `interpreters`.
    """
    order: tuple[Activations, ...] = get_args(Activations)
    found: list[Activations] = []
    for wider in order[order.index(recipe.activations) + 1 :]:
        with contextlib.suppress(PlanError):
            found.append(chosen_activations(wider, None, recipe, budget, target, interpreters))
    return tuple(found)


def chosen_activations(
    asked: Optional[Activations],
    plan: Optional[Plan],
    recipe: Recipe,
    budget: Budget,
    target: Target,
    interpreters: Union[str, Sequence[str]],
) -> Activations:
    """Returns the activations of a run: those that are asked for, else the plan's, else the recipe's.

    Args:
        asked: What the user asks for; None for nothing.
        plan: The plan that is to be carried out, if there is one.
        recipe: The recipe.
        budget: The limits.
        target: What the bundle is for.
        interpreters: Edge interpreters to verify on.

    Raises:
        PlanError: If they are not known, or do not go together with the rest.
    """
    activations = asked or (plan.activations if plan is not None else recipe.activations)
    if activations not in get_args(Activations):
        raise PlanError(f"activations {activations!r}", f"one of {', '.join(get_args(Activations))}")
    if plan is not None and plan.activations != activations:
        raise PlanError(
            f"activations {activations} for a plan with {plan.activations}", "the plan's", "Plan anew, or leave them away"
        )
    if recipe.rule is None and activations != "int8":
        raise PlanError(f"activations {activations} for the recipe {recipe.name!r}", "int8, or a recipe of ours, e.g. auto")
    if "tflm" in RUN_BY[activations]:
        return activations
    for wrong, what in (
        (target == "micro", "the target micro"),
        (budget.ram is not None, "a RAM budget"),
        ("tflm" in interpreters, "the interpreter tflm"),
    ):
        if wrong:
            raise PlanError(
                f"{what} with {activations} activations, which TensorFlow Lite Micro does not compute on integer weights",
                "int8 or int16 activations for microcontrollers",
                f"Choose other activations, or leave {what} away",
            )
    return activations
