"""Keras models: loading, one canonical form, kernels, channels and surgery."""

from __future__ import annotations

from keras_xaic.models.canonical import Canonical, canonicalize
from keras_xaic.models.kernels import Kernel, weighted_kernels
from keras_xaic.models.loading import load_model, save_model
from keras_xaic.models.operations import Operation, Operations
from keras_xaic.models.task import Task, infer_task

__all__ = [
    "Canonical",
    "Kernel",
    "Operation",
    "Operations",
    "Task",
    "canonicalize",
    "infer_task",
    "load_model",
    "save_model",
    "weighted_kernels",
]
