"""Explainability-driven entropy-constrained quantization."""

from __future__ import annotations

from dataclasses import replace

from keras_xaic.recipes.ecq import ECQ

ECQX = replace(
    ECQ,
    name="ecqx",
    source="Becking, Dreyer, Samek, Müller & Lapuschkin 2022 (arXiv 2109.04236)",
    summary="As ecq, but LRP relevance decides which weights become zero.",
    grid="ecqx",
)
