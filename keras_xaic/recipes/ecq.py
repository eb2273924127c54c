"""Entropy-constrained quantization, without relevance."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

ECQ = Recipe(
    name="ecq",
    source="Becking, Dreyer, Samek, Müller & Lapuschkin 2022 (arXiv 2109.04236), without the x",
    summary="2 to 5 bits, trained so that levels that many weights share are preferred: sparse, and small to download.",
    rule="lrp.epsilon",
    bits=(2, 3, 4, 5),
    grid="ecq",
    filters=True,
)
