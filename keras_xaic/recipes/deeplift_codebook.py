"""Non-uniform quantization by weight sharing, weighted by DeepLIFT importance."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

DEEPLIFT_CODEBOOK = Recipe(
    name="deeplift-codebook",
    source="Sabih, Hannig & Teich 2020 (arXiv 2008.09072)",
    summary="16 shared values in every layer, closest to the weights that matter most by DeepLIFT.",
    rule="deeplift.rescale",
    bits=(4,),
    grid="codebook",
    filters=True,
)
