"""The default recipe."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

AUTO = Recipe(
    name="auto",
    source="keras-xaic",
    summary="Fewest losses under the budget: bits per layer, zeros per weight and removed filters, all by LRP relevance.",
    rule="lrp.epsilon",
    bits=(2, 3, 4, 5, 6, 8),
    filters=True,
    steps=None,
    rounds=True,
)
