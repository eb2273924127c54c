"""Unstructured pruning by DeepLIFT importance."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

DEEPLIFT_WEIGHTS = Recipe(
    name="deeplift-weights",
    source="Sabih, Hannig & Teich 2020 (arXiv 2008.09072)",
    summary="Weights with the least DeepLIFT importance become zero, layer by layer as many as matter least; 8 bits for the rest.",
    rule="deeplift.rescale",
    score="relevance",
    sparsity=0.8,
    bits=(8,),
)
