"""report.json and its two faces: the console table and the HTML page."""

from __future__ import annotations

from keras_xaic.report.console import comparison_table, layer_table, render, summary_line
from keras_xaic.report.html import render_html, write_html
from keras_xaic.report.schema import (
    BaselineFacts,
    BudgetFacts,
    CompressedFacts,
    InterpreterFacts,
    LatencyFacts,
    LayerFacts,
    ModelFacts,
    OriginalFacts,
    Report,
)
from keras_xaic.report.wording import budget_misses, verdict

__all__ = [
    "BaselineFacts",
    "BudgetFacts",
    "CompressedFacts",
    "InterpreterFacts",
    "LatencyFacts",
    "LayerFacts",
    "ModelFacts",
    "OriginalFacts",
    "Report",
    "budget_misses",
    "comparison_table",
    "layer_table",
    "render",
    "render_html",
    "summary_line",
    "verdict",
    "write_html",
]
