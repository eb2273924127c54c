"""How much every weight, filter and layer matters: LRP, DeepLIFT and yardsticks behind one function."""

from __future__ import annotations

from keras_xaic.relevance.attribution import Attribution, attribute
from keras_xaic.relevance.composites import Composite
from keras_xaic.relevance.container import Relevance
from keras_xaic.relevance.rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, Z, ZBox, ZPlus

__all__ = [
    "AlphaBeta",
    "Attribution",
    "Composite",
    "Epsilon",
    "Flat",
    "Gamma",
    "Relevance",
    "Rule",
    "WSquare",
    "Z",
    "ZBox",
    "ZPlus",
    "attribute",
]
