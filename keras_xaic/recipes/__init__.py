"""Named methods, each declared in a small file of its own."""

from __future__ import annotations

from keras_xaic.errors import PlanError
from keras_xaic.recipes.auto import AUTO
from keras_xaic.recipes.auto_magnitude import AUTO_MAGNITUDE
from keras_xaic.recipes.cluster import CLUSTER
from keras_xaic.recipes.deeplift_codebook import DEEPLIFT_CODEBOOK
from keras_xaic.recipes.deeplift_filters import DEEPLIFT_FILTERS
from keras_xaic.recipes.deeplift_mixed import DEEPLIFT_MIXED
from keras_xaic.recipes.deeplift_weights import DEEPLIFT_WEIGHTS
from keras_xaic.recipes.ecq import ECQ
from keras_xaic.recipes.ecqx import ECQX
from keras_xaic.recipes.int8 import INT8
from keras_xaic.recipes.lrp_mixed import LRP_MIXED
from keras_xaic.recipes.magnitude import MAGNITUDE
from keras_xaic.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        AUTO,
        LRP_MIXED,
        DEEPLIFT_FILTERS,
        DEEPLIFT_WEIGHTS,
        DEEPLIFT_CODEBOOK,
        DEEPLIFT_MIXED,
        ECQ,
        ECQX,
        INT8,
        MAGNITUDE,
        CLUSTER,
        AUTO_MAGNITUDE,
    )
}

__all__ = ["RECIPES", "Recipe", "get_recipe"]


def get_recipe(name: str) -> Recipe:
    """Returns the recipe called `name`.

    Raises:
        PlanError: If there is none.
    """
    if name not in RECIPES:
        raise PlanError(f"there is no recipe {name!r}", f"one of {', '.join(RECIPES)}", "`xaic recipes` explains them")
    return RECIPES[name]
