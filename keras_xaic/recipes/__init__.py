"""Named methods, as data."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import Optional, Union

from keras_xaic.errors import PlanError, choices
from keras_xaic.files import PathLike, expanded
from keras_xaic.recipes.published import RECIPES
from keras_xaic.recipes.recipe import Recipe

__all__ = ["RECIPES", "Recipe", "RecipeLike", "get_baselines", "get_recipe", "recipe_file"]

ALL = "all"
"""Stands for every baseline."""
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
    file = recipe_file(recipe)
    if file is not None:
        return Recipe.load(file)
    if recipe not in RECIPES:
        raise PlanError(f"there is no recipe {recipe!r}", choices(recipe, RECIPES), "`xaic recipes` explains them")
    return RECIPES[recipe]


def recipe_file(recipe: object) -> Optional[pathlib.Path]:
    """Returns the file that a recipe is read from; None where it is the name of one, or the recipe itself."""
    is_file = isinstance(recipe, os.PathLike) or (isinstance(recipe, str) and (recipe.endswith(".json") or os.sep in recipe))
    return expanded(recipe) if is_file else None  # type: ignore[arg-type]


def get_baselines(names: Iterable[RecipeLike]) -> tuple[Recipe, ...]:
    """Returns the recipes that a result is compared with; `ALL` stands for every one of the registry.

    Raises:
        PlanError: If one is unknown, or no baseline.
    """
    names = list(names)
    comparable = [name for name, one in RECIPES.items() if one.comparable]
    found = tuple(get_recipe(name) for name in (comparable if names == [ALL] else names))
    for one in found:
        if not one.comparable:
            raise PlanError(f"recipe {one.name!r} is not a baseline", f"{ALL}, or some of {', '.join(comparable)}")
    return found
