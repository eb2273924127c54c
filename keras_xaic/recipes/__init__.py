"""Named methods, as data."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import Union

from keras_xaic.errors import PlanError, choices
from keras_xaic.files import PathLike
from keras_xaic.recipes.published import RECIPES
from keras_xaic.recipes.recipe import Recipe

__all__ = ["RECIPES", "Recipe", "RecipeLike", "get_baselines", "get_recipe"]

RecipeLike = Union[str, Recipe, PathLike]
"""The name of a recipe, a recipe, or the path of one in JSON."""


def get_recipe(recipe: RecipeLike) -> Recipe:
    """Returns a recipe by its name, or read from its file.

    Raises:
        PlanError: If there is none of that name, or the file holds something else.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, (str, os.PathLike)):
        raise PlanError(f"recipe is a {type(recipe).__name__}", "a name, a Recipe, or the path of a .json")
    if isinstance(recipe, os.PathLike) or recipe.endswith(".json") or os.sep in recipe:
        return Recipe.load(pathlib.Path(recipe).expanduser())
    if recipe not in RECIPES:
        raise PlanError(f"there is no recipe {recipe!r}", choices(recipe, RECIPES), "`xaic recipes` explains them")
    return RECIPES[recipe]


def get_baselines(names: Iterable[RecipeLike]) -> tuple[Recipe, ...]:
    """Returns the recipes that a result is compared with.

    Raises:
        PlanError: If one is unknown, or no baseline.
    """
    found = tuple(get_recipe(name) for name in names)
    for one in found:
        if not one.comparable:
            known = ", ".join(name for name, one in RECIPES.items() if one.comparable)
            raise PlanError(f"recipe {one.name!r} is not a baseline", f"some of {known}")
    return found
