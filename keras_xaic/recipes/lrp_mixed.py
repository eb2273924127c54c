"""Pruning and mixed precision by signed LRP scores."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

LRP_MIXED = Recipe(
    name="lrp-mixed",
    source="Soroush, Raji & Ghavami 2023, arXiv 2507.05286",
    summary="Weights whose LRP score is not positive are pruned; layers get more bits the higher the mean score of the rest.",
    rule="lrp.epsilon",
    reduce="mean",
    score="signed_relevance",
    bits=(2, 3, 4, 5, 6, 8),
    sensitivity="mean_score",
    mean_bits=4.0,
)
