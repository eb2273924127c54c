"""Compress trained Keras models by attribution (LRP, DeepLIFT), and verify the result on edge interpreters.

The public functions are loaded when they are first used, so that importing the package (or `keras_xaic.edge` on a device
without TensorFlow) is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_xaic._version import __version__
from keras_xaic.lazy import loaded_later

if TYPE_CHECKING:
    from keras_xaic.budget import Budget
    from keras_xaic.bundle import Bundle
    from keras_xaic.compression import CompressedModel, apply
    from keras_xaic.data import Data, Samples, as_data, load_data
    from keras_xaic.edge.marking import verify
    from keras_xaic.errors import DataError, EdgeError, ExportError, MachineError, ModelError, PlanError, XaicError
    from keras_xaic.models import load_model
    from keras_xaic.objectives import SearchOptions
    from keras_xaic.pipeline import compress, explain, export, plan, slim
    from keras_xaic.planning import FilterPlan, LayerPlan, Plan
    from keras_xaic.recipes import Recipe
    from keras_xaic.relevance import Relevance, attribute
    from keras_xaic.report import Report
    from keras_xaic.searching import pick, search
    from keras_xaic.settings import DataOptions, Device, FileOptions, Training

_HOME = {
    "Budget": "budget",
    "Bundle": "bundle",
    "CompressedModel": "compression",
    "Data": "data",
    "DataError": "errors",
    "DataOptions": "settings",
    "Device": "settings",
    "EdgeError": "errors",
    "ExportError": "errors",
    "FileOptions": "settings",
    "FilterPlan": "planning",
    "LayerPlan": "planning",
    "MachineError": "errors",
    "ModelError": "errors",
    "Plan": "planning",
    "PlanError": "errors",
    "Recipe": "recipes",
    "Relevance": "relevance",
    "Report": "report",
    "Samples": "data",
    "SearchOptions": "objectives",
    "Training": "settings",
    "XaicError": "errors",
    "apply": "compression",
    "as_data": "data",
    "attribute": "relevance",
    "compress": "pipeline",
    "explain": "pipeline",
    "export": "pipeline",
    "load_data": "data",
    "load_model": "models",
    "pick": "searching",
    "plan": "pipeline",
    "search": "searching",
    "slim": "pipeline",
    "verify": "edge.marking",
}

__all__ = [
    "Budget",
    "Bundle",
    "CompressedModel",
    "Data",
    "DataError",
    "DataOptions",
    "Device",
    "EdgeError",
    "ExportError",
    "FileOptions",
    "FilterPlan",
    "LayerPlan",
    "MachineError",
    "ModelError",
    "Plan",
    "PlanError",
    "Recipe",
    "Relevance",
    "Report",
    "Samples",
    "SearchOptions",
    "Training",
    "XaicError",
    "__version__",
    "apply",
    "as_data",
    "attribute",
    "compress",
    "explain",
    "export",
    "load_data",
    "load_model",
    "pick",
    "plan",
    "search",
    "slim",
    "verify",
]


__getattr__ = loaded_later(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
