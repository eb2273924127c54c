"""report.json and its two faces: the console table and the HTML page."""

from __future__ import annotations

from keras_xaic.report.console import comparison_table, layer_table, render, summary_line
from keras_xaic.report.evidence import Evidence
from keras_xaic.report.front_page import render_front, save_front, shown_value
from keras_xaic.report.html import rebuild_html, render_html, write_html
from keras_xaic.report.points import Found, Front, read_front
from keras_xaic.report.schema import (
    BaselineFacts,
    BudgetFacts,
    ClassFacts,
    CompressedFacts,
    ConfusionFacts,
    ExplanationFacts,
    InterpreterFacts,
    LatencyFacts,
    LayerFacts,
    ModelFacts,
    OriginalFacts,
    Reference,
    Report,
    ShownFacts,
)
from keras_xaic.report.tradeoff import plot_tradeoff
from keras_xaic.report.wording import budget_misses, verdict

__all__ = [
    "BaselineFacts",
    "BudgetFacts",
    "ClassFacts",
    "CompressedFacts",
    "ConfusionFacts",
    "Evidence",
    "ExplanationFacts",
    "Found",
    "Front",
    "InterpreterFacts",
    "LatencyFacts",
    "LayerFacts",
    "ModelFacts",
    "OriginalFacts",
    "Reference",
    "Report",
    "ShownFacts",
    "budget_misses",
    "comparison_table",
    "layer_table",
    "plot_tradeoff",
    "read_front",
    "rebuild_html",
    "render",
    "render_front",
    "render_html",
    "save_front",
    "shown_value",
    "summary_line",
    "verdict",
    "write_html",
]
