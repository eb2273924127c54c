"""How much every weight, filter and layer matters: LRP, DeepLIFT and yardsticks behind one function.

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_xaic.lazy import loaded_later

if TYPE_CHECKING:
    from keras_xaic.relevance.attribution import Attribution, attribute
    from keras_xaic.relevance.comparison import Difference, compare, cross_check
    from keras_xaic.relevance.composites import Composite
    from keras_xaic.relevance.container import Relevance
    from keras_xaic.relevance.explanations import Explanations
    from keras_xaic.relevance.methods import RULE_NAMES
    from keras_xaic.relevance.pictures import plot_layers, plot_sample, save_figure, save_pictures
    from keras_xaic.relevance.rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, Z, ZBox, ZPlus
    from keras_xaic.relevance.similarity import mean_similarity, rank_similarity
    from keras_xaic.relevance.table import LayerRow, as_csv, layer_rows

_HOME = {
    "AlphaBeta": "rules",
    "Attribution": "attribution",
    "Composite": "composites",
    "Difference": "comparison",
    "Epsilon": "rules",
    "Explanations": "explanations",
    "Flat": "rules",
    "Gamma": "rules",
    "LayerRow": "table",
    "RULE_NAMES": "methods",
    "Relevance": "container",
    "Rule": "rules",
    "WSquare": "rules",
    "Z": "rules",
    "ZBox": "rules",
    "ZPlus": "rules",
    "as_csv": "table",
    "attribute": "attribution",
    "compare": "comparison",
    "cross_check": "comparison",
    "layer_rows": "table",
    "mean_similarity": "similarity",
    "plot_layers": "pictures",
    "plot_sample": "pictures",
    "rank_similarity": "similarity",
    "save_figure": "pictures",
    "save_pictures": "pictures",
}

__all__ = [
    "RULE_NAMES",
    "AlphaBeta",
    "Attribution",
    "Composite",
    "Difference",
    "Epsilon",
    "Explanations",
    "Flat",
    "Gamma",
    "LayerRow",
    "Relevance",
    "Rule",
    "WSquare",
    "Z",
    "ZBox",
    "ZPlus",
    "as_csv",
    "attribute",
    "compare",
    "cross_check",
    "layer_rows",
    "mean_similarity",
    "plot_layers",
    "plot_sample",
    "rank_similarity",
    "save_figure",
    "save_pictures",
]


__getattr__ = loaded_later(__name__, _HOME)
