"""Mixed precision by DeepLIFT importance."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

DEEPLIFT_MIXED = Recipe(
    name="deeplift-mixed",
    source="Sabih, Hannig & Teich 2020, arXiv 2008.09072",
    summary="Integer bit-widths per layer from DeepLIFT importance, chosen by an integer program.",
    rule="deeplift.rescale",
    bits=(2, 3, 4, 5, 6, 8),
    sensitivity="relevance",
    mean_bits=4.0,
)
