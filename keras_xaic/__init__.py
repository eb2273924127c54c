"""Compress trained Keras models by what explainable AI says matters, and prove the result on edge interpreters.

The public functions are loaded when they are first used, so that importing the package (or `keras_xaic.edge` on a device
without TensorFlow) is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_xaic._version import __version__

if TYPE_CHECKING:
    from keras_xaic.bundle import Bundle
    from keras_xaic.compression import CompressedModel, compress
    from keras_xaic.data import Data, load_data
    from keras_xaic.edge import verify
    from keras_xaic.errors import DataError, EdgeError, ExportError, ModelError, PlanError, XaicError
    from keras_xaic.models import load_model
    from keras_xaic.pipeline import run
    from keras_xaic.planning import Budget, FilterPlan, Plan, plan
    from keras_xaic.relevance import Relevance, attribute
    from keras_xaic.report import Report
    from keras_xaic.tflite.export import export

_HOME = {
    "Budget": "planning",
    "Bundle": "bundle",
    "CompressedModel": "compression",
    "Data": "data",
    "DataError": "errors",
    "EdgeError": "errors",
    "ExportError": "errors",
    "FilterPlan": "planning",
    "ModelError": "errors",
    "Plan": "planning",
    "PlanError": "errors",
    "Relevance": "relevance",
    "Report": "report",
    "XaicError": "errors",
    "attribute": "relevance",
    "compress": "compression",
    "export": "tflite",
    "load_data": "data",
    "load_model": "models",
    "plan": "planning",
    "run": "pipeline",
    "verify": "edge",
}

__all__ = [
    "Budget",
    "Bundle",
    "CompressedModel",
    "Data",
    "DataError",
    "EdgeError",
    "ExportError",
    "FilterPlan",
    "ModelError",
    "Plan",
    "PlanError",
    "Relevance",
    "Report",
    "XaicError",
    "__version__",
    "attribute",
    "compress",
    "export",
    "load_data",
    "load_model",
    "plan",
    "run",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'keras_xaic' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_xaic.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
