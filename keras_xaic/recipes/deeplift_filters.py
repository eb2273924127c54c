"""Structured pruning by DeepLIFT importance."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

DEEPLIFT_FILTERS = Recipe(
    name="deeplift-filters",
    source="Sabih, Hannig & Teich 2020 (arXiv 2008.09072)",
    summary="Filters with the least DeepLIFT importance go, in steps with training in between; then plain int8.",
    rule="deeplift.rescale",
    filters=True,
    removal=0.5,
    steps=3,
)
