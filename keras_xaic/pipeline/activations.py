"""Whether a run may compute with the activations that it asks for; said before any long work."""

from __future__ import annotations

import contextlib
from typing import Optional, get_args

from keras_xaic.errors import PlanError
from keras_xaic.planning import Budget, Plan
from keras_xaic.planning.storages import RUN_BY, Activations
from keras_xaic.recipes import Recipe
from keras_xaic.settings import Device


def wider_activations(recipe: Recipe, budget: Budget, device: Device) -> tuple[Activations, ...]:
    """Returns the types of activations that may take the place of int8 where it cannot keep the accuracy, the cheapest first.

    Args:
        recipe: The recipe; one that names its activations insists on them.
        budget: As for `chosen_activations`.
        device: As for `chosen_activations`.
    """
    order: tuple[Activations, ...] = get_args(Activations)
    found: list[Activations] = []
    for wider in order[1:] if recipe.activations == "auto" else ():
        if wider == "int16" and recipe.float_layers:  # there are no float layers among int16 activations
            continue
        with contextlib.suppress(PlanError):
            found.append(chosen_activations(None, recipe.changed(activations=wider), budget, device))
    return tuple(found)


def chosen_activations(plan: Optional[Plan], recipe: Recipe, budget: Budget, device: Device) -> Activations:
    """Returns the activations of a run: the plan's, else the recipe's, else int8.

    Args:
        plan: The plan that is to be carried out, if there is one.
        recipe: The recipe.
        budget: The limits.
        device: Where the model will run.

    Raises:
        PlanError: If they do not go together with the rest.
    """
    asked = recipe.plain_activations
    activations = asked if plan is None else plan.activations
    if plan is not None and recipe.activations not in ("auto", activations):
        raise PlanError(
            f"activations {asked} for a plan with {activations}", "the plan's", "Make another plan, or leave them away"
        )
    if recipe.rule is None and activations != "int8":
        raise PlanError(f"activations {activations} for the recipe {recipe.name!r}", "int8, or a recipe of ours, e.g. auto")
    if device.file.io in ("uint8", "int8") and activations != "int8":
        raise PlanError(
            f"{device.file.io} inputs and outputs of a file with {activations} activations",
            "int8 activations",
            "Choose {io=float32}",
        )
    if "tflm" in RUN_BY[activations]:
        return activations
    for wrong, what in (
        (device.target == "micro", "the target micro"),
        (budget.ram is not None, "a RAM budget"),
        ("tflm" in device.interpreters, "the interpreter tflm"),
    ):
        if wrong:
            raise PlanError(
                f"{what} with {activations} activations, which TensorFlow Lite Micro does not compute on integer weights",
                "int8 or int16 activations for microcontrollers",
                f"Choose other activations, or leave {what} away",
            )
    return activations
