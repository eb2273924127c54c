"""Unstructured pruning by DeepLIFT importance."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

DEEPLIFT_WEIGHTS = Recipe(
    name="deeplift-weights",
    source="Sabih, Hannig & Teich 2020 (arXiv 2008.09072)",
    summary="Weights with the least DeepLIFT importance become zero, in each layer as many as matter least; then 8 bits.",
    rule="deeplift.rescale",
    score="relevance",
    sparsity=0.8,
    bits=(8,),
)
